"""`api/llm`: publishing to the model service that the operator has chosen, without knowing its URL or key."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from waypost.core.ports import Unavailable

LLM = "llm"
#: The destination that stands for it.
API_LLM = f"api/{LLM}"
#: Behind the base URL of every service that speaks OpenAI's API.
_COMPLETIONS = "/chat/completions"


class KeyMissing(Unavailable):
    """The key can't be read: an attempt without it would be refused."""


def _no_key() -> str:
    return ""


class Llm(Struct, frozen=True):
    #: Where chat completions are asked for; empty: there is no service.
    url: str = ""
    #: Reads the key, which no message holds: what is stored can be read by whoever has the token. Raises KeyMissing.
    key: Callable[[], str] = _no_key


NO_LLM = Llm()


def completions_url(base_url: str) -> str:
    return base_url.rstrip("/") + _COMPLETIONS if base_url else ""

"""What texts look like that callers write: the same in paths, headers and bodies.

Where a pattern can't say it all, a format of ours has a name for the rest, and descriptions the words.
"""

from __future__ import annotations

from typing import Any

from waypost.core import limits
from waypost.core.plain_name import pattern_of

Schema = dict[str, Any]


def any_case(*words: str) -> str:
    """These words, however they are capitalised."""
    return "|".join(
        "".join(f"[{letter.upper()}{letter.lower()}]" if letter.isalpha() else letter for letter in word)
        for word in words
    )


def up_to(most: int) -> str:
    """Whole numbers that are no larger, as headers have them: of 15 digits at most."""
    digits = str(most)
    smaller = [
        f"{digits[:at]}[0-{int(digit) - 1}][0-9]{{{len(digits) - at - 1}}}"
        for at, digit in enumerate(digits)
        if digit != "0"
    ]
    shorter = [f"[0-9]{{1,{len(digits) - 1}}}"] if len(digits) > 1 else []
    return f"0{{0,{15 - len(digits)}}}({'|'.join([digits, *smaller, *shorter])})"


def described(description: str, schema: Schema) -> Schema:
    return {**schema, "description": description}


#: What is left out at both ends of a value, for a class of characters.
SPACES = r"\t-\r\x1c- \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
#: A header's name.
TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - no password
_HTTP = f"({any_case('https', 'http')})"
_NUMBER = r"[0-9]{1,15}(\.[0-9]{1,9})?"
_GROUP_NAME = pattern_of(limits.GROUP_NAME_LENGTH)
_LIMIT = "(parallelism|rate|period)[ \\t]*=[ \\t]*[0-9A-Za-z.]+"

#: A header's that is empty is none.
DURATION: Schema = {
    "type": "string",
    "pattern": f"^({_NUMBER}|({_NUMBER}({any_case('ms', 's', 'm', 'h', 'd')}))+)?$",
    "format": "waypost-duration",
}
CRON: Schema = {
    "type": "string",
    "pattern": r"^[ \t]*(CRON_TZ=[!-~]+[ \t]+)?(@[a-z]+|[!-~]+([ \t]+[!-~]+){4})[ \t]*$",
    "format": "waypost-cron",
}
ENDPOINT: Schema = {"type": "string", "pattern": f"^{_HTTP}://", "format": "waypost-endpoint"}
ENDPOINT_OR_NONE: Schema = {**ENDPOINT, "pattern": f"^($|{_HTTP}://)"}
GROUP_NAME: Schema = {"type": "string", "pattern": f"^{_GROUP_NAME}$"}
QUEUE_NAME: Schema = {"type": "string", "pattern": f"^{pattern_of(limits.QUEUE_NAME_LENGTH)}$"}
FLOW_KEY: Schema = {"type": "string", "minLength": 1, "maxLength": limits.FLOW_KEY_LENGTH}
#: Each part once, and one that is no period.
FLOW_LIMITS: Schema = {
    "type": "string",
    "pattern": f"^([ \\t]*{_LIMIT}([ \\t]*,[ \\t]*{_LIMIT}){{0,2}}[ \\t]*)?$",
    "format": "waypost-flow-control",
}
#: A URL, or the name of a group.
DESTINATION: Schema = {"type": "string", "pattern": f"^({_HTTP}:/|{_GROUP_NAME}$)", "format": "waypost-endpoint"}
#: In JSON, where a header may have several values.
HEADER: Schema = {
    "anyOf": [
        {"type": "string", "pattern": r"^[^\x00-\x08\x0a-\x1f\x7f]*$"},
        {"type": "array", "items": {"type": "string", "pattern": r"^[^\x00-\x08\x0a-\x1f\x7f]*$"}},
        {"type": "null"},
    ]
}

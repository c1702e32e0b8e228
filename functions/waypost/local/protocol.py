"""uvicorn's HTTP protocol with a bound on a request's head, and refusals in JSON."""

from __future__ import annotations

import json

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_MAX_HEAD = 131_072
_REMEDY = "send a well-formed HTTP/1.1 request; escape what is not ASCII in the path"


class BoundedProtocol(HttpToolsProtocol):
    _head = 0
    _in_head = False

    def on_message_begin(self) -> None:
        self._in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head, self._head = False, 0
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._in_head:
            self._head += len(data)
            if self._head > _MAX_HEAD:
                self._refuse(
                    "431 Request Header Fields Too Large", f"the head of a request has at most {_MAX_HEAD} bytes"
                )

    def send_400_response(self, msg: str) -> None:
        self._refuse("400 Bad Request", f"{msg.rstrip('.')}: {_REMEDY}")

    def _refuse(self, status: str, reason: str) -> None:
        body = json.dumps({"error": reason})
        self.transport.write(
            f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
            f"connection: close\r\n\r\n{body}".encode()
        )
        self.transport.close()

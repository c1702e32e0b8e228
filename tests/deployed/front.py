"""A small door before the deployed api function: a raw request becomes the function URL's event, as AWS documents it.

The emulator's own function URL decodes paths, so what a path keeps can't be seen behind it.
"""

from __future__ import annotations

import base64
import json
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

#: More would start an environment each, which all wait for the same two cores.
_AT_ONCE = 4
_TEXT = ("text/", "application/json", "application/xml", "application/javascript")


class Front:
    """Listens on `port` until it is closed. `functions` is a Lambda client, `name` the function that is called."""

    def __init__(self, functions: Any, name: str) -> None:
        self._functions = functions
        self._name = name
        self._turns = threading.Semaphore(_AT_ONCE)
        front = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                status, headers, answer = front.call(event(self, body))
                self.send_response(status)
                for header, value in headers.items():
                    self.send_header(header, value)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any  # noqa: N815 - the base class's names

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def call(self, request: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        with self._turns:
            try:
                invoked = self._functions.invoke(FunctionName=self._name, Payload=json.dumps(request).encode())
                answer = json.loads(invoked["Payload"].read())
            except Exception as failed:  # noqa: BLE001 - AWS answers 502 whatever befell the function
                return 502, {}, str(failed).encode()
        if "FunctionError" in invoked:
            return 502, {}, json.dumps(answer).encode()
        body = base64.b64decode(answer["body"]) if answer.get("isBase64Encoded") else answer["body"].encode()
        return answer["statusCode"], answer["headers"], body

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def event(request: BaseHTTPRequestHandler, body: bytes) -> dict[str, Any]:
    path, _, query = request.path.partition("?")
    headers: dict[str, str] = {}
    for name, value in request.headers.items():
        lower = name.lower()
        headers[lower] = f"{headers[lower]},{value}" if lower in headers else value
    text = headers.get("content-type", "").startswith(_TEXT)
    return {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": query,
        "headers": headers,
        "requestContext": {
            "accountId": "anonymous",
            "apiId": "abcdefghij",
            "domainName": "abcdefghij.lambda-url.us-east-1.on.aws",
            "domainPrefix": "abcdefghij",
            "http": {
                "method": request.command,
                "path": path,
                "protocol": "HTTP/1.1",
                "sourceIp": "127.0.0.1",
                "userAgent": headers.get("user-agent", ""),
            },
            "requestId": str(uuid.uuid4()),
            "routeKey": "$default",
            "stage": "$default",
            "time": time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime()),
            "timeEpoch": int(time.time() * 1000),
        },
        **({"body": body.decode() if text else base64.b64encode(body).decode()} if body else {}),
        "isBase64Encoded": bool(body) and not text,
    }

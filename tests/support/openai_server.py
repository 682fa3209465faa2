"""A real HTTP server of the OpenAI protocol on localhost, which does as a script says."""

from __future__ import annotations

import json
import select
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Recorded:
    """A request as the server got it; the key is kept apart from everything else."""

    method: str
    path: str
    headers: dict[str, str]
    authorization: str | None
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.body)


class Exchange:
    """What a behaviour answers with."""

    def __init__(
        self, handler: BaseHTTPRequestHandler, server: OpenAIServer, request: Recorded
    ) -> None:
        self.handler = handler
        self.server = server
        self.request = request

    def raw(self, content: bytes) -> None:
        self.handler.wfile.write(content)
        self.handler.wfile.flush()

    def head(self, status: int, media_type: str, **headers: str) -> None:
        self.handler.send_response(status)
        self.handler.send_header("Content-Type", media_type)
        for name, value in headers.items():
            self.handler.send_header(name.replace("_", "-"), value)
        self.handler.end_headers()

    def body(self, status: int, media_type: str, content: bytes, **headers: str) -> None:
        self.head(status, media_type, Content_Length=str(len(content)), **headers)
        self.raw(content)

    def start_stream(self) -> None:
        self.head(200, "text/event-stream; charset=utf-8", Transfer_Encoding="chunked")

    def chunk(self, content: bytes) -> None:
        self.raw(f"{len(content):x}\r\n".encode() + content + b"\r\n")

    def event(self, data: Any) -> None:
        text = data if isinstance(data, str) else json.dumps(data)
        self.chunk(f"data: {text}\n\n".encode())

    def close(self) -> None:
        """Drop the connection without the end that HTTP asks for."""
        self.handler.close_connection = True

    def wait_for_disconnect(self) -> None:
        """Wait until the client closes the connection, and note that it did."""
        while not self.server.stopping.is_set():
            readable, _, _ = select.select([self.handler.connection], [], [], 0.02)
            if readable and not self.handler.connection.recv(1):
                self.server.disconnects += 1
                self.server.disconnected.set()
                break
        self.close()


Behaviour = Callable[[Exchange], None]


def delta(**fields: Any) -> dict[str, Any]:
    """A chunk with one delta."""
    return {"model": "tiny", "choices": [{"index": 0, "delta": fields, "finish_reason": None}]}


def stop(reason: str = "stop") -> dict[str, Any]:
    """The chunk that ends an answer."""
    return {"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}


USAGE = {
    "choices": [],
    "usage": {
        "prompt_tokens": 11,
        "completion_tokens": 7,
        "completion_tokens_details": {"reasoning_tokens": 3},
        "prompt_tokens_details": {"cached_tokens": 5},
    },
}


def stream(*events: Any) -> Behaviour:
    """Stream these chunks (a string is a delta's content), the end, the usage and [DONE]."""
    return stream_exactly(*events, stop(), USAGE, "[DONE]")


def stream_exactly(*events: Any) -> Behaviour:
    """Stream these chunks and end properly; a string other than [DONE] is a delta's content."""

    def behave(exchange: Exchange) -> None:
        exchange.start_stream()
        for event in events:
            plain = isinstance(event, str) and event != "[DONE]"
            exchange.event(delta(content=event) if plain else event)
        exchange.chunk(b"")

    return behave


def cut(*events: str) -> Behaviour:
    """Stream these contents, then drop the connection."""

    def behave(exchange: Exchange) -> None:
        exchange.start_stream()
        for event in events:
            exchange.event(delta(content=event))
        exchange.close()

    return behave


def hang(*events: str) -> Behaviour:
    """Stream these contents, then say nothing until the client goes."""

    def behave(exchange: Exchange) -> None:
        if events:
            exchange.start_stream()
        for event in events:
            exchange.event(delta(content=event))
        exchange.wait_for_disconnect()

    return behave


def drop(exchange: Exchange) -> None:
    """Drop the connection without an answer."""
    exchange.close()


def answer(
    status: int, content: Any, media_type: str = "application/json", **headers: str
) -> Behaviour:
    """Answer with this status and body."""

    def behave(exchange: Exchange) -> None:
        text = content if isinstance(content, str) else json.dumps(content)
        exchange.body(status, media_type, text.encode(), **headers)

    return behave


def raw(content: bytes) -> Behaviour:
    """Send these bytes in place of HTTP, and close."""

    def behave(exchange: Exchange) -> None:
        exchange.raw(content)
        exchange.close()

    return behave


class OpenAIServer:
    """Serves ``/v1``. Each POST takes the next behaviour of the script, the last one for ever.

    Attributes:
        requests: what was received, in order.
        connections: TCP connections accepted.
        disconnects: connections that the client closed while the server waited.
        most_at_once: POSTs that were being answered at the same time.
    """

    def __init__(self, *script: Behaviour, models: Iterable[str] = ("tiny",)) -> None:
        self.script = list(script) or [stream("Hello")]
        self.models_answer: Behaviour = answer(200, {"data": [{"id": name} for name in models]})
        self.requests: list[Recorded] = []
        self.connections = 0
        self.disconnects = 0
        self.disconnected = threading.Event()
        self.stopping = threading.Event()
        self.most_at_once = 0
        self._at_once = 0
        self._lock = threading.Lock()
        outer = self

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def get_request(self):
                request = super().get_request()
                outer.connections += 1
                return request

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A client that went away is nothing to print."""

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: Any) -> None: ...

            def do_GET(self) -> None:
                outer.take(self, outer.models_answer)

            def do_POST(self) -> None:
                outer.take(self, None)

        self._server = Server(("127.0.0.1", 0), Handler)
        self.origin = f"http://127.0.0.1:{self._server.server_port}"
        self.url = f"{self.origin}/v1"

    def __enter__(self) -> OpenAIServer:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def posts(self) -> list[Recorded]:
        return [request for request in self.requests if request.method == "POST"]

    def take(self, handler: BaseHTTPRequestHandler, behaviour: Behaviour | None) -> None:
        """Record the request and answer it."""
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        headers = dict(handler.headers.items())
        authorization = headers.pop("Authorization", None)
        recorded = Recorded(handler.command, handler.path, headers, authorization, body)
        with self._lock:
            self.requests.append(recorded)
            if behaviour is None:
                behaviour = self.script.pop(0) if len(self.script) > 1 else self.script[0]
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            behaviour(Exchange(handler, self, recorded))
        finally:
            with self._lock:
                self._at_once -= 1

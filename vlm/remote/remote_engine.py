"""The remote engine: text from any OpenAI-compatible server, one request or a batch."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from ...defaults import VLM
from ..text.thinking import Piece
from .network_thread import Emit, detached, run_in_thread
from .openai_reply import Reply, Usage
from .openai_request import ChatRequest, DataUrls, request_body
from .remote_call import RemoteCall
from .remote_errors import RemoteError
from .remote_retry import RemoteSettings
from .secret import Secret

# With these, the other requests of a batch would fail in the same way.
_HOPELESS = frozenset({"unreachable", "unauthorized", "not found", "model"})

Outcome = Reply | RemoteError


class RemoteEngine:
    """A model on a server.

    Args:
        server: the address, such as ``http://localhost:8000/v1``; without a path, /v1 is meant.
        model: the model's name there.
        key: where the API key lies, if the server wants one.

    Attributes:
        usage: tokens of all replies so far.
        requests: HTTP requests so far, repeated ones included.
        images_encoded: images written as base64 so far.

    Raises:
        RemoteError: the address is none, or holds a user name, a password or a query.
    """

    def __init__(
        self,
        server: str,
        model: str,
        key: Secret | None = None,
        settings: RemoteSettings | None = None,
    ) -> None:
        self.server = server_address(server)
        self.model = model
        self.usage = Usage()
        self.requests = 0
        self.images_encoded = 0
        self._key = key
        self._settings = settings or RemoteSettings()

    def __repr__(self) -> str:
        return f"<RemoteEngine: {self.model} at {self.server}>"

    def generate(
        self,
        request: ChatRequest,
        images: Mapping[str, bytes] | None = None,
        on_piece: Callable[[Piece], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Reply:
        """Send one request and return the reply.

        Args:
            images: PNG or JPEG files by the keys that the messages name.
            on_piece: is given each piece of text as it comes.
            cancelled: asked between pieces and while waiting. It may raise as well: what it raises
                reaches the caller, after the connection is closed.

        Raises:
            RemoteError: no reply; its `kind` and message say why.
            RemoteCancelledError: `cancelled` said so.
            SecretError: the key is not there.
            ValueError: an image is missing or of another type.
        """

        def piece(_: int, piece: Piece) -> None:
            if on_piece is not None:
                on_piece(piece)

        outcome = self.generate_batch([request], images, 1, piece, None, cancelled)[0]
        if isinstance(outcome, RemoteError):
            raise outcome
        return outcome

    def generate_batch(
        self,
        requests: Sequence[ChatRequest],
        images: Mapping[str, bytes] | None = None,
        concurrency: int = VLM["engine.concurrency"],
        on_piece: Callable[[int, Piece], None] | None = None,
        on_outcome: Callable[[int, Outcome], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> list[Outcome]:
        """Send several requests, up to `concurrency` at a time; outcomes in their order.

        One request's error does not stop the others, except where it would meet them all: no
        server, no access, no such model. Those not sent yet then get the same error. `on_outcome`
        is called as soon as each request has its reply or error.

        Raises:
            RemoteCancelledError, SecretError, ValueError: as for `generate`.
        """
        if concurrency < 1:
            raise ValueError(f"concurrency is {concurrency}; give 1 or more")
        urls = DataUrls(images or {}, requests)

        async def main(emit: Emit) -> list[Outcome]:
            async with RemoteCall(self.server, self._key, self._settings) as call:
                try:
                    return await self._all(call, requests, urls, concurrency, emit, report)
                finally:
                    self.requests += call.requests
                    self.images_encoded += urls.encoded

        def report(index: int, what: Piece | Outcome) -> None:
            if isinstance(what, Piece):
                if on_piece is not None:
                    on_piece(index, what)
            elif on_outcome is not None:
                on_outcome(index, what)

        outcomes = run_in_thread(main, cancelled)
        for outcome in outcomes:
            if isinstance(outcome, Reply):
                self.usage += outcome.usage
        return outcomes

    async def _all(
        self,
        call: RemoteCall,
        requests: Sequence[ChatRequest],
        urls: DataUrls,
        concurrency: int,
        emit: Emit,
        report: Callable[[int, Piece | Outcome], None],
    ) -> list[Outcome]:
        outcomes: dict[int, Outcome] = {}
        waiting = iter(enumerate(requests))
        hopeless: RemoteError | None = None

        async def work() -> None:
            nonlocal hopeless
            for index, request in waiting:
                outcome: Outcome
                if hopeless is not None:
                    outcome = hopeless
                else:
                    outcome = await self._one(call, request, urls, _reporter(index, emit, report))
                if isinstance(outcome, RemoteError) and outcome.kind in _HOPELESS:
                    hopeless = outcome
                outcomes[index] = outcome
                emit(lambda index=index, outcome=outcome: report(index, outcome))

        await _gather(work() for _ in range(min(concurrency, len(requests))))
        return [outcomes[index] for index in range(len(requests))]

    async def _one(
        self,
        call: RemoteCall,
        request: ChatRequest,
        urls: DataUrls,
        on_piece: Callable[[Piece], None],
    ) -> Outcome:
        body = request_body(self.model, request, urls)
        try:
            return await call.chat(
                self.model, body, on_piece, request.thinking_opened, request.stop
            )
        except RemoteError as error:
            return detached(error)


def server_address(text: str) -> str:
    """Check a server's address and write it in one form, without a final slash.

    Raises:
        RemoteError: it is no http(s) address, or holds a user name, a password or a query.
    """
    try:
        parts = urlsplit(text.strip())
        host, port = parts.hostname, parts.port
    except ValueError:
        parts, host, port = urlsplit(""), None, None
    if parts.scheme not in ("http", "https") or not host:
        problem = "the server's address is not an http:// or https:// address"
        remedy = "Write it like http://localhost:8000/v1"
        raise RemoteError("remote engine", problem, remedy, "address")
    place = f"[{host}]" if ":" in host else host
    shown = f"{parts.scheme}://{place}" + (f":{port}" if port else "")
    path = parts.path.rstrip("/")
    if parts.username or parts.password or parts.query or parts.fragment:
        problem = "the address holds more than a server and a path"
        remedy = "Leave out user, password and query; name an API key if the server wants one"
        raise RemoteError(shown + path, problem, remedy, "address")
    return shown + (path or "/v1")


def _reporter(
    index: int, emit: Emit, report: Callable[[int, Piece], None]
) -> Callable[[Piece], None]:
    return lambda piece: emit(lambda: report(index, piece))


async def _gather(jobs: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Wait for all jobs; when one raises, stop the others before that is passed on."""
    tasks = [asyncio.ensure_future(job) for job in jobs]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

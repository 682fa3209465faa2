"""One HTTP conversation with a server: requests, retries, and faults put into words.

Redirects are not followed and proxies and netrc files not consulted: a key goes to the server that
it was given for and nowhere else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar

import aiohttp

from ..text.thinking import Piece
from .openai_reply import (
    EventReader,
    ProtocolError,
    Reply,
    ReplyReader,
    ServerReportedError,
    error_text,
    model_ids,
)
from .openai_request import COMPLETION_BOUND, with_completion_bound
from .remote_errors import RemoteError
from .remote_faults import connection_fault, excerpt, status_fault
from .remote_retry import RemoteSettings, parse_retry_after, retry_delay
from .secret import Secret, SecretError, redact

MAX_REPLY_BYTES = 64 * 2**20
_MAX_ERROR_BYTES = 64 * 2**10
_CHUNK_BYTES = 64 * 2**10
_END_SECONDS = 0.5

T = TypeVar("T")


class RemoteCall:
    """A session with one server, for the time of one engine call.

    Attributes:
        requests: requests sent, repeated ones included.
        session: aiohttp's, while this is open.
    """

    def __init__(self, url: str, key: Secret | None, settings: RemoteSettings) -> None:
        self.requests = 0
        self._url = url
        self._key = key
        self._settings = settings
        self.session: aiohttp.ClientSession

    async def __aenter__(self) -> RemoteCall:
        limits = self._settings
        self.session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(
                total=None,
                connect=limits.connect_timeout,
                sock_connect=limits.connect_timeout,
                sock_read=limits.read_timeout,
            ),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.session.close()

    async def chat(
        self,
        model: str,
        body: bytes,
        on_piece: Callable[[Piece], None],
        thinking_opened: bool = False,
        stops: Sequence[str] = (),
    ) -> Reply:
        """Send one request, repeat it where that helps, and return the whole reply.

        Raises:
            RemoteError: no reply; see its `kind`.
            SecretError: the key is no longer there.
        """
        attempts = 0

        async def attempt() -> Reply:
            nonlocal attempts, body
            attempts += 1
            reader = ReplyReader(model, thinking_opened, stops)
            try:
                return await self._chat_once(body, reader, on_piece)
            except RemoteError as error:
                error.retryable = error.retryable and not reader.begun
                other = with_completion_bound(body) if _wants_other_bound(error) else body
                if other != body:
                    body = other
                    return await attempt()
                if error.kind == "model":
                    error = await self._with_models(error)
                raise error

        reply = await self._repeated(attempt)
        return replace(reply, attempts=attempts)

    async def models(self) -> list[str]:
        """The names of the server's models.

        Raises:
            RemoteError, SecretError: as for `chat`.
        """
        return await self._repeated(self._models_once)

    async def _repeated(self, attempt: Callable[[], Awaitable[T]]) -> T:
        number = 0
        while True:
            number += 1
            try:
                return await attempt()
            except RemoteError as error:
                pause = error.retry_after or 0.0
                impatient = pause > self._settings.max_retry_after
                if not error.retryable or impatient or number >= self._settings.tries:
                    raise
            await asyncio.sleep(retry_delay(self._settings, number, pause))

    async def _chat_once(
        self, body: bytes, reader: ReplyReader, on_piece: Callable[[Piece], None]
    ) -> Reply:
        def take(text: str) -> None:
            for piece in reader.push(text):
                on_piece(piece)

        async def receive(response: aiohttp.ClientResponse) -> Reply:
            kind = response.content_type
            if kind == "text/event-stream":
                await self._receive_events(response, reader, take)
            elif kind == "application/json":
                take(await self._text(response, MAX_REPLY_BYTES))
            else:
                text = await self._text(response, _MAX_ERROR_BYTES, cut=True)
                raise ProtocolError(f"an answer of type {self._excerpt(kind)}", text)
            reply, pieces = reader.finish()
            for piece in pieces:
                on_piece(piece)
            return reply

        return await self._exchange("POST", "/chat/completions", body, receive, reader)

    async def _models_once(self) -> list[str]:
        async def receive(response: aiohttp.ClientResponse) -> list[str]:
            return model_ids(await self._text(response, MAX_REPLY_BYTES))

        return await self._exchange("GET", "/models", None, receive)

    async def _receive_events(
        self,
        response: aiohttp.ClientResponse,
        reader: ReplyReader,
        take: Callable[[str], None],
    ) -> None:
        events = EventReader()
        size = 0
        async for received in response.content.iter_any():
            size += len(received)
            if size > MAX_REPLY_BYTES:
                raise ProtocolError(f"an answer of more than {MAX_REPLY_BYTES >> 20} MiB")
            for data in events.push(received):
                if data.strip() == "[DONE]":
                    await _reach_end(response)
                    return
                take(data)
                if reader.stopped:
                    return  # leaving with text to come closes the connection
        if not reader.finished:
            raise aiohttp.ClientPayloadError("the stream ended without a finish reason")

    async def _text(self, response: aiohttp.ClientResponse, limit: int, cut: bool = False) -> str:
        """The body as text: cut at `limit` bytes, or refused if it has more."""
        content = bytearray()
        async for received in response.content.iter_chunked(_CHUNK_BYTES):
            content += received
            if len(content) > limit:
                if not cut:
                    raise ProtocolError(f"an answer of more than {limit >> 20} MiB")
                break
        return content[:limit].decode("utf-8", errors="replace")

    async def _exchange(
        self,
        method: str,
        path: str,
        body: bytes | None,
        receive: Callable[[aiohttp.ClientResponse], Awaitable[T]],
        reader: ReplyReader | None = None,
    ) -> T:
        """Send one request and receive its answer; every fault leaves as a RemoteError."""
        self.requests += 1
        fault: RemoteError
        try:
            async with self.session.request(
                method,
                self._url + path,
                data=body,
                headers=self._headers(),
                allow_redirects=False,
            ) as response:
                if response.status == 200:
                    return await receive(response)
                text = error_text(await self._text(response, _MAX_ERROR_BYTES, cut=True))
                fault = status_fault(
                    self._url,
                    response.status,
                    self._excerpt(text),
                    self._key,
                    self._redacted(response.headers.get("Location", "")),
                    parse_retry_after(response.headers.get("Retry-After")),
                )
        except ServerReportedError as error:
            words = self._excerpt(error.quoted)
            remedy = "See the server's log"
            fault = RemoteError(self._url, f"{error.problem}: {words}", remedy)
        except ProtocolError as error:
            words = self._excerpt(error.quoted)
            problem = f"answered with {error.problem}" + (f": {words}" if words else "")
            remedy = "Check that the address is that of an OpenAI-compatible server, ending in /v1"
            fault = RemoteError(self._url, problem, remedy, "garbage", 200)
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
            begun = reader is not None and reader.begun
            fault = connection_fault(self._url, error, self._settings, begun)
        raise fault

    def _headers(self) -> dict[str, str]:
        headers = {
            "Content-Type": "application/json",
            "Accept": "text/event-stream, application/json",
            "Accept-Encoding": "identity",
            "User-Agent": "ComfyUI-Vivace",
        }
        if self._key is not None:
            value = self._key.reveal()
            if not (value.isascii() and value.isprintable()) or " " in value:
                problem = "it holds characters that no HTTP header may have"
                raise SecretError(str(self._key), problem, "Store the key again, on one line")
            headers["Authorization"] = f"Bearer {value}"
        return headers

    def _excerpt(self, text: str) -> str:
        # First the key, then the cut: half a key would not be recognized.
        return excerpt(self._redacted(text))

    def _redacted(self, text: str) -> str:
        return redact(text, [self._key] if self._key else [])

    async def _with_models(self, error: RemoteError) -> RemoteError:
        """The same error, with the models that there are, if the server tells."""
        try:
            names = await self._models_once()
        except RemoteError:
            return error
        shown = ", ".join(self._excerpt(name) for name in names[:8]) or "none"
        more = f" and {len(names) - 8} more" if len(names) > 8 else ""
        remedy = f"Choose one of its models: {shown}{more}"
        return RemoteError(error.server, error.problem, remedy, "model", error.status)


def _wants_other_bound(error: RemoteError) -> bool:
    return error.status == 400 and COMPLETION_BOUND in error.problem


async def _reach_end(response: aiohttp.ClientResponse) -> None:
    """Read the few bytes behind the last event: only then can the connection be used again."""
    with suppress(aiohttp.ClientError, asyncio.TimeoutError):
        await asyncio.wait_for(response.content.read(), _END_SECONDS)

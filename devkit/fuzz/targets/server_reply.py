"""What a server sends that should speak the OpenAI protocol: whole replies, streams, errors.

The input is JSON: ``{"status", "type", "headers", "body", "cuts", "stops", "opened"}``. The body is
a list: a string stands for itself, anything else for an event with its JSON. Cuts are where the
bytes are divided; the answer does not depend on them.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

import aiohttp

from ....vlm.remote.openai_reply import Reply
from ....vlm.remote.remote_call import RemoteCall
from ....vlm.remote.remote_errors import RemoteError
from ....vlm.remote.remote_retry import RemoteSettings
from ....vlm.text.thinking import Piece
from ..mutations import json_of, value_of
from ..refusals import may_refuse

_URL = "http://server/v1"
_WORDS = (
    "choices", "delta", "message", "content", "reasoning_content", "reasoning", "finish_reason",
    "usage", "prompt_tokens", "completion_tokens", "completion_tokens_details", "reasoning_tokens",
    "model", "error", "detail", "data", "id", "stop", "length", "data: [DONE]\n\n", "data: ",
    "data:{}\n\n", "\n\n", ": comment\n", "event: x\n", "<think>", "</think>", "<thi", "</", "END",
    "E", "text/event-stream", "application/json", "text/html", "Retry-After", "Location", "\udcff",
    "model not found", " ",
)  # fmt: skip


def target(data: bytes) -> None:
    """Receive the answer as it is cut, and in one piece; both come to the same."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return
    if not isinstance(value, dict):
        return
    body = _body(value.get("body"))
    if body is None:
        return
    outcomes = [_outcome(value, chunks) for chunks in (_cut(body, value.get("cuts")), [body])]
    assert outcomes[0] == outcomes[1]


def _outcome(value: dict[str, Any], chunks: list[bytes]) -> Any:
    """Answer and thinking of a reply, or the words of an error."""
    stops = value.get("stops")
    stops = [s for s in stops if isinstance(s, str) and s] if isinstance(stops, list) else []
    call = RemoteCall(_URL, None, RemoteSettings(tries=1))
    call.session = _Session(value, chunks)  # pyright: ignore[reportAttributeAccessIssue]
    pieces: list[Piece] = []
    opened = value.get("opened") is True
    reply: Reply | None = None
    error: RemoteError | None = None
    with may_refuse(RemoteError):
        try:
            reply = _loop().run_until_complete(
                call.chat("asked", b"{}", pieces.append, opened, stops)
            )
        except RemoteError as fault:
            error = fault
            raise
    if reply is None:
        assert error is not None
        str(error).encode()  # no half characters, which no terminal and no log would take
        return str(error)
    assert _joined(pieces) == (reply.text, reply.thinking)
    assert not any(stop in reply.text for stop in stops)
    (reply.text + reply.thinking + reply.finish_reason + reply.model).encode()
    counts = (reply.usage.prompt, reply.usage.completion, reply.usage.reasoning, reply.usage.cached)
    assert all(type(count) is int and 0 <= count < 2**63 for count in counts), counts
    return reply


def _joined(pieces: list[Piece]) -> tuple[str, str]:
    answer = thinking = ""
    for kind, text in pieces:
        if kind == "retract":
            answer, thinking = "", text
        elif kind == "answer":
            answer += text
        else:
            thinking += text
    return answer, thinking


def _body(value: Any) -> bytes | None:
    if not isinstance(value, list):
        return None
    parts = [
        part.encode("utf-8", "surrogateescape" if _escapes(part) else "surrogatepass")
        if isinstance(part, str)
        else b"data: " + json.dumps(part).encode() + b"\n\n"
        for part in value
    ]
    return b"".join(parts)


def _escapes(text: str) -> bool:
    return not any("\ud800" <= c <= "\udfff" and not "\udc80" <= c <= "\udcff" for c in text)


def _cut(body: bytes, places: Any) -> list[bytes]:
    numbers = [place for place in places if type(place) is int] if isinstance(places, list) else []
    cuts = sorted({min(max(number, 0), len(body)) for number in numbers})
    edges = [0, *cuts, len(body)]
    return [body[a:b] for a, b in pairwise(edges) if b > a]


@lru_cache(maxsize=1)
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


class _Session:
    """Stands for aiohttp's session: one answer for every request."""

    def __init__(self, value: dict[str, Any], chunks: list[bytes]) -> None:
        self._value, self._chunks = value, chunks

    def request(self, *_: Any, **__: Any) -> _Response:
        return _Response(self._value, self._chunks)


class _Response:
    """The parts of aiohttp's response and its stream that a call uses."""

    def __init__(self, value: dict[str, Any], chunks: list[bytes]) -> None:
        status, kind, headers = (value.get(name) for name in ("status", "type", "headers"))
        self.status = status if type(status) is int and 100 <= status < 600 else 200
        self.content_type = kind if isinstance(kind, str) else "text/event-stream"
        items = headers.items() if isinstance(headers, dict) else ()
        self.headers = {name: text for name, text in items if isinstance(text, str)}
        self.content = self
        self._chunks = chunks
        self._lost = value.get("lost") is True

    async def __aenter__(self) -> _Response:
        return self

    async def __aexit__(self, *_: object) -> None:
        return

    async def iter_any(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            yield chunk
        if self._lost:
            raise aiohttp.ClientPayloadError("lost")

    async def iter_chunked(self, size: int) -> AsyncIterator[bytes]:
        async for chunk in self.iter_any():
            for start in range(0, len(chunk), size):
                yield chunk[start : start + size]

    async def read(self) -> bytes:
        return b""


def seeds() -> Sequence[bytes]:
    """Streams with and without thinking, a whole reply, and errors."""

    def event(**delta: str) -> dict[str, Any]:
        return {"model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}

    usage = {
        "prompt_tokens": 3, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 1},
        "completion_tokens_details": {"reasoning_tokens": 2},
    }  # fmt: skip
    last = {"choices": [{"delta": {}, "finish_reason": "stop"}], "usage": usage}
    done = "data: [DONE]\n\n"
    words = [event(content=word) for word in ("Hel", "lo, ", "wor", "ld")]
    tagged = [event(content=word) for word in ("<thi", "nk>so it", " is</thi", "nk>  yes END", "x")]
    untold = [event(content=word) for word in ("so it is", "</think>", "yes")]
    split = [event(reasoning_content="so"), event(content=" yes"), event(reasoning="more")]
    whole = {"model": "m", "choices": [{"message": {"content": "hi"}, "finish_reason": "length"}]}
    fault = {"error": {"message": "model not found", "code": 404}}
    values: list[dict[str, Any]] = [
        {"body": [": hello\r\n\r\n", *words, last, done], "cuts": [1, 7, 90, 200]},
        {"body": [*tagged, last, done], "cuts": [20, 300], "stops": ["END", "</answer>"]},
        {"body": [*untold, last, done], "cuts": [], "opened": False},
        {"body": [*split, last, done], "cuts": [150], "opened": True, "lost": False},
        {"type": "application/json", "body": [json.dumps({**whole, "usage": usage})], "cuts": [9]},
        {"status": 404, "type": "application/json", "body": [json.dumps(fault)], "cuts": []},
        {"status": 429, "headers": {"Retry-After": "3"}, "body": ["busy"], "type": "text/html"},
        {"status": 200, "body": [fault], "cuts": [3], "lost": True},
    ]
    return [json.dumps(value).encode() for value in values]


def mutate(data: bytes, chance: random.Random) -> bytes:
    """Change events, also inside of those that are text, and where the bytes are cut."""
    try:
        value = json.loads(data)
        part = chance.randrange(len(value["body"]))
        inner = value["body"][part]
        if isinstance(inner, str) and inner.startswith("{") and chance.random() < 0.7:
            changed = value_of(json.loads(inner), chance, _WORDS)
            value["body"][part] = json.dumps(changed)
        elif chance.random() < 0.2:
            value["cuts"] = [chance.randrange(600) for _ in range(chance.randrange(8))]
        else:
            return json_of(data, chance, _WORDS)
        return json.dumps(value).encode("utf-8", "surrogatepass")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return json_of(data, chance, _WORDS)

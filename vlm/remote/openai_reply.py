"""The reply side of the chat-completions protocol, without any network.

Servers have accents: thinking comes as `reasoning_content`, as `reasoning` or inside the text, and
errors come in several shapes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..text.detokenizer import StopText
from ..text.thinking import Piece, TextSplitter

MAX_EVENT_BYTES = 16 * 2**20


class ProtocolError(ValueError):
    """What came is not the protocol.

    Attributes:
        quoted: what came, whole; the caller removes secrets before it shows a part of it.
    """

    def __init__(self, problem: str, quoted: str = "") -> None:
        self.problem = problem
        self.quoted = quoted
        super().__init__(problem)


class ServerReportedError(ProtocolError):
    """The server sent an error in place of an answer; `quoted` holds its own words."""


@dataclass(frozen=True)
class Usage:
    """Tokens as the server counts them; zero where it does not tell."""

    prompt: int = 0
    completion: int = 0
    reasoning: int = 0
    cached: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt + other.prompt,
            self.completion + other.completion,
            self.reasoning + other.reasoning,
            self.cached + other.cached,
        )


@dataclass(frozen=True)
class Reply:
    """A whole answer.

    Attributes:
        finish_reason: "stop", "length" (cut by `max_tokens`), or the server's own word.
        attempts: requests that were sent for it.
        counted: the tokens were counted; otherwise nobody told, and `usage` is all zeros.
    """

    text: str
    thinking: str
    finish_reason: str
    usage: Usage
    model: str
    attempts: int = 1
    counted: bool = True


class EventReader:
    """Cuts a stream of server-sent events into the data of each, however the bytes arrive."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def push(self, received: bytes) -> Iterator[str]:
        """Give the data of every event that is complete by now, each before the next is looked at.

        Raises:
            ProtocolError: an event without end, or one that is not UTF-8.
        """
        *lines, self._rest = (self._rest + received).split(b"\n")
        for raw in lines:
            line = raw.rstrip(b"\r")
            if line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
            elif not line and self._data:
                try:
                    event = b"\n".join(self._data).decode()
                except UnicodeDecodeError:
                    raise ProtocolError("an event that is not UTF-8") from None
                self._data = []
                yield event
        if len(self._rest) > MAX_EVENT_BYTES:
            raise ProtocolError(f"an event of over {MAX_EVENT_BYTES >> 20} MiB")


class ReplyReader:
    """Puts a reply together from streamed chunks, or takes a whole one.

    Args:
        stops: strings that end the answer, also where the server does not look for them.

    Attributes:
        begun: some text has been returned already.
        finished: the server said that the answer is complete.

    Raises:
        ValueError: an empty stop string.
    """

    def __init__(
        self, model: str, thinking_opened: bool = False, stops: Sequence[str] = ()
    ) -> None:
        self.begun = False
        self.finished = False
        self._model = model
        self._splitter = TextSplitter(thinking_opened)
        self._stops = tuple(stops)
        self._stop = StopText(self._stops)
        self._reasoning: list[str] = []
        self._answer: list[str] = []
        self._text = ""
        self._choices = False
        self._finish_reason = ""
        self._usage: Usage | None = None

    @property
    def stopped(self) -> bool:
        """Whether a stop string came: the answer is complete, whatever follows."""
        return self._stop.stopped

    def push(self, text: str) -> list[Piece]:
        """Take the JSON of one chunk or of a whole reply; return the new pieces of text.

        Raises:
            ProtocolError: not JSON, or not of the protocol's shape.
            ServerReportedError: the server reports an error in place of text.
        """
        chunk = _parse(text)
        if chunk.get("error"):
            raise ServerReportedError("the server reports an error", error_text(text))
        model = chunk.get("model")
        if isinstance(model, str) and model:
            self._model = _whole(model)
        self._usage = _usage(chunk.get("usage")) or self._usage
        choices = chunk.get("choices")
        if not isinstance(choices, list):
            raise ProtocolError("a JSON object without choices", text)
        pieces: list[Piece] = []
        for choice in choices[:1]:
            if not isinstance(choice, dict):
                raise ProtocolError("a choice that is not an object", text)
            self._choices = True
            delta = choice.get("delta") or choice.get("message") or {}
            pieces += self._kept(self._delta(delta, text))
            if reason := choice.get("finish_reason"):
                self._finish_reason = _whole(str(reason))
                self.finished = True
        self.begun = self.begun or bool(pieces)
        return pieces

    def _delta(self, delta: object, text: str) -> list[Piece]:
        if not isinstance(delta, dict):
            raise ProtocolError("a message that is not an object", text)
        reasoning = delta.get("reasoning_content") or delta.get("reasoning") or ""
        content = delta.get("content") or ""
        if not isinstance(reasoning, str) or not isinstance(content, str):
            raise ProtocolError("text that is not a string", text)
        reasoning, content = _whole(reasoning), _whole(content)
        pieces: list[Piece] = []
        if reasoning:
            self._reasoning.append(reasoning)
            pieces.append(Piece("thinking", reasoning))
        # A server that splits the thinking off itself leaves no tags that would mean anything.
        if self._reasoning:
            if content := content if self._answer else content.lstrip():
                self._answer.append(content)
                pieces.append(Piece("answer", content))
        else:
            pieces += self._splitter.push(content)
        return pieces

    def _kept(self, pieces: list[Piece]) -> list[Piece]:
        """The pieces up to a stop string."""
        kept: list[Piece] = []
        for piece in pieces:
            if piece.kind == "answer":
                piece = Piece("answer", self._stop.push(piece.text))
                self._text += piece.text
            elif piece.kind == "retract":
                self._stop = StopText(self._stops)
                self._text = ""
            if piece.text or piece.kind == "retract":
                kept.append(piece)
        return kept

    def finish(self) -> tuple[Reply, list[Piece]]:
        """Return the reply, and the pieces that were held back.

        Raises:
            ProtocolError: there was no choice at all.
        """
        if not self._choices:
            raise ProtocolError("an answer without any choice")
        pieces = self._kept(self._splitter.finish())
        if rest := self._stop.finish():
            self._text += rest
            pieces.append(Piece("answer", rest))
        reply = Reply(
            self._text,
            self._splitter.thinking + "".join(self._reasoning),
            "stop" if self.stopped else self._finish_reason,
            self._usage or Usage(),
            self._model,
            counted=self._usage is not None,
        )
        return reply, pieces


def _parse(text: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        raise ProtocolError("not JSON", text) from None
    if not isinstance(content, dict):
        raise ProtocolError("not a JSON object", text)
    return content


def _usage(value: object) -> Usage | None:
    if not isinstance(value, dict):
        return None
    return Usage(
        _count(value.get("prompt_tokens")),
        _count(value.get("completion_tokens")),
        _count(_inner(value, "completion_tokens_details", "reasoning_tokens")),
        _count(_inner(value, "prompt_tokens_details", "cached_tokens")),
    )


def _inner(value: dict[str, Any], group: str, name: str) -> object:
    details = value.get(group)
    return details.get(name) if isinstance(details, dict) else None


def _count(value: object) -> int:
    """A number of tokens; anything else counts as not told."""
    return value if type(value) is int and 0 <= value < 2**63 else 0


def _whole(text: str) -> str:
    """The text with a question mark for each half character, which JSON allows and UTF-8 does not.

    It would otherwise reach files and terminals, which cannot take it.
    """
    return text.encode("utf-8", "replace").decode("utf-8")


def model_ids(text: str) -> list[str]:
    """The models that ``GET /models`` lists, in the server's order.

    Raises:
        ProtocolError: not such a list.
    """
    entries = _parse(text).get("data")
    if not isinstance(entries, list):
        raise ProtocolError("no list of models", text)
    named = [entry for entry in entries if isinstance(entry, dict) and entry.get("id")]
    return [_whole(str(entry["id"])) for entry in named]


def error_text(text: str) -> str:
    """The server's own words in an error body, whatever its shape."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return text
    for name in ("error", "message", "detail"):
        if isinstance(content, dict) and content.get(name):
            content = content[name]
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)

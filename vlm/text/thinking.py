"""Telling a model's thinking from its answer: by token ids for local models, by text for servers.

A thinking model writes ``<think>``, its reasoning, ``</think>`` and the answer. Some chat templates
write the opening tag into the prompt, so that the output has only the closing one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

OPEN = "<think>"
CLOSE = "</think>"

TokenKind = Literal["thinking", "answer", "tag"]


def prompt_opens_thinking(prompt: Sequence[int], open_id: int, close_id: int) -> bool:
    """Whether the last tag in the prompt's token ids is an opening one."""
    for token in reversed(prompt):
        if token in (open_id, close_id):
            return token == open_id
    return False


class TokenSplitter:
    """Splits generated token ids one by one. The tags themselves belong to neither part.

    `opened` says that the prompt ends inside the thinking (see `prompt_opens_thinking`).

    Attributes:
        thinking, answer: the token ids so far.
        inside: whether the next token would be thinking.
    """

    def __init__(self, open_id: int, close_id: int, opened: bool = False) -> None:
        self._open_id = open_id
        self._close_id = close_id
        self.inside = opened
        self.thinking: list[int] = []
        self.answer: list[int] = []

    def push(self, token: int) -> TokenKind:
        """Take the next token and say what it is."""
        if token in (self._open_id, self._close_id):
            self.inside = token == self._open_id
            return "tag"
        (self.thinking if self.inside else self.answer).append(token)
        return "thinking" if self.inside else "answer"


class ThinkingBudget:
    """Bounds the thinking of one sequence: after `limit` tokens the closing ids are forced.

    Before each step ask `forced`; after it give the token that was taken to `push`.

    Args:
        limit: thinking tokens allowed, 0 or more; tags do not count.
        closing: the ids to force. The closing tag must be among them; a sentence before it that
            ends the thought makes better answers than the bare tag.
        opened: the prompt ends inside the thinking.

    Raises:
        ValueError: a negative limit, or no closing tag among `closing`.
    """

    def __init__(
        self, limit: int, open_id: int, close_id: int, closing: Sequence[int], opened: bool = False
    ) -> None:
        if limit < 0:
            raise ValueError(f"the thinking budget is {limit} tokens; give 0 or more")
        if close_id not in closing:
            raise ValueError(f"the closing ids {list(closing)} lack the closing tag {close_id}")
        self._limit = limit
        self._closing = tuple(closing)
        self._splitter = TokenSplitter(open_id, close_id, opened)
        self._at: int | None = None

    @property
    def used(self) -> int:
        """Thinking tokens so far; the forced ones count too."""
        return len(self._splitter.thinking)

    @property
    def exhausted(self) -> bool:
        """Whether the closing ids were or are being forced."""
        return self._at is not None or (self._splitter.inside and self.used >= self._limit)

    def forced(self) -> int | None:
        """The token that must come next, or None where the model is free."""
        if self._at is not None:
            return self._closing[self._at] if self._at < len(self._closing) else None
        return self._closing[0] if self.exhausted else None

    def push(self, token: int) -> TokenKind:
        """Take the token of this step and say what it is.

        Raises:
            ValueError: another token than the forced one.
        """
        expected = self.forced()
        if expected is not None:
            if token != expected:
                raise ValueError(f"token {token} was taken where {expected} is forced")
            self._at = (self._at or 0) + 1
        return self._splitter.push(token)


class Piece(NamedTuple):
    """A piece of text for one of the two parts.

    A "retract" piece says that the answer so far was thinking: the server's template had opened
    it unseen, and its end has just come. Its text is the thinking.
    """

    kind: Literal["thinking", "answer", "retract"]
    text: str


class TextSplitter:
    """Splits streamed text. Tags may be cut anywhere between two pieces.

    An opening tag counts only before the answer has begun, a closing one only inside the thinking
    or, once, as the first tag of all: an answer about tags keeps them. White space around the
    thinking is dropped. `opened` says that the text begins inside the thinking.

    Attributes:
        thinking, answer: the text so far, without what is held back.
    """

    def __init__(self, opened: bool = False) -> None:
        self.thinking = ""
        self.answer = ""
        self._inside = opened
        self._tag_seen = opened
        self._held = ""

    def push(self, text: str) -> list[Piece]:
        """Take the next piece of text, return what is certain by now."""
        self._held += text
        pieces: list[Piece] = []
        while self._held and self._step(pieces):
            pass
        return pieces

    def finish(self) -> list[Piece]:
        """Return what was held back in case a tag followed."""
        pieces: list[Piece] = []
        rest, self._held = self._held, ""
        if self._inside:
            self._emit(pieces, self._trim_start(rest).rstrip())
        elif self.answer or not self._tag_seen:
            self._emit(pieces, rest)
        else:
            self._emit(pieces, rest.lstrip())
        return pieces

    def _step(self, pieces: list[Piece]) -> bool:
        """Use up some of the held text; False if more is needed."""
        if self._inside:
            return self._step_inside(pieces)
        if not self.answer:
            start = self._held.lstrip()
            if start.startswith(OPEN):
                self._held = start[len(OPEN) :]
                self._inside = self._tag_seen = True
                return True
            if OPEN.startswith(start):
                return False
            if self._tag_seen:
                self._held = start
        before, closed, after = self._held.partition(CLOSE)
        if closed and not self._tag_seen:
            self._emit(pieces, before)
            self.thinking, self.answer = self.answer.strip(), ""
            pieces.append(Piece("retract", self.thinking))
            self._tag_seen = True
            self._held = after
            return True
        keep = 0 if self._tag_seen else _tail(self._held, CLOSE)
        self._emit(pieces, self._held[: len(self._held) - keep])
        self._held = self._held[len(self._held) - keep :]
        return False

    def _step_inside(self, pieces: list[Piece]) -> bool:
        before, closed, after = self._trim_start(self._held).partition(CLOSE)
        if closed:
            self._emit(pieces, before.rstrip())
            self._inside = False
            self._held = after
            return True
        # White space at the end is held too: the closing tag may follow it.
        sure = before[: len(before) - _tail(before, CLOSE)].rstrip()
        self._emit(pieces, sure)
        self._held = before[len(sure) :]
        return False

    def _trim_start(self, text: str) -> str:
        return text if self.thinking else text.lstrip()

    def _emit(self, pieces: list[Piece], text: str) -> None:
        if not text:
            return
        if self._inside:
            self.thinking += text
            pieces.append(Piece("thinking", text))
        else:
            self.answer += text
            pieces.append(Piece("answer", text))


def _tail(text: str, tag: str) -> int:
    """How many characters at the end of `text` may be the beginning of `tag`."""
    for length in range(min(len(text), len(tag) - 1), 0, -1):
        if tag.startswith(text[-length:]):
            return length
    return 0

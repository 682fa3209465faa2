"""Token ids to text, piece by piece."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_INCOMPLETE = "\ufffd"  # what decoders make of half a character


class Detokenizer:
    """Decodes tokens as they come; a character is held back until all of its bytes are there.

    Args:
        tokenizer: of transformers. Special tokens make no text.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        # Some tokenizers write a token in another way at the beginning of a text, so what was
        # decoded last is decoded again together with what is new.
        self._known = 0
        self._done = 0

    def push(self, token: int) -> str:
        """Take a token and return the text that is complete by now."""
        self._ids.append(token)
        whole = self._decode(self._ids[self._known :])
        if whole.endswith(_INCOMPLETE):
            return ""
        before = self._decode(self._ids[self._known : self._done])
        self._known, self._done = self._done, len(self._ids)
        return whole[len(before) :]

    def finish(self) -> str:
        """Return what was held back, without half a character at the end."""
        whole = self._decode(self._ids[self._known :])
        before = self._decode(self._ids[self._known : self._done])
        self._known = self._done = len(self._ids)
        return whole[len(before) :].rstrip(_INCOMPLETE)

    def _decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )


class StopText:
    """Ends a text before the first of some stop strings; text that may begin one is held back.

    Attributes:
        stopped: a stop string came.

    Raises:
        ValueError: an empty stop string.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        if "" in stops:
            raise ValueError("a stop string is empty; leave it out")
        self.stopped = False
        self._stops = tuple(stops)
        self._held = ""

    def push(self, text: str) -> str:
        """Take a piece and return what is certain to belong to the text."""
        if self.stopped:
            return ""
        self._held += text
        places = [place for stop in self._stops if (place := self._held.find(stop)) >= 0]
        if places:
            self.stopped = True
            kept, self._held = self._held[: min(places)], ""
            return kept
        keep = max((_overlap(self._held, stop) for stop in self._stops), default=0)
        sure, self._held = (
            self._held[: len(self._held) - keep],
            self._held[len(self._held) - keep :],
        )
        return sure

    def finish(self) -> str:
        """Return what was held back: no stop string came of it."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of `text` may be the beginning of `stop`."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0

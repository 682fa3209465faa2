"""One growing answer: tokens in, thinking and answer out, and when it ends."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ...defaults import VLM
from ..text.detokenizer import Detokenizer, StopText
from ..text.thinking import CLOSE, OPEN, Piece, ThinkingBudget, TokenSplitter, prompt_opens_thinking
from .sampling import Sampling

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class GenerationSettings:
    """How an answer is made.

    Attributes:
        max_new_tokens: bound on the answer, and on thinking too unless that has its own.
        thinking_budget: bound on thinking; then the model is made to answer. None for none.
        stop: strings that end the answer, and do not belong to it.

    Raises:
        ValueError: a bound that is too small, or an empty stop string.
    """

    max_new_tokens: int = VLM["max_tokens"]
    thinking_budget: int | None = None
    stop: tuple[str, ...] = ()
    sampling: Sampling = field(default_factory=Sampling)

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens is {self.max_new_tokens}; give 1 or more")
        if self.thinking_budget is not None and self.thinking_budget < 0:
            raise ValueError(
                f"the thinking budget is {self.thinking_budget} tokens; give 0 or more"
            )
        StopText(self.stop)


class _Part:
    """The thinking, or the answer, as text."""

    def __init__(self, tokenizer: Any, stops: Sequence[str] = (), trim: bool = False) -> None:
        self.text = ""
        self.trim = trim  # drop white space at the beginning
        self._words = Detokenizer(tokenizer)
        self._stop = StopText(stops)

    @property
    def stopped(self) -> bool:
        return self._stop.stopped

    def push(self, token: int) -> str:
        return self._add(self._stop.push(self._words.push(token)))

    def finish(self) -> str:
        rest = self._add(self._stop.push(self._words.finish()))
        return rest + self._add(self._stop.finish())

    def _add(self, text: str) -> str:
        if self.trim and not self.text:
            text = text.lstrip()
        self.text += text
        return text


class AnswerReader:
    """Reads the tokens of one sequence.

    Args:
        tokenizer: of transformers.
        prompt: token ids.
        eos_ids: tokens that end the answer.

    Attributes:
        tokens: all token ids so far, without the one that ended the answer.
        thinking_tokens: how many of them are thinking, without the tags.
        finish_reason: None while it goes on.
        most_tokens: bound on the number of tokens.
    """

    def __init__(
        self,
        tokenizer: Any,
        prompt: Sequence[int],
        settings: GenerationSettings,
        eos_ids: Collection[int],
    ) -> None:
        self.tokens: list[int] = []
        self.thinking_tokens = 0
        self.finish_reason: FinishReason | None = None
        self._eos_ids = frozenset(eos_ids)
        self._counted = 0
        self._answer = _Part(tokenizer, settings.stop)
        self._thinking = _Part(tokenizer, trim=True)
        added = tokenizer.get_added_vocab()
        open_id, close_id = added.get(OPEN), added.get(CLOSE)
        self._splitter: TokenSplitter | ThinkingBudget | None = None
        self._limit = self.most_tokens = settings.max_new_tokens
        self._has_budget = False
        if open_id is None or close_id is None:
            return
        opened = prompt_opens_thinking(prompt, open_id, close_id)
        self._answer.trim = opened
        if settings.thinking_budget is None:
            self._splitter = TokenSplitter(open_id, close_id, opened)
            return
        closing = tokenizer.encode("\n", add_special_tokens=False)
        closing = [*closing, close_id, *tokenizer.encode("\n\n", add_special_tokens=False)]
        self._splitter = ThinkingBudget(
            settings.thinking_budget, open_id, close_id, closing, opened
        )
        self._has_budget = True
        self.most_tokens += settings.thinking_budget + len(closing)

    @property
    def text(self) -> str:
        return self._answer.text

    @property
    def thinking(self) -> str:
        return self._thinking.text.rstrip()

    def forced(self) -> int | None:
        """The token that must come next, or None where the model is free."""
        return self._splitter.forced() if isinstance(self._splitter, ThinkingBudget) else None

    def push(self, token: int) -> list[Piece]:
        """Take the next token; return the text that came of it.

        Raises:
            ValueError: another token than the forced one.
        """
        if token in self._eos_ids:
            return self._finish("stop")
        forced = self.forced() is not None
        kind = self._splitter.push(token) if self._splitter is not None else "answer"
        self.tokens.append(token)
        if not self._has_budget or (kind == "answer" and not forced):
            self._counted += 1
        pieces: list[Piece] = []
        if kind == "thinking":
            self._answer.trim = True
            self.thinking_tokens += 1
            pieces.append(Piece("thinking", self._thinking.push(token)))
        elif kind == "answer":
            pieces.append(Piece("answer", self._answer.push(token)))
        if self._answer.stopped:
            pieces += self._finish("stop")
        elif self._counted >= self._limit or len(self.tokens) >= self.most_tokens:
            pieces += self._finish("length")
        return [piece for piece in pieces if piece.text]

    def _finish(self, reason: FinishReason) -> list[Piece]:
        self.finish_reason = reason
        pieces = [
            Piece("thinking", self._thinking.finish()),
            Piece("answer", self._answer.finish()),
        ]
        if self._answer.stopped:  # the last characters completed a stop string
            self.finish_reason = "stop"
        return [piece for piece in pieces if piece.text]

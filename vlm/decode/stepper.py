"""Continuing sequences token by token: by a compiled graph where that pays, or as they are."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .decode_graphs import DECODE_GRAPHS, DecodeGraph, DecodeGraphs, DecodeKey, decode_key
from .language_model import LanguageModel
from .prefill import Prefilled, step
from .static_cache import refusal

# Compiling takes as long as some thousand steps gain, and answers are mostly shorter than allowed.
WORTH_TOKENS = 2048


class Stepper:
    """Continues sequences that have been read.

    Args:
        allowed: tokens that the longest answer may get.
        mode: ``"on"``, ``"off"``, or ``"auto"``: on CUDA, where the graph is there already, or
            answers that could use it were allowed `WORTH_TOKENS` by now, this one included.
        graphs: where compiled graphs are kept.

    Attributes:
        warmup_ms: what compiling took, of the time of the first step, also where it failed.
        eager_reason: why the last step was not compiled; None if it was.
    """

    def __init__(
        self,
        language: LanguageModel,
        state: Prefilled,
        allowed: int,
        mode: str = "auto",
        graphs: DecodeGraphs = DECODE_GRAPHS,
    ) -> None:
        self.warmup_ms = 0.0
        self.eager_reason: str | None = "the first token was the last"
        self._language = language
        self._state = state
        self._allowed = allowed
        self._mode = mode
        self._graphs = graphs
        self._graph: DecodeGraph | None = None
        self._taken = 0

    def step(self, tokens: Sequence[int]) -> None:
        """Read the next token of each sequence; the state then has the logits after it."""
        if self._taken == 0:
            self._open(tokens)
        if self._graph is None or not self._run(self._graph, tokens):
            following = torch.tensor(tokens, device=self._language.device)
            step(self._language, self._state, following, self._taken)
        self._taken += 1

    def close(self) -> None:
        """Give keys and values back."""
        if self._graph is not None:
            self._graphs.give_back(self._graph)
            self._graph = None
        self._state.release()

    def _open(self, tokens: Sequence[int]) -> None:
        """Borrow a graph if there shall be one, and move what was read to its static cache."""
        key = decode_key(self._language, self._state, self._allowed)
        self._graphs.ask(self._language, key, self._allowed)
        self.eager_reason = unwanted(self._mode, key, self._graphs) or refusal(
            self._language, self._state.cache
        )
        if self.eager_reason is not None:
            return
        loan = self._graphs.borrow(self._language, self._state, key, tokens)
        self._graph, self.eager_reason, self.warmup_ms = loan
        if self._graph is not None:
            self._state.release()

    def _run(self, graph: DecodeGraph, tokens: Sequence[int]) -> bool:
        """Run the graph; if it fails, go on from where it was without it."""
        state = self._state
        try:
            state.logits = self._graphs.run(graph, self._language, tokens, self._taken)
        except Exception as error:  # noqa: BLE001  (what was compiled fails in any way it likes)
            self.eager_reason = self._graphs.fail(graph.key, error)
        else:
            return True
        state.cache = graph.static.restore(self._language, self._taken)
        if state.mask is not None:
            more = state.mask.new_ones(len(state.mask), self._taken)
            state.mask = torch.cat((state.mask, more), dim=1)
        self._graphs.give_back(graph)
        self._graph = None
        return False


def unwanted(mode: str, key: DecodeKey, graphs: DecodeGraphs) -> str | None:
    """Say why a graph shall not be used, or return None."""
    if mode == "off":
        return "switched off"
    if mode == "on" or key in graphs.graphs:
        return None
    if key.device.type != "cuda":
        return f"not worth it on the device {key.device.type}"
    if graphs.asked[key] < WORTH_TOKENS:
        return f"fewer than {WORTH_TOKENS} tokens were asked for"
    return None

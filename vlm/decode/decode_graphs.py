"""Compiled steps of decoding with their static caches: few, bounded, and gone with the model."""

from __future__ import annotations

import logging
import threading
import weakref
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any, NamedTuple

import torch

from ..loading.graph_compiler import (
    Backend,
    call_graph,
    compile_whole,
    failure_cause,
    failure_reason,
    warm_up,
)
from .language_model import LanguageModel
from .prefill import Prefilled
from .static_cache import StaticCache, bucket, decode_step, static_nbytes

logger = logging.getLogger(__name__)

DEFAULT_LIMIT = 4
DEFAULT_BYTES = 2**30


class DecodeKey(NamedTuple):
    """What a graph is compiled for: a loaded model, sequences, and places for their tokens."""

    model: int
    batch: int
    length: int
    dtype: torch.dtype
    device: torch.device


def decode_key(language: LanguageModel, state: Prefilled, allowed: int) -> DecodeKey:
    """The key for what was read and up to `allowed` tokens more."""
    length = bucket(int(state.cache.get_seq_length()) + allowed)
    return DecodeKey(
        id(language.model), len(state.lengths), length, language.dtype, language.device
    )


@dataclass(eq=False)
class DecodeGraph:
    """A compiled step and its buffers, for one answer or batch at a time.

    Attributes:
        nbytes: of the buffers.
        runs: how often it ran, without warming up.
    """

    key: DecodeKey
    function: Callable[..., torch.Tensor]
    static: StaticCache
    nbytes: int
    runs: int = 0
    busy: bool = False


class Loan(NamedTuple):
    """A graph, or the reason why there is none.

    Attributes:
        warmup_ms: what compiling took, also where it failed.
    """

    graph: DecodeGraph | None
    reason: str | None = None
    warmup_ms: float = 0.0


class DecodeGraphs:
    """At most `limit` graphs; the least recently used go first, those of a dropped model with it.

    Where compiling fails, the reason is kept in `failures` and that model is not tried again.

    Args:
        limit: number of graphs.
        nbytes: bound on the memory of their buffers.
        backend: of `torch.compile`.

    Attributes:
        asked: tokens that answers were allowed so far, by the graph they could have used.
    """

    def __init__(
        self,
        limit: int = DEFAULT_LIMIT,
        nbytes: int = DEFAULT_BYTES,
        backend: Backend = "inductor",
    ) -> None:
        self.graphs: OrderedDict[DecodeKey, DecodeGraph] = OrderedDict()
        self.failures: dict[int, str] = {}
        self.asked: Counter[DecodeKey] = Counter()
        self._models: dict[int, weakref.ref[torch.nn.Module]] = {}
        self._limit = limit
        self._nbytes = nbytes
        self._backend = backend
        self._lock = threading.RLock()  # models are dropped at any time, also inside of it

    def ask(self, language: LanguageModel, key: DecodeKey, allowed: int) -> None:
        """Take note of an answer of up to `allowed` tokens."""
        with self._lock:
            self._watch(language)
            self.asked[key] += allowed

    def borrow(
        self, language: LanguageModel, state: Prefilled, key: DecodeKey, tokens: Sequence[int]
    ) -> Loan:
        """Lend the graph, filled with what was read and compiled if need be.

        Args:
            tokens: of the first step.
        """
        nbytes = static_nbytes(state.cache, key.length)
        with self._lock:
            self._watch(language)
            reason = self._refusal(key, nbytes)
            if reason is not None:
                return Loan(None, reason)
            started = perf_counter()
            graph = self.graphs.get(key)
            compiles = graph is None
            try:
                with _plain_mode():
                    if graph is None:
                        graph = self._compile(language, state, key, tokens, nbytes)
                    warmup_ms = (perf_counter() - started) * 1000 if compiles else 0.0
                    graph.static.fill(state)
            except Exception as error:  # noqa: BLE001  (compilers fail in any way they like)
                return Loan(None, self.fail(key, error), (perf_counter() - started) * 1000)
            graph.busy = True
            self.graphs.move_to_end(key)
            return Loan(graph, None, warmup_ms)

    def run(
        self, graph: DecodeGraph, language: LanguageModel, tokens: Sequence[int], taken: int
    ) -> torch.Tensor:
        """Run a borrowed graph; arguments as in `StaticCache.place`.

        Returns:
            `[batch, vocabulary]` float32.

        Raises:
            Exception: whatever the graph raises; then tell `fail`.
        """
        with _plain_mode():
            graph.static.place(tokens, taken)
            logits = call_graph(
                graph.function,
                graph.key.device,
                language,
                graph.static.cache,
                graph.static.inputs,
            )
        graph.runs += 1
        return logits

    def give_back(self, graph: DecodeGraph) -> None:
        """Let others borrow the graph."""
        with self._lock:
            graph.busy = False

    def fail(self, key: DecodeKey, error: Exception) -> str:
        """Forget the model's graphs, do not try it again, and return the reason."""
        reason = failure_reason(error)
        logger.warning("Text is decoded without torch.compile: %s", reason)
        with self._lock:
            self._drop(key.model)
            # There may be enough memory the next time.
            if not isinstance(failure_cause(error), torch.OutOfMemoryError):
                self.failures[key.model] = reason
        return reason

    def clear(self, model: torch.nn.Module | None = None) -> None:
        """Forget graphs and failures of a model, or all of them, such as when it is moved."""
        self._forget(None if model is None else id(model))

    def _refusal(self, key: DecodeKey, nbytes: int) -> str | None:
        if key.model in self.failures:
            return self.failures[key.model]
        if key in self.graphs and self.graphs[key].busy:
            return "another answer uses the static cache"
        if nbytes > self._nbytes:
            return f"a static cache of {key.length} tokens would take {nbytes >> 20} MiB"
        return None

    def _compile(
        self,
        language: LanguageModel,
        state: Prefilled,
        key: DecodeKey,
        tokens: Sequence[int],
        nbytes: int,
    ) -> DecodeGraph:
        while self.graphs and (
            len(self.graphs) >= self._limit
            or sum(other.nbytes for other in self.graphs.values()) + nbytes > self._nbytes
        ):
            self.graphs.popitem(last=False)
        static = StaticCache(len(state.cache.layers), key.batch, key.length, key.device)
        function = compile_whole(decode_step, key.device, self._backend)
        graph = DecodeGraph(key, function, static, nbytes)
        static.fill(state)
        static.place(tokens, 0)
        warm_up(function, key.device, language, static.cache, static.inputs)
        self.graphs[key] = graph
        return graph

    def _watch(self, language: LanguageModel) -> None:
        model = id(language.model)
        if model not in self._models:
            self._models[model] = weakref.ref(language.model, _forgetter(weakref.ref(self), model))

    def _forget(self, model: int | None) -> None:
        with self._lock:
            for known in [known for known in self._models if model in (None, known)]:
                self._drop(known)
                self.failures.pop(known, None)
                del self._models[known]
                for key in [key for key in self.asked if key.model == known]:
                    del self.asked[key]

    def _drop(self, model: int) -> None:
        for key in [key for key in self.graphs if key.model == model]:
            del self.graphs[key]


DECODE_GRAPHS = DecodeGraphs()


@contextmanager
def _plain_mode() -> Iterator[None]:
    """Leave inference mode, in which one compiles other graphs, and buffers only serve inside."""
    with torch.inference_mode(False), torch.no_grad():
        yield


def _forgetter(graphs: weakref.ref[DecodeGraphs], model: int) -> Any:
    """What to call when a model is dropped; it keeps neither of the two alive."""

    def forget(_: object) -> None:
        kept = graphs()
        if kept is not None:
            kept._forget(model)

    return forget

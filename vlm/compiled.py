"""Compiled encoder graphs: one per grid, few, and never a reason for a run to fail."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from time import perf_counter
from types import FunctionType
from typing import Any, NamedTuple

import torch

from .encoder_graph import TowerGeometry, encode_frames
from .grid_tables import GridTables

logger = logging.getLogger(__name__)

DEFAULT_LIMIT = 8
# On CUDA the first run compiles, the second records a CUDA graph, and only the third is fast.
_CUDA_WARMUP_RUNS = 2


class GraphKey(NamedTuple):
    """What a graph is compiled for: a kind of tower, and `frames` frames of one grid."""

    tower: Hashable
    frames: int
    rows: int
    columns: int


@dataclass
class Graph:
    """A compiled graph. `warmup_seconds` is what compiling took, `runs` how often it ran since."""

    function: Callable[..., torch.Tensor]
    warmup_seconds: float = 0.0
    runs: int = 0


class CompiledGraphs:
    """At most `limit` compiled graphs, kept when a model is unloaded, for the next of its kind.

    A graph takes the tower as an argument and holds no weights. Where compiling fails, the reason
    is kept in `failures` and that kind of tower is not tried again.

    Args:
        limit: number of graphs. When all are taken, those of another kind of tower make room, and
            graphs of the same kind do not: compiling in turns costs more than it saves.
        backend: of `torch.compile`.
    """

    def __init__(
        self, limit: int = DEFAULT_LIMIT, backend: str | Callable[..., Any] = "inductor"
    ) -> None:
        self.graphs: dict[GraphKey, Graph] = {}
        self.failures: dict[Hashable, str] = {}
        self._limit = limit
        self._backend = backend
        self._lock = threading.Lock()

    def __contains__(self, key: GraphKey) -> bool:
        return key in self.graphs

    def refusal(self, key: GraphKey) -> str | None:
        """Say why there is and will be no graph for `key`, or return None."""
        if key.tower in self.failures:
            return self.failures[key.tower]
        same = sum(1 for other in self.graphs if other.tower == key.tower)
        if key not in self.graphs and same >= self._limit:
            return f"{self._limit} image sizes are compiled already"
        return None

    def run(
        self,
        key: GraphKey,
        tower: torch.nn.Module,
        geometry: TowerGeometry,
        pixel_values: torch.Tensor,
        tables: GridTables,
    ) -> torch.Tensor | None:
        """Run the graph, compiled first if need be; None if `refusal` now names a reason.

        Arguments and result are those of `encode_frames`.
        """
        with self._lock:
            if self.refusal(key) is not None:
                return None
            try:
                graph = self.graphs.get(key) or self._compile(
                    key, tower, geometry, pixel_values, tables
                )
                graph.runs += 1
                return _call(graph.function, tower, geometry, pixel_values, tables)
            except Exception as error:  # noqa: BLE001  (compilers fail in any way they like)
                self._fail(key, error)
                return None

    def clear(self) -> None:
        """Forget all graphs and failures."""
        with self._lock:
            self.graphs.clear()
            self.failures.clear()

    def _compile(
        self,
        key: GraphKey,
        tower: torch.nn.Module,
        geometry: TowerGeometry,
        pixel_values: torch.Tensor,
        tables: GridTables,
    ) -> Graph:
        if len(self.graphs) >= self._limit:
            del self.graphs[next(other for other in self.graphs if other.tower != key.tower)]
        on_cuda = pixel_values.device.type == "cuda"
        started = perf_counter()
        graph = Graph(
            torch.compile(
                _fresh_function(),
                fullgraph=True,
                dynamic=False,
                backend=self._backend,
                mode="reduce-overhead" if on_cuda and self._backend == "inductor" else None,
            )
        )
        for _ in range(_CUDA_WARMUP_RUNS if on_cuda else 1):
            _call(graph.function, tower, geometry, pixel_values, tables)
        if on_cuda:
            torch.cuda.synchronize(pixel_values.device)
        graph.warmup_seconds = perf_counter() - started
        self.graphs[key] = graph
        return graph

    def _fail(self, key: GraphKey, error: Exception) -> None:
        cause = getattr(error, "inner_exception", error)  # what a backend of torch.compile raised
        reason = str(cause).strip().partition("\n")[0] or "no reason given"
        self.failures[key.tower] = f"compiling failed ({type(cause).__name__}: {reason})"
        for other in [other for other in self.graphs if other.tower == key.tower]:
            del self.graphs[other]
        logger.warning("The vision encoder runs without torch.compile: %s", reason)


GRAPHS = CompiledGraphs()


def _call(
    function: Callable[..., torch.Tensor],
    tower: torch.nn.Module,
    geometry: TowerGeometry,
    pixel_values: torch.Tensor,
    tables: GridTables,
) -> torch.Tensor:
    if pixel_values.device.type != "cuda":
        return function(tower, geometry, pixel_values, tables)
    torch.compiler.cudagraph_mark_step_begin()
    # The next replay of a CUDA graph overwrites what this one returns.
    return function(tower, geometry, pixel_values, tables).clone()


def _fresh_function() -> Callable[..., torch.Tensor]:
    """Copy `encode_frames` with a code object of its own.

    Compiled variants are kept per code object: up to a limit, found by trying them in turn, and for
    as long as it lives. With its own one, each graph is found at once and can be dropped.
    """
    code = encode_frames.__code__.replace()
    return FunctionType(code, encode_frames.__globals__, encode_frames.__name__)

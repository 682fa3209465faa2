"""Compiled encoder graphs: one per grid, few, and never a reason for a run to fail."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from time import perf_counter
from typing import NamedTuple

import torch

from ..loading.graph_compiler import Backend, call_graph, compile_whole, failure_reason, warm_up
from .encoder_graph import TowerGeometry, encode_frames
from .grid_tables import GridTables

logger = logging.getLogger(__name__)

DEFAULT_LIMIT = 8


class GraphKey(NamedTuple):
    """What a graph is compiled for: a kind of tower, and `frames` frames of one grid."""

    tower: Hashable
    frames: int
    rows: int
    columns: int


@dataclass
class CompiledGraph:
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

    def __init__(self, limit: int = DEFAULT_LIMIT, backend: Backend = "inductor") -> None:
        self.graphs: dict[GraphKey, CompiledGraph] = {}
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
                return call_graph(
                    graph.function, pixel_values.device, tower, geometry, pixel_values, tables
                )
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
    ) -> CompiledGraph:
        if len(self.graphs) >= self._limit:
            del self.graphs[next(other for other in self.graphs if other.tower != key.tower)]
        device = pixel_values.device
        started = perf_counter()
        graph = CompiledGraph(compile_whole(encode_frames, device, self._backend))
        warm_up(graph.function, device, tower, geometry, pixel_values, tables)
        graph.warmup_seconds = perf_counter() - started
        self.graphs[key] = graph
        return graph

    def _fail(self, key: GraphKey, error: Exception) -> None:
        reason = self.failures[key.tower] = failure_reason(error)
        for other in [other for other in self.graphs if other.tower == key.tower]:
            del self.graphs[other]
        logger.warning("The vision encoder runs without torch.compile: %s", reason)


GRAPHS = CompiledGraphs()

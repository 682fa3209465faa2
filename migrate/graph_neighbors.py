"""What a node of a saved workflow is connected to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .graph import INPUTS, Link, WorkflowGraph
from .neighbors import ACTIVE, BYPASSED, MUTED, Consumer, Neighbor, Place


class GraphNeighbors:
    """The nodes of one graph; what lies outside a subgraph is none."""

    def __init__(self, graph: WorkflowGraph) -> None:
        self._graph = graph

    def node(self, id_: int | str) -> Neighbor | None:
        """The node with an id."""
        found = self._graph.node(id_)
        if found is None or not isinstance(found.get("type"), str):
            return None
        inputs = {name: place_of(link) for name, link in self._graph.inputs(found)}
        mode = next((mode for mode in (MUTED, BYPASSED) if mode == found.get("mode")), ACTIVE)
        return Neighbor(id_, found["type"], found.get("widgets_values"), inputs, mode)

    def output_types(self, id_: int | str) -> Sequence[str]:
        """The types that its sockets have."""
        inside = id_ != INPUTS
        holder = self._graph.node(id_) if inside else self._graph.data
        sockets = (holder or {}).get("outputs" if inside else "inputs")
        found = [item.get("type") if isinstance(item, dict) else "" for item in _list(sockets)]
        return [type_ if isinstance(type_, str) else "" for type_ in found]

    def consumers(self, id_: int | str) -> Sequence[Consumer]:
        """All that a node's outputs are connected to."""
        return self.consumers_of({"id": id_})

    def consumers_of(self, node: dict[str, Any]) -> Sequence[Consumer]:
        """The same for a node whose id may be anything."""
        found = []
        for slot, links in self._graph.outputs(node).items():
            for link in links:
                other = self._graph.node(link["target_id"]) or {}
                type_ = other.get("type")
                class_type = type_ if isinstance(type_, str) else ""
                found.append(Consumer(slot, link["target_id"], class_type))
        return found


def place_of(link: Link) -> Place:
    """Where a link begins."""
    type_ = link["type"]
    return Place(link["origin_id"], link["origin_slot"], type_ if isinstance(type_, str) else "")


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []

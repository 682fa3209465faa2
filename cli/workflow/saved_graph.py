"""A saved workflow's graph with its subgraphs unfolded, as the editor unfolds it for the server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ...migrate.graph import INPUTS, OUTPUTS, Link, WorkflowGraph

MUTED, BYPASSED = 2, 4
VIRTUAL = ("Reroute", "PrimitiveNode", "Note", "MarkdownNote")


@dataclass(frozen=True)
class SavedOutput:
    """An output of a node that runs."""

    node: str
    slot: int


@dataclass(frozen=True)
class Constant:
    """A value in the place of a connection: of a primitive, or set outside of a subgraph."""

    value: Any


class LoopError(ValueError):
    """The links go round in a circle."""


class Node:
    """A node at its place in the unfolded graph; `id` is its path, as in ``12:3``."""

    def __init__(self, level: Level, data: dict[str, Any]) -> None:
        self.level = level
        self.data = data
        self.id = ":".join([*level.path, str(data.get("id"))])
        self.type = str(data.get("type"))
        self.mode = data.get("mode") or 0
        self.title = str(data.get("title") or "")
        self.inputs = [item for item in data.get("inputs") or () if isinstance(item, dict)]

    @property
    def inner(self) -> Level | None:
        """What is inside, if it is a subgraph."""
        return self.level.inside(self)

    def link(self, slot: int) -> Link | None:
        """The link of an input."""
        return self.level.graph.linked(self.inputs[slot]) if slot < len(self.inputs) else None


class Level:
    """The workflow, or a subgraph where it is used."""

    def __init__(self, data: dict[str, Any], whole: Unfolded, host: Node | None = None) -> None:
        self.graph = WorkflowGraph(data)
        self.data = data
        self.whole = whole
        self.host = host
        self.path: list[str] = [] if host is None else host.id.split(":")
        self.nodes = {str(item.get("id")): Node(self, item) for item in self.graph.nodes}
        self._inside: dict[str, Level] = {}

    def inside(self, node: Node) -> Level | None:
        """The subgraph that a node stands for."""
        definition = self.whole.definitions.get(node.type)
        if definition is None:
            return None
        if node.id not in self._inside:
            if len(self.path) > 100:
                raise LoopError(f"the subgraph {definition.get('name')} contains itself")
            self._inside[node.id] = Level(definition, self.whole, node)
        return self._inside[node.id]

    def links_to_output(self, slot: int) -> Link | None:
        """The link to an output of this subgraph."""
        for link in self.graph.links.values():
            if link["target_id"] == OUTPUTS and link["target_slot"] == slot:
                return link
        return None


class Unfolded:
    """A workflow as the editor saves it.

    Args:
        workflow: nodes, links and the definitions of subgraphs.
    """

    def __init__(self, workflow: dict[str, Any]) -> None:
        definitions = workflow.get("definitions")
        found = definitions.get("subgraphs") if isinstance(definitions, dict) else None
        self.definitions = {str(item["id"]): item for item in found or () if "id" in item}
        self.top = Level(workflow, self)

    def running(self) -> Iterator[Node]:
        """The nodes that are sent to the server, those in subgraphs included."""
        yield from _running(self.top)

    def source(self, node: Node, slot: int) -> SavedOutput | Constant | None:
        """What an input gets from its link: through reroutes, bypassed nodes and subgraphs.

        Raises:
            LoopError: the links go round in a circle.
        """
        return _from_input(node, slot, set(), None)


def _running(level: Level) -> Iterator[Node]:
    for node in level.nodes.values():
        if node.mode in (MUTED, BYPASSED) or node.type in VIRTUAL:
            continue
        inner = node.inner
        if inner is None:
            yield node
        else:
            yield from _running(inner)


Found = SavedOutput | Constant | None


def _from_input(node: Node, slot: int, seen: set[tuple[str, str, int]], kind: str | None) -> Found:
    key = (node.id, "in", slot)
    if key in seen:
        raise LoopError(f"the links of the node {node.id} go round in a circle")
    seen.add(key)
    link = node.link(slot)
    if link is None:
        return None
    kind = kind or str(node.inputs[slot].get("type"))
    if link["origin_id"] != INPUTS:
        origin = node.level.nodes.get(str(link["origin_id"]))
        return None if origin is None else _from_output(origin, link["origin_slot"], kind, seen)
    host = node.level.host
    if host is None:
        return None
    outer = _host_slot(host, node.level, link["origin_slot"])
    if outer is not None and host.link(outer) is not None:
        return _from_input(host, outer, seen, None)
    return _promoted(host, node.level, link["origin_slot"])


def _from_output(node: Node, slot: int, kind: str, seen: set[tuple[str, str, int]]) -> Found:
    key = (node.id, "out", slot)
    if key in seen:
        raise LoopError(f"the links of the node {node.id} go round in a circle")
    seen.add(key)
    if node.type == "PrimitiveNode":
        values = node.data.get("widgets_values")
        return Constant(values[0]) if isinstance(values, list) and values else None
    if node.mode == MUTED:
        return None
    if node.mode == BYPASSED:
        through = _bypass(node, slot, kind)
        return None if through is None else _from_input(node, through, seen, None)
    inner = node.inner
    if inner is not None:
        link = inner.links_to_output(slot)
        if link is None:
            return None
        if link["origin_id"] == INPUTS:
            outer = _host_slot(node, inner, link["origin_slot"])
            return None if outer is None else _from_input(node, outer, seen, kind)
        origin = inner.nodes.get(str(link["origin_id"]))
        return None if origin is None else _from_output(origin, link["origin_slot"], kind, seen)
    if node.type in VIRTUAL:
        return _from_input(node, slot, seen, kind) if slot < len(node.inputs) else None
    return SavedOutput(node.id, slot)


def _bypass(node: Node, slot: int, kind: str) -> int | None:
    """The input that a bypassed node passes on in the place of an output."""
    types = [str(item.get("type")) for item in node.inputs]
    if not types:
        return None
    if kind in ("*", ""):
        return slot if slot < len(types) else 0
    outputs = node.data.get("outputs") or []
    output = str(outputs[slot].get("type")) if slot < len(outputs) else "*"

    def fits(type_: str) -> bool:
        return _compatible(type_, output) and _compatible(type_, kind)

    if slot < len(types) and fits(types[slot]):
        return slot
    if kind in types:
        return types.index(kind)
    return next((index for index, type_ in enumerate(types) if fits(type_)), None)


def _compatible(one: str, other: str) -> bool:
    if one in ("", "*") or other in ("", "*"):
        return True
    ones, others = ({part.strip().lower() for part in kind.split(",")} for kind in (one, other))
    return "*" in ones | others or bool(ones & others)


def _host_slot(host: Node, inner: Level, slot: int) -> int | None:
    """Which input of the node outside belongs to an input of its subgraph."""
    names = [item.get("name") for item in inner.data.get("inputs") or ()]
    if slot >= len(names):
        return None
    return next((i for i, item in enumerate(host.inputs) if item.get("name") == names[slot]), None)


def _promoted(host: Node, inner: Level, slot: int) -> Constant | None:
    """The value of a subgraph's widget, where it was changed outside."""
    values = host.data.get("widgets_values")
    if not isinstance(values, list):
        return None
    slots = [index for index in range(len(inner.data.get("inputs") or ())) if _shown(inner, index)]
    properties = host.data.get("properties") or {}
    proxies = properties.get("proxyWidgets")
    if isinstance(proxies, list) and proxies:
        # Saved by an older editor: the values stand in the order of this list.
        for entry, value in zip(proxies, values, strict=False):
            if value is not None and _names(inner, slot, entry):
                return Constant(value)
        return None
    if slot in slots and slots.index(slot) < len(values):
        value = values[slots.index(slot)]
        return None if value is None else Constant(value)
    return None


def _targets(inner: Level, slot: int) -> Iterator[tuple[Node, Mapping[str, Any]]]:
    for link in inner.graph.links.values():
        if link["origin_id"] == INPUTS and link["origin_slot"] == slot:
            node = inner.nodes.get(str(link["target_id"]))
            if node is not None and link["target_slot"] < len(node.inputs):
                yield node, node.inputs[link["target_slot"]]


def _shown(inner: Level, slot: int) -> bool:
    """Whether an input of a subgraph is a widget of the node outside."""
    return any(isinstance(socket.get("widget"), dict) for _, socket in _targets(inner, slot))


def _names(inner: Level, slot: int, entry: Any) -> bool:
    if not isinstance(entry, list) or len(entry) < 2:
        return False
    if str(entry[0]) == "-1":
        return inner.data["inputs"][slot].get("name") == entry[1]
    return any(
        str(node.data.get("id")) == str(entry[0]) and socket.get("name") == entry[1]
        for node, socket in _targets(inner, slot)
    )


def proxied(level: Level, node: Node) -> dict[str, Any]:
    """Values of a node in a subgraph that an older editor kept at the node outside, by name."""
    host = level.host
    if host is None:
        return {}
    properties = host.data.get("properties") or {}
    proxies, values = properties.get("proxyWidgets"), host.data.get("widgets_values")
    found = {}
    for entry, value in zip(proxies or (), values or (), strict=False):
        named = isinstance(entry, list) and len(entry) >= 2 and value is not None
        if named and str(entry[0]) == str(node.data.get("id")):
            found[str(entry[1])] = value
    return found

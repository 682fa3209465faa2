"""Nodes and links of a saved workflow, or of one of its subgraphs.

Links are lists `[id, origin, slot, target, slot, type]` in a workflow and objects in a subgraph,
whose own sockets are the nodes -10 (inputs) and -20 (outputs).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .neighbors import Place

INPUTS, OUTPUTS = -10, -20
_PLACES = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")


class Link:
    """One link, which can be read and moved in either form."""

    def __init__(self, data: list[Any] | dict[str, Any]) -> None:
        self.data = data

    def __getitem__(self, name: str) -> Any:
        """A part of the link; of those in an object, the type may be missing."""
        if isinstance(self.data, dict):
            return self.data.get(name)
        return self.data[_PLACES.index(name)]

    def __setitem__(self, name: str, value: Any) -> None:
        if isinstance(self.data, dict):
            self.data[name] = value
        else:
            self.data[_PLACES.index(name)] = value

    @staticmethod
    def valid(data: Any) -> bool:
        """Whether the data say where a link comes from and goes to."""
        if isinstance(data, dict):
            parts = [data.get(name) for name in _PLACES]
        elif isinstance(data, list) and len(data) >= len(_PLACES):
            parts = data
        else:
            return False
        ids = [parts[0], parts[1], parts[3]]
        return all(isinstance(part, (int, str)) for part in ids) and all(
            isinstance(parts[index], int) for index in (2, 4)
        )


class WorkflowGraph:
    """A workflow's `nodes` and `links`, changed in place."""

    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data
        self.nodes = [node for node in _list(data.get("nodes")) if isinstance(node, dict)]
        found = [Link(item) for item in _list(data.get("links")) if Link.valid(item)]
        self.links = {link["id"]: link for link in found}

    def node(self, id_: Any) -> dict[str, Any] | None:
        """The node with an id."""
        return next((node for node in self.nodes if node.get("id") == id_), None)

    def inputs(self, node: dict[str, Any]) -> Iterator[tuple[str, Link]]:
        """Name and link of each input that something is connected to."""
        for socket in _list(node.get("inputs")):
            link = self.linked(socket)
            if link is not None and isinstance(socket.get("name"), str):
                yield socket["name"], link

    def linked(self, socket: Any) -> Link | None:
        """The link of an input socket."""
        id_ = socket.get("link") if isinstance(socket, dict) else None
        return self.links.get(id_) if isinstance(id_, (int, str)) else None

    def outputs(self, node: dict[str, Any]) -> dict[int, list[Link]]:
        """The links of each output, by its index; outputs without any are left out."""
        found: dict[int, list[Link]] = {}
        for link in self.links.values():
            if link["origin_id"] == node.get("id"):
                found.setdefault(link["origin_slot"], []).append(link)
        return found

    def remove(self, link: Link) -> None:
        """Take a link away, at its origin too; the target's socket is left to the caller."""
        self._leave(link)
        self.links.pop(link["id"], None)
        self.data["links"] = [item for item in self.data["links"] if item is not link.data]

    def connect(self, origin: Place, target: Any) -> Link:
        """A new link to a node; the target's socket, and its number, are left to the caller."""
        id_ = max([self._last_link(), *(key for key in self.links if isinstance(key, int))]) + 1
        state = self.data.get("state")
        if "last_link_id" in self.data:
            self.data["last_link_id"] = id_
        if isinstance(state, dict) and "lastLinkId" in state:
            state["lastLinkId"] = id_
        parts = (id_, origin.id, origin.slot, target, 0, origin.type)
        as_objects = "inputs" in self.data  # of a subgraph
        link = Link(dict(zip(_PLACES, parts, strict=True)) if as_objects else list(parts))
        self.links[id_] = link
        self.data["links"] = [*_list(self.data.get("links")), link.data]
        ids = self._ids_at_origin(link)
        if ids is not None:
            ids.append(id_)
        return link

    def drop(self, node: dict[str, Any]) -> None:
        """Take a node away that nothing is connected to any more."""
        for _, link in list(self.inputs(node)):
            self.remove(link)
        self.nodes = [item for item in self.nodes if item is not node]
        self.data["nodes"] = [item for item in self.data["nodes"] if item is not node]

    def move(self, link: Link, origin: Link) -> None:
        """Let a link begin where another one does."""
        self._leave(link)
        link["origin_id"], link["origin_slot"] = origin["origin_id"], origin["origin_slot"]
        ids = self._ids_at_origin(link)
        if ids is not None and link["id"] not in ids:
            ids.append(link["id"])

    def _last_link(self) -> int:
        """The number of the last link there ever was."""
        state = self.data.get("state")
        found = state.get("lastLinkId") if isinstance(state, dict) else None
        known = [found, self.data.get("last_link_id"), 0]
        return max(number for number in known if type(number) is int)

    def _leave(self, link: Link) -> None:
        ids = self._ids_at_origin(link)
        if ids is not None and link["id"] in ids:
            ids.remove(link["id"])

    def _ids_at_origin(self, link: Link) -> list[Any] | None:
        """The list of link ids that the origin's socket keeps."""
        if link["origin_id"] == INPUTS:
            sockets, key = _list(self.data.get("inputs")), "linkIds"
        else:
            node = self.node(link["origin_id"]) or {}
            sockets, key = _list(node.get("outputs")), "links"
        slot = link["origin_slot"]
        if not 0 <= slot < len(sockets) or not isinstance(sockets[slot], dict):
            return None
        if not isinstance(sockets[slot].get(key), list):
            sockets[slot][key] = []
        return sockets[slot][key]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []

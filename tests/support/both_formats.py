"""Writes one graph as a workflow of the editor and as a prompt for the server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Part:
    """One node: its widgets in order, where its inputs come from, and what it gives out."""

    type: str
    values: Mapping[str, Any] = field(default_factory=dict)
    links: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    outputs: tuple[str, ...] = ("*",)


Parts = Mapping[int, Part]


def as_prompt(parts: Parts) -> dict[str, Any]:
    """As the server takes it."""
    return {
        str(id_): {
            "class_type": part.type,
            "inputs": {**part.values, **{k: [str(v[0]), v[1]] for k, v in part.links.items()}},
        }
        for id_, part in parts.items()
    }


def as_workflow(parts: Parts) -> dict[str, Any]:
    """As the editor saves it."""
    links: list[list[Any]] = []
    nodes: list[dict[str, Any]] = []
    for order, (id_, part) in enumerate(parts.items()):
        inputs: list[dict[str, Any]] = []
        for slot, (name, (origin, out)) in enumerate(part.links.items()):
            type_ = parts[origin].outputs[out]
            links.append([len(links) + 1, origin, out, id_, slot, type_])
            inputs.append({"name": name, "type": type_, "link": len(links)})
        nodes.append(
            {
                "id": id_,
                "type": part.type,
                "pos": [order * 300, 0],
                "size": [200, 100],
                "mode": 0,
                "order": order,
                "inputs": inputs,
                "properties": {},
                "widgets_values": list(part.values.values()),
            }
        )
    for node in nodes:
        types = parts[node["id"]].outputs
        node["outputs"] = [
            {
                "name": f"out{slot}",
                "type": type_,
                "links": [link[0] for link in links if link[1:3] == [node["id"], slot]],
            }
            for slot, type_ in enumerate(types)
        ]
    return {"nodes": nodes, "links": links, "last_link_id": len(links), "groups": []}


def prompt_of(workflow: dict[str, Any], names: Mapping[str, list[str]]) -> dict[str, Any]:
    """A saved workflow as the editor would send it.

    Args:
        workflow: with links in lists or objects.
        names: of the widgets of each class, in order; of others only links are given.
    """
    ends = {}
    for link in workflow["links"]:
        parts = list(link.values()) if isinstance(link, dict) else link
        ends[parts[0]] = parts
    found = {}
    for node in workflow["nodes"]:
        widgets = dict(zip(names.get(node["type"], ()), node["widgets_values"] or (), strict=False))
        widgets.pop("control_after_generate", None)
        links = {}
        for slot, socket in enumerate(node["inputs"]):
            if socket["link"] is not None:
                _, origin, out, target, target_slot, *_ = ends[socket["link"]]
                assert (target, target_slot) == (node["id"], slot)
                source = next(n for n in workflow["nodes"] if n["id"] == origin)
                assert socket["link"] in source["outputs"][out]["links"]
                links[socket["name"]] = [str(origin), out]
        found[str(node["id"])] = {"class_type": node["type"], "inputs": {**widgets, **links}}
    return found

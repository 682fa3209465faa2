"""Replaces nodes in a workflow as the editor saves it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .graph import INPUTS, OUTPUTS, Link, WorkflowGraph
from .graph_neighbors import GraphNeighbors, place_of
from .model_kind import is_ours, strings
from .our_nodes import TARGETS, OurNode
from .report import Folded, Left, MigrationReport, Replaced
from .rules import Known, NewNode, NotMigratable, OldNode, Rule
from .table import DECLINED, RULES

# What the editor and the Manager note about the pack that a node came from.
_OF_THE_OLD_PACK = ("cnr_id", "aux_id", "ver", "visibleLoraCount", "Show Strengths", "Match")
_Renames = dict[tuple[str, str], Rule | None]


def migrate_graphs(workflow: dict[str, Any], known: Known, report: MigrationReport) -> None:
    """Replace the nodes of a workflow and of its subgraphs, in place."""
    definitions = workflow.get("definitions")
    subgraphs = definitions.get("subgraphs") if isinstance(definitions, dict) else None
    graphs = [("", workflow)]
    for item in subgraphs if isinstance(subgraphs, list) else ():
        if isinstance(item, dict):
            graphs.append((f"{item.get('name', item.get('id'))}/", item))
    renames: _Renames = {}
    found = [(path, data.get("id"), WorkflowGraph(data)) for path, data in graphs]
    for path, owner, graph in found:
        for id_, rule in _migrate_graph(path, graph, known, report):
            renames[str(owner), str(id_)] = rule
    for _, _, graph in found:
        for node in graph.nodes:
            _rename_promoted(node, renames)


def _migrate_graph(
    path: str, graph: WorkflowGraph, known: Known, report: MigrationReport
) -> Iterator[tuple[Any, Rule | None]]:
    """Replace the nodes of one graph; gives each one's id and rule, None for one that is gone."""
    folded: dict[int | str, str] = {}
    before = list(report.left)
    while True:
        report.left = list(before)
        found = list(_replace_all(path, graph, known, report, folded))
        if not found:
            return
        yield from found  # again: a link that is gone now may have kept another node


def _replace_all(
    path: str,
    graph: WorkflowGraph,
    known: Known,
    report: MigrationReport,
    folded: dict[int | str, str],
) -> Iterator[tuple[Any, Rule | None]]:
    for last in (False, True):
        for node in graph.nodes:
            name = node.get("type")
            if not isinstance(name, str) or name in known.installed:
                continue
            if name in DECLINED and not last:
                report.left.append(Left(_place(path, node), name, DECLINED[name]))
            if name not in RULES or RULES[name].last is not last:
                continue
            try:
                new = _replace(graph, node, RULES[name], known)
            except NotMigratable as reason:
                report.left.append(Left(_place(path, node), name, str(reason)))
                continue
            folded.update(dict.fromkeys(new.folded, _place(path, node)))
            report.replaced.append(Replaced(_place(path, node), name, node["type"], new.notes))
            yield node.get("id"), RULES[name]
        for node in _dropped(graph, folded, known):
            report.folded.append(Folded(_place(path, node), node["type"], folded[node["id"]]))
            yield node["id"], None


def _place(path: str, node: dict[str, Any]) -> str:
    return f"{path}{node.get('id')}"


def _dropped(
    graph: WorkflowGraph, folded: Mapping[int | str, str], known: Known
) -> list[dict[str, Any]]:
    """The nodes that went, as others do their work now and nothing is connected to them."""
    gone: list[dict[str, Any]] = []
    while True:
        idle = [
            node
            for node in graph.nodes
            if isinstance(node.get("id"), (int, str))
            and node["id"] in folded
            and isinstance(node.get("type"), str)
            and node["type"] not in known.installed
            and not graph.outputs(node)
        ]
        if not idle:
            return gone
        for node in idle:
            graph.drop(node)
        gone += idle


def _replace(graph: WorkflowGraph, node: dict[str, Any], rule: Rule, known: Known) -> NewNode:
    """Turn a node into ours; nothing is changed before everything has a place.

    Raises:
        NotMigratable: something has none.
    """
    links = dict(graph.inputs(node))
    outputs = graph.outputs(node)
    values = rule.read(node.get("widgets_values"))
    _refuse(graph, node, rule, known, links, outputs)
    around = GraphNeighbors(graph)
    sources = {name: place_of(link) for name, link in links.items()}
    consumers = around.consumers_of(node)
    new = rule.convert(OldNode(values, frozenset(links), known, sources, consumers, around))
    if new.sources and not isinstance(node.get("id"), (int, str)):
        raise NotMigratable("it has no id, so that nothing can be connected to it")
    target = TARGETS[new.class_type]
    taken = {ours: links[theirs] for ours, theirs in new.links.items()}
    for index, name in rule.passes.items():
        for link in outputs.get(index, ()):
            graph.move(link, links[name])
    for name, link in links.items():
        if link not in taken.values():
            graph.remove(link)
            if name not in rule.passes.values() and name not in new.spent:
                new.notes.append(f"what was connected to '{name}' has no counterpart")
    taken |= {ours: graph.connect(place, node["id"]) for ours, place in new.sources.items()}
    kept: dict[int, list[Link]] = {}
    for index, made in outputs.items():
        if index in rule.outputs:
            kept.setdefault(rule.outputs[index], []).extend(made)
    node.update(_as_saved(node, new, target, taken, kept))
    return new


def _refuse(
    graph: WorkflowGraph,
    node: dict[str, Any],
    rule: Rule,
    known: Known,
    links: Mapping[str, Link],
    outputs: Mapping[int, list[Link]],
) -> None:
    for index, made in outputs.items():
        if index in rule.outputs:
            continue
        source = links.get(rule.passes.get(index, ""))
        if source is None:
            raise NotMigratable(f"our node has nothing for what its output {index} is connected to")
        if source["origin_id"] == INPUTS and any(link["target_id"] == OUTPUTS for link in made):
            raise NotMigratable(f"its output {index} would join a subgraph's input and output")
    if rule.for_any_model and not known.any_model and not _model_is_ours(graph, node):
        raise NotMigratable(
            "its model could not be told to be Qwen-Image or Z-Image, which our LoRA nodes are for"
        )


def _model_is_ours(graph: WorkflowGraph, node: dict[str, Any]) -> bool:
    def upstream(id_: Any) -> list[tuple[str, Any]]:
        found = graph.inputs(graph.node(id_) or {})
        return [(name, link["origin_id"]) for name, link in found]

    def texts(id_: Any) -> list[str]:
        return list(strings((graph.node(id_) or {}).get("widgets_values")))

    return is_ours(
        node.get("id"), upstream, texts, lambda id_: (graph.node(id_) or {}).get("type", "")
    )


def _as_saved(
    node: dict[str, Any],
    new: NewNode,
    target: OurNode,
    taken: Mapping[str, Link],
    kept: Mapping[int, list[Link]],
) -> dict[str, Any]:
    """The keys of a saved node that change."""
    inputs = []
    for item in target.present(new.values, taken):
        socket: dict[str, Any] = {"name": item.name, "type": item.type, "link": None}
        if item.optional:
            socket["shape"] = 7
        if item.widget:
            socket["widget"] = {"name": item.name}
        link = taken.get(item.name)
        if link is not None:
            socket["link"] = link["id"]
            link["target_slot"] = len(inputs)
        inputs.append(socket)
    outputs = []
    for slot, (name, type_) in enumerate(target.outputs):
        made = kept.get(slot, [])
        for link in made:
            link["origin_slot"] = slot
        ids = [link["id"] for link in made]
        outputs.append({"name": name, "type": type_, "links": ids or None})
    values = list(target.complete(new.values, taken).values())
    return {
        "type": new.class_type,
        "size": _size(node.get("size"), target.size),
        "inputs": inputs,
        "outputs": outputs,
        "properties": _properties(node.get("properties"), new.class_type),
        "widgets_values": [list(value) if isinstance(value, tuple) else value for value in values],
    }


def _size(old: Any, least: tuple[int, int]) -> list[Any]:
    pair = [old.get("0"), old.get("1")] if isinstance(old, dict) else old
    if not isinstance(pair, list) or len(pair) != 2:
        return list(least)
    numbers = [part if isinstance(part, (int, float)) else 0 for part in pair]
    return [max(part, low) for part, low in zip(numbers, least, strict=True)]


def _properties(old: Any, class_type: str) -> dict[str, Any]:
    kept = old if isinstance(old, dict) else {}
    found = {name: value for name, value in kept.items() if name not in _OF_THE_OLD_PACK}
    return {**found, "Node name for S&R": class_type}


def _rename_promoted(node: dict[str, Any], renames: _Renames) -> None:
    """Widgets of a replaced node that a subgraph shows outside."""
    properties = node.get("properties")
    if not isinstance(properties, dict) or not isinstance(properties.get("proxyWidgets"), list):
        return
    kept = []
    for entry in properties["proxyWidgets"]:
        if isinstance(entry, list) and len(entry) >= 2 and isinstance(entry[1], str):
            place = str(node.get("type")), str(entry[0])
            rule = renames.get(place)
            if place in renames and rule is None:
                continue
            if rule is not None:
                names = {item.old: item.new for item in rule.fields} | dict(rule.widgets)
                if entry[1] not in names:
                    continue
                entry = [entry[0], names[entry[1]], *entry[2:]]
        kept.append(entry)
    properties["proxyWidgets"] = kept

"""Replaces nodes in a prompt: a workflow as it is sent to the server ("API format")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .model_kind import is_ours, strings
from .neighbors import Consumer, Neighbor, Place
from .our_nodes import TARGETS
from .report import Folded, Left, MigrationReport, Replaced
from .rules import Known, NewNode, NotMigratable, OldNode, Rule
from .table import DECLINED, RULES
from .widgets import CONTROL


def migrate_prompt(prompt: dict[str, Any], known: Known, report: MigrationReport) -> None:
    """Replace the nodes of a prompt, in place."""
    folded: dict[int | str, str] = {}
    before = -1
    while len(report.replaced) > before:  # a link that is gone now may have kept another node
        before = len(report.replaced)
        report.left.clear()
        _replace_all(prompt, known, report, folded)


def _replace_all(
    prompt: dict[str, Any], known: Known, report: MigrationReport, folded: dict[int | str, str]
) -> None:
    for last in (False, True):
        for id_, node in prompt.items():
            name = node.get("class_type") if isinstance(node, dict) else None
            if not isinstance(name, str) or name in known.installed:
                continue
            if name in DECLINED and not last:
                report.left.append(Left(id_, name, DECLINED[name]))
            if name not in RULES or RULES[name].last is not last:
                continue
            try:
                new = _replace(prompt, id_, RULES[name], known)
            except NotMigratable as reason:
                report.left.append(Left(id_, name, str(reason)))
                continue
            folded.update({str(other): id_ for other in new.folded})
            report.replaced.append(Replaced(id_, name, node["class_type"], new.notes))
        _drop(prompt, folded, known, report)


def _drop(
    prompt: dict[str, Any], folded: dict[int | str, str], known: Known, report: MigrationReport
) -> None:
    """Take away the nodes whose work others do now, and that nothing is connected to."""
    while True:
        idle = [
            id_
            for id_, node in prompt.items()
            if id_ in folded
            and node["class_type"] not in known.installed
            and not _consumers(prompt, id_)
        ]
        if not idle:
            return
        for id_ in idle:
            report.folded.append(Folded(id_, prompt.pop(id_)["class_type"], folded[id_]))


def _replace(prompt: dict[str, Any], id_: str, rule: Rule, known: Known) -> NewNode:
    node = prompt[id_]
    inputs = node.get("inputs")
    if not isinstance(inputs, dict):
        raise NotMigratable("it has no inputs")
    links = {name: value for name, value in inputs.items() if _is_link(value)}
    values = rule.read(inputs)
    consumers = _consumers(prompt, id_)
    for link, _, _ in consumers:
        index = link[1]
        if index not in rule.outputs and rule.passes.get(index) not in links:
            raise NotMigratable(f"our node has nothing for what its output {index} is connected to")
    if rule.for_any_model and not known.any_model and not _model_is_ours(prompt, id_):
        raise NotMigratable(
            "its model could not be told to be Qwen-Image or Z-Image, which our LoRA nodes are for"
        )
    constants = {name: value for name, value in values.items() if name not in links}
    around = PromptNeighbors(prompt, known)
    sources = {name: Place(link[0], link[1]) for name, link in links.items()}
    old = OldNode(constants, frozenset(links), known, sources, around.consumers(id_), around)
    new = rule.convert(old)
    lost = set(links) - set(new.links.values()) - set(rule.passes.values()) - new.spent
    new.notes += [f"what was connected to '{name}' has no counterpart" for name in sorted(lost)]
    for link, holder, name in consumers:
        index = link[1]
        if index in rule.outputs:
            link[1] = rule.outputs[index]
        else:
            holder[name] = list(links[rule.passes[index]])
    target = TARGETS[new.class_type]
    complete = target.complete(new.values, {**new.links, **new.sources})
    complete.pop(CONTROL, None)
    node["class_type"] = new.class_type
    node["inputs"] = {
        **{name: _plain(value) for name, value in complete.items()},
        **{ours: links[theirs] for ours, theirs in new.links.items()},
        **{ours: [place.id, place.slot] for ours, place in new.sources.items()},
    }
    return new


def _consumers(prompt: dict[str, Any], id_: str) -> list[tuple[list[Any], dict[str, Any], str]]:
    """Each link from a node, with the inputs that hold it and its name there."""
    found = []
    for node in prompt.values():
        inputs = node.get("inputs") if isinstance(node, dict) else None
        for name, value in inputs.items() if isinstance(inputs, dict) else ():
            if _is_link(value) and str(value[0]) == id_:
                found.append((value, inputs, name))
    return found


class PromptNeighbors:
    """What a node of a prompt is connected to."""

    def __init__(self, prompt: dict[str, Any], known: Known) -> None:
        self._prompt = prompt
        self._known = known

    def node(self, id_: int | str) -> Neighbor | None:
        """The node with an id."""
        found = self._prompt.get(str(id_))
        if not isinstance(found, dict) or not isinstance(found.get("class_type"), str):
            return None
        held = found.get("inputs")
        if not isinstance(held, dict):
            return None
        links = {name: Place(value[0], value[1]) for name, value in held.items() if _is_link(value)}
        values = {name: value for name, value in held.items() if name not in links}
        return Neighbor(id_, found["class_type"], values, links)

    def output_types(self, id_: int | str) -> Sequence[str]:
        """The types that nodes of its class give out."""
        found = self.node(id_)
        return () if found is None else self._known.output_types(found.class_type)

    def consumers(self, id_: int | str) -> Sequence[Consumer]:
        """All that a node's outputs are connected to."""
        found = []
        for other, node in self._prompt.items():
            held = node.get("inputs") if isinstance(node, dict) else None
            for value in held.values() if isinstance(held, dict) else ():
                if _is_link(value) and str(value[0]) == str(id_):
                    class_type = node.get("class_type")
                    name = class_type if isinstance(class_type, str) else ""
                    found.append(Consumer(value[1], other, name))
        return found


def _model_is_ours(prompt: dict[str, Any], id_: str) -> bool:
    def inputs(node: Any) -> dict[str, Any]:
        found = prompt.get(str(node))
        held = found.get("inputs") if isinstance(found, dict) else None
        return held if isinstance(held, dict) else {}

    def upstream(node: Any) -> list[tuple[str, Any]]:
        return [(name, str(value[0])) for name, value in inputs(node).items() if _is_link(value)]

    def class_of(node: Any) -> Any:
        found = prompt.get(str(node))
        return found.get("class_type") if isinstance(found, dict) else ""

    return is_ours(id_, upstream, lambda node: strings(inputs(node)), class_of)


def _is_link(value: Any) -> bool:
    """As the server has it: node id and output index."""
    return (
        isinstance(value, list)
        and len(value) == 2
        and isinstance(value[0], (str, int))
        and not isinstance(value[0], bool)
        and type(value[1]) is int
    )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value

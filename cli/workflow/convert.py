"""From a workflow as the editor saves it to the prompt that the editor would send."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import CliError
from ..parser import did_you_mean
from .saved_graph import Constant, LoopError, Node, SavedOutput, Unfolded, proxied
from .specs import node_spec
from .widgets import widget_values

Prompt = dict[str, dict[str, Any]]


def is_prompt(data: Mapping[str, Any]) -> bool:
    """Whether the data are a prompt already ("API format")."""
    nodes = [node for node in data.values() if isinstance(node, dict)]
    return bool(nodes) and all("class_type" in node and "inputs" in node for node in nodes)


def to_prompt(workflow: dict[str, Any], object_info: Mapping[str, Any]) -> tuple[Prompt, list[str]]:
    """Convert a saved workflow.

    Args:
        workflow: as the editor saves it; not changed.
        object_info: what the server says about its nodes.

    Returns:
        The prompt, and remarks for people.

    Raises:
        CliError: a node's class is unknown, or the links are damaged.
    """
    try:
        return _converted(Unfolded(workflow), object_info)
    except LoopError as error:
        raise CliError(f"The workflow is damaged: {error}", "Open it in the editor") from None
    except (KeyError, TypeError, AttributeError) as error:
        problem = f"The workflow is not as the editor saves it ({error!r})"
        raise CliError(problem, "Open it in the editor and save it again") from None


def _converted(graph: Unfolded, object_info: Mapping[str, Any]) -> tuple[Prompt, list[str]]:
    prompt: Prompt = {}
    remarks: list[str] = []
    unknown: list[str] = []
    for node in graph.running():
        spec = node_spec(object_info, node.type)
        if spec is None:
            if _is_decoration(node):
                remarks.append(f"{node.type} ({node.id}) is unknown and unconnected: left out.")
            else:
                unknown.append(f"{node.type} ({node.id}){_hint(node.type, object_info)}")
            continue
        inputs = widget_values(spec, node.data)
        inputs |= {n: v for n, v in proxied(node.level, node).items() if n in inputs}
        for slot, socket in enumerate(node.inputs):
            source = graph.source(node, slot)
            if isinstance(source, SavedOutput):
                inputs[socket["name"]] = [source.node, source.slot]
            elif isinstance(source, Constant):
                value = source.value
                inputs[socket["name"]] = {"__value__": value} if isinstance(value, list) else value
        title = node.title or object_info[node.type].get("display_name") or node.type
        prompt[node.id] = {
            "inputs": inputs,
            "class_type": node.type,
            "_meta": {"title": title},
        }
    if unknown:
        names = ", ".join(unknown)
        remedy = "Install the pack that they come from on the server, or remove them"
        raise CliError(f"The server has no nodes for {names}", remedy)
    _drop_loose_links(prompt)
    if not prompt:
        raise CliError("The workflow has no node that runs", "Unmute a node, or check the file")
    return prompt, remarks


def _hint(name: str, object_info: Mapping[str, Any]) -> str:
    if name.startswith(("workflow>", "workflow/")):
        return "; a group node: open the workflow in a new editor, which makes subgraphs of them"
    return did_you_mean(name, object_info)


def _is_decoration(node: Node) -> bool:
    """Whether nothing is connected to it: notes, switches and labels of other packs."""
    linked = any(node.link(slot) for slot in range(len(node.inputs)))
    return not linked and not node.level.graph.outputs(node.data)


def _drop_loose_links(prompt: Prompt) -> None:
    for node in prompt.values():
        for name, value in list(node["inputs"].items()):
            if isinstance(value, list) and len(value) == 2 and str(value[0]) not in prompt:
                del node["inputs"][name]

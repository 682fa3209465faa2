"""Puts values from the command line into a prompt."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import UsageError
from ..parser import did_you_mean
from .convert import Prompt
from .specs import InputSpec, node_spec

# What no text stands for.
_CONNECTED = frozenset(
    ("MODEL", "CLIP", "VAE", "CONDITIONING", "LATENT", "IMAGE", "MASK", "AUDIO", "VIDEO")
)
_SWITCHES = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


def assign(
    prompt: Prompt, target: str, text: str, object_info: Mapping[str, Any], *, option: str
) -> None:
    """Set an input of a node, in place.

    Args:
        prompt: in the API format.
        target: ``NODE.INPUT``, where the node is an id, a title or a class; an input alone stands
            for the only node that has it. A name behind a list's input, as in
            ``stack.rows.0.strength``, goes into it.
        text: the value, read as the server says the input is.
        object_info: what the server says about its nodes.
        option: the option that this comes from, for errors.

    Raises:
        UsageError: there is no such node or input, or several, or the value does not fit.
    """
    place = f"{option} {target}={text}"
    for id_, name, rest in _places(prompt, target, object_info, place):
        node = prompt[id_]
        spec = _input(node, name, object_info)
        if rest:
            node["inputs"][name] = _into(node["inputs"].get(name), rest, text, place)
        elif spec is None:
            node["inputs"][name] = _any(text)
        else:
            node["inputs"][name] = typed(spec, text, place)


def _places(
    prompt: Prompt, target: str, object_info: Mapping[str, Any], place: str
) -> list[tuple[str, str, list[str]]]:
    """Node, input, and the way into the input's value; longest names first, as both may have dots.

    Nodes of one title are meant together if the title was given.
    """
    for cut in _cuts(target):
        ids = _nodes(prompt, target[:cut])
        if ids:
            return [
                (id_, *_name(prompt[id_], target[cut + 1 :], object_info, place)) for id_ in ids
            ]
    if "." in target:
        known = [*prompt, *(_title(node) for node in prompt.values())]
        name = target.partition(".")[0]
        problem = f"{place}: the workflow has no node '{name}'{did_you_mean(name, known)}"
        raise UsageError(problem, f"It has {', '.join(_named(prompt))}")
    having = [id_ for id_, node in prompt.items() if _has(node, target, object_info)]
    if not having:
        known = [name for node in prompt.values() for name in _names(node, object_info)]
        problem = f"{place}: no node has an input '{target}'{did_you_mean(target, known)}"
        raise UsageError(problem, "Write it as NODE.INPUT=VALUE")
    if len(having) > 1:
        names = ", ".join(f"{id_}.{target}" for id_ in having)
        raise UsageError(f"{place}: several nodes have that input", f"Say which: {names}")
    return [(having[0], target, [])]


def _cuts(target: str) -> Iterable[int]:
    return [index for index, letter in reversed([*enumerate(target)]) if letter == "."]


def _nodes(prompt: Prompt, name: str) -> list[str]:
    if name in prompt:
        return [name]
    wanted = name.casefold()
    for label in (_title, _class):
        found = [id_ for id_, node in prompt.items() if label(node).casefold() == wanted]
        if found:
            return found
    return []


def _title(node: Mapping[str, Any]) -> str:
    return str((node.get("_meta") or {}).get("title") or "")


def _class(node: Mapping[str, Any]) -> str:
    return str(node.get("class_type"))


def _named(prompt: Prompt) -> list[str]:
    return [f"{id_} ({_title(node) or _class(node)})" for id_, node in prompt.items()]


def _names(node: Mapping[str, Any], object_info: Mapping[str, Any]) -> list[str]:
    spec = node_spec(object_info, _class(node))
    known = [] if spec is None else [one.name for one in spec.present(node["inputs"])]
    return list(dict.fromkeys([*node["inputs"], *known]))


def _has(node: Mapping[str, Any], name: str, object_info: Mapping[str, Any]) -> bool:
    """Whether it has an input of that name, with a value rather than a link."""
    return name in _names(node, object_info) and not _is_link(node["inputs"].get(name))


def _is_link(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[1], int)


def _name(
    node: Mapping[str, Any], text: str, object_info: Mapping[str, Any], place: str
) -> tuple[str, list[str]]:
    names = _names(node, object_info)
    if text in names:
        return text, []
    for cut in _cuts(text):
        if text[:cut] in names:
            return text[:cut], text[cut + 1 :].split(".")
    problem = f"{place}: {_class(node)} has no input '{text}'{did_you_mean(text, names or [''])}"
    raise UsageError(problem, f"It has {', '.join(names)}" if names else "It has none")


def _input(node: Mapping[str, Any], name: str, object_info: Mapping[str, Any]) -> InputSpec | None:
    spec = node_spec(object_info, _class(node))
    return None if spec is None else spec.input(name, node["inputs"])


def typed(spec: InputSpec, text: str, place: str) -> Any:
    """A value as an input takes it.

    Args:
        place: where the text comes from, for errors.

    Raises:
        UsageError: the text does not fit.
    """
    kinds = spec.widget_type.split(",")
    if spec.type in _CONNECTED:
        raise UsageError(f"{place}: a {spec.type} comes from another node, not from text")
    if spec.type == "COMBO" or spec.branches():
        return _choice(spec, text, place)
    if "STRING" in kinds:
        return text
    if "BOOLEAN" in kinds:
        if text.casefold() not in _SWITCHES:
            raise UsageError(f"{place}: must be true or false")
        return _SWITCHES[text.casefold()]
    if {"INT", "FLOAT"} & set(kinds):
        return _number(spec, text, place, whole="FLOAT" not in kinds)
    return _any(text)


def _choice(spec: InputSpec, text: str, place: str) -> Any:
    choices = list(spec.branches()) if spec.branches() else list(spec.choices or ())
    found = next((choice for choice in choices if str(choice) == text), None)
    if found is not None or not choices:
        return text if found is None else found
    hint = did_you_mean(text, [str(choice) for choice in choices])
    shown = ", ".join(str(choice) for choice in choices[:20])
    more = f" and {len(choices) - 20} more" if len(choices) > 20 else ""
    raise UsageError(f"{place}: the server has no such choice{hint}", f"It has {shown}{more}")


def _number(spec: InputSpec, text: str, place: str, *, whole: bool) -> Any:
    try:
        value = int(text) if whole else float(text)
    except ValueError:
        raise UsageError(f"{place}: must be a {'whole ' * whole}number") from None
    least, most = spec.options.get("min"), spec.options.get("max")
    if (least is not None and not value >= least) or (most is not None and not value <= most):
        raise UsageError(f"{place}: must be from {least} to {most}")
    return value


def _any(text: str) -> Any:
    """JSON, or else the text; a list would be a link without its wrapping."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return {"__value__": value} if isinstance(value, list) else value


def _into(value: Any, way: list[str], text: str, place: str) -> Any:
    """A copy of a value of lists and objects with one part replaced."""
    whole = json.loads(json.dumps(value))
    part = whole["__value__"] if isinstance(whole, dict) and "__value__" in whole else whole
    for index, word in enumerate(way):
        key: Any = word
        if isinstance(part, list):
            key = int(word) if word.isdigit() and int(word) < len(part) else None
        last = index + 1 == len(way)
        known = isinstance(part, list) or (isinstance(part, dict) and (last or key in part))
        if not known or key is None:
            problem = f"{place}: there is no '{word}' in the value"
            raise UsageError(problem, f"It is {json.dumps(value)}")
        if last:
            old = part[key] if isinstance(part, list) else part.get(key)
            part[key] = text if isinstance(old, str) else _any(text)
        else:
            part = part[key]
    return whole

"""Prompts that commands make of their options, checked against what the server offers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ...lora.files.file_names import LoraNameError, resolve
from ...lora.files.file_types import by_slashes
from ..errors import CliError, UsageError
from ..parser import did_you_mean
from .assign import typed
from .convert import Prompt
from .specs import node_spec

PACK = "Vivace"


class Builder:
    """A prompt in the making, for one server.

    Attributes:
        prompt: in the API format.
    """

    def __init__(self, object_info: Mapping[str, Any], prompt: Prompt | None = None) -> None:
        self.object_info = object_info
        self.prompt: Prompt = {} if prompt is None else prompt
        for id_, node in self.prompt.items():
            self._require(node["class_type"], id_)

    def add(self, id_: str, class_type: str, **inputs: Any) -> None:
        """Add a node; inputs that are not given have their defaults.

        Inputs that the server's version lacks are left out.

        Raises:
            CliError: the server has no such node.
        """
        self._require(class_type, id_)
        spec = node_spec(self.object_info, class_type)
        known = {one.name for one in spec.present(inputs)} if spec else set()
        self.prompt[id_] = {
            "class_type": class_type,
            "inputs": {name: value for name, value in inputs.items() if name in known},
            "_meta": {"title": self.object_info[class_type].get("display_name") or class_type},
        }
        self._fill(id_)

    def _fill(self, id_: str) -> None:
        """Give widgets without a value their defaults, those behind a choice included."""
        inputs = self.prompt[id_]["inputs"]
        spec = node_spec(self.object_info, self.prompt[id_]["class_type"])
        # One after the other: a choice that is filled in opens the inputs behind it.
        for one in spec.present(inputs) if spec else ():
            has_default = "default" in one.options or one.choices or one.branches()
            if one.is_widget and one.name not in inputs and has_default:
                inputs[one.name] = one.default

    def set(self, id_: str, name: str, value: object, option: str) -> None:
        """Set an input from an option; None leaves it as it is.

        Raises:
            UsageError: the value does not fit, or the server's version has no such input.
        """
        if value is None:
            return
        node = self.prompt[id_]
        spec = node_spec(self.object_info, node["class_type"])
        found = spec.input(name, node["inputs"]) if spec else None
        if found is None:
            problem = f"{option}: the server's {node['class_type']} has no input '{name}'"
            raise UsageError(problem, "Leave the option out, or use a newer ComfyUI")
        text = str(value).lower() if isinstance(value, bool) else str(value)
        node["inputs"][name] = typed(found, text, f"{option} {text}")
        if found.branches():
            for other in [key for key in node["inputs"] if key.startswith(f"{name}.")]:
                del node["inputs"][other]
            self._fill(id_)

    def choices(self, class_type: str, name: str) -> list[str]:
        """What a list of the server offers.

        Raises:
            CliError: the server has no such node.
        """
        self._require(class_type, class_type)
        return choices(self.object_info, class_type, name)

    def _require(self, class_type: str, id_: str) -> None:
        if class_type in self.object_info:
            return
        pack = class_type.startswith(PACK)
        remedy = "Install ComfyUI-Vivace there" if pack else "Use a newer ComfyUI"
        raise CliError(f"The server has no node {class_type} ({id_})", f"{remedy}, and restart it")


def choices(object_info: Mapping[str, Any], class_type: str, name: str) -> list[str]:
    """What a list of the server offers, nothing if it has no such list."""
    spec = node_spec(object_info, class_type)
    found = next((one for one in spec.inputs if one.name == name), None) if spec else None
    return [str(choice) for choice in (found.choices or ())] if found else []


def named(wanted: str, offered: Sequence[str], option: str, what: str) -> str:
    """The offered file that a name means: as the server lists it, or without its folders.

    Args:
        what: a word for the kind of file, for errors.

    Raises:
        UsageError: there is none, or there are several.
    """
    name = wanted.replace("\\", "/")
    found = [one for one in offered if one.replace("\\", "/") == name]
    found = found or [one for one in offered if base(one) == base(name)]
    if len(found) == 1:
        return found[0]
    if found:
        problem = f"{option} {wanted}: the server has several {what}s of that name"
        raise UsageError(problem, f"Say which: {', '.join(found)}")
    hint = did_you_mean(wanted, offered) if offered else ""
    raise UsageError(f"{option} {wanted}: the server has no such {what}{hint}", _has(offered))


def named_lora(wanted: str, offered: Sequence[str], option: str) -> str:
    """The offered LoRA that a name means, also one that was written for this machine's folders.

    Raises:
        UsageError: there is none, or there are several.
    """
    known = by_slashes(offered)
    try:
        return known[resolve(wanted, known, moved=True)]
    except LoraNameError as error:
        raise UsageError(f"{option} {wanted}: {str(error).rstrip('.')}", _has(offered)) from None


def _has(offered: Sequence[str]) -> str:
    more = f" and {len(offered) - 20} more" if len(offered) > 20 else ""
    return f"It has {', '.join(offered[:20]) or 'none'}{more}"


def matching(offered: Iterable[str], patterns: Sequence[str]) -> list[str]:
    """Those whose names match the first of the patterns that matches any."""
    names = list(offered)
    for pattern in patterns:
        found = [name for name in names if re.search(pattern, base(name), re.IGNORECASE)]
        if found:
            return found
    return []


def base(name: str) -> str:
    """A file's name without folders, of either kind of path."""
    return re.split(r"[/\\]", name)[-1]

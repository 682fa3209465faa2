"""What the server says that its nodes take: types, choices, defaults, and the order of widgets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

DYNAMIC_COMBO = "COMFY_DYNAMICCOMBO_V3"
_WIDGETS = {
    "INT",
    "FLOAT",
    "BOOLEAN",
    "STRING",
    "MARKDOWN",
    "COMBO",
    "IMAGEUPLOAD",
    "COLOR",
    "IMAGECOMPARE",
    "BOUNDING_BOX",
    "CHART",
    "GALLERIA",
    "PAINTER",
    "TEXTAREA",
    "CURVE",
    "RANGE",
    "BOUNDING_BOXES",
    "COLORS",
    DYNAMIC_COMBO,
}
_EMPTY = {"INT": 0, "FLOAT": 0.0, "BOOLEAN": False, "STRING": ""}
_UPLOADS = ("image_upload", "video_upload", "animated_image_upload")


@dataclass(frozen=True)
class InputSpec:
    """One input: its name (with the names that it lies under, by dots), type and options."""

    name: str
    type: str
    options: Mapping[str, Any]
    choices: tuple[Any, ...] | None = None

    @property
    def widget_type(self) -> str:
        """The type of its widget, where the input takes several types."""
        return str(self.options.get("widgetType") or self.type)

    @property
    def is_widget(self) -> bool:
        """Whether the editor shows a widget for it."""
        return self.widget_type in _WIDGETS and not self.options.get("forceInput")

    @property
    def default(self) -> Any:
        """The value of a new node."""
        if "default" in self.options:
            return self.options["default"]
        if self.choices:
            return self.choices[0]
        if self.type == DYNAMIC_COMBO:
            keys = list(self.branches())
            return keys[0] if keys else None
        return _EMPTY.get(self.widget_type)

    @property
    def controls(self) -> int:
        """How many widgets the editor adds for what happens to the value after a run."""
        control = self.options.get("control_after_generate")
        if self.widget_type == "INT":
            # A seed has it unless the node says otherwise.
            seed = self.name.rpartition(".")[2] in ("seed", "noise_seed")
            return int(bool(seed if control is None else control))
        if self.widget_type == "FLOAT":
            return int(bool(control))
        if self.widget_type == "COMBO":
            return 2 if control else 0  # and a filter for the list
        return 0

    def branches(self) -> dict[str, list[InputSpec]]:
        """The inputs behind each choice of a dynamic combo."""
        found = {}
        for option in self.options.get("options") or () if self.type == DYNAMIC_COMBO else ():
            inputs = option.get("inputs") or {}
            found[option["key"]] = list(_inputs(inputs, f"{self.name}."))
        return found


@dataclass(frozen=True)
class NodeSpec:
    """A class of nodes."""

    name: str
    inputs: list[InputSpec]
    outputs: list[str] = field(default_factory=list)

    def input(self, name: str, values: Mapping[str, Any]) -> InputSpec | None:
        """The input of a name, given the values that open the branches it may lie under."""
        return next((spec for spec in self.present(values) if spec.name == name), None)

    def present(self, values: Mapping[str, Any]) -> Iterator[InputSpec]:
        """Every input with the branches that values choose, in order."""
        yield from _expanded(self.inputs, values)


def node_spec(object_info: Mapping[str, Any], name: str) -> NodeSpec | None:
    """The class of a name, or None if the server has none."""
    found = object_info.get(name)
    if not isinstance(found, dict):
        return None
    inputs = found.get("input") or {}
    specs = list(_inputs(inputs, "", found.get("input_order")))
    outputs = [kind if isinstance(kind, str) else "COMBO" for kind in found.get("output") or ()]
    return NodeSpec(name, specs, outputs)


def _inputs(
    groups: Mapping[str, Any], prefix: str, order: Mapping[str, Any] | None = None
) -> Iterator[InputSpec]:
    for group in ("required", "optional"):
        found = groups.get(group) or {}
        names = [name for name in (order or {}).get(group) or () if name in found]
        names += [name for name in found if name not in names]
        for name in names:
            yield _input(f"{prefix}{name}", found[name])
        if group == "required" and not prefix and any(_uploads(item) for item in found.values()):
            # The button, whose value the editor saves with the others.
            yield InputSpec("upload", "IMAGEUPLOAD", {})


def _input(name: str, data: Any) -> InputSpec:
    kind = data[0] if isinstance(data, list | tuple) and data else data
    options = data[1] if isinstance(data, list | tuple) and len(data) > 1 else {}
    options = options if isinstance(options, dict) else {}
    if isinstance(kind, list):
        return InputSpec(name, "COMBO", options, tuple(kind))
    if kind == "COMBO":
        choices = options.get("options")
        listed = tuple(choices) if isinstance(choices, list) else None
        return InputSpec(name, "COMBO", options, listed)
    return InputSpec(name, str(kind), options)


def _uploads(data: Any) -> bool:
    options = data[1] if isinstance(data, list | tuple) and len(data) > 1 else None
    return isinstance(options, dict) and any(options.get(name) for name in _UPLOADS)


def _expanded(specs: list[InputSpec], values: Mapping[str, Any]) -> Iterator[InputSpec]:
    for spec in specs:
        yield spec
        if spec.type == DYNAMIC_COMBO:
            chosen = values.get(spec.name, spec.default)
            yield from _expanded(spec.branches().get(chosen, []), values)

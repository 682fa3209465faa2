"""What a rule is: how one node of another pack becomes one of ours.

Rules are data; what they say is done once for each format of a workflow, in `ui_format.py` and
`api_format.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..lora.files.file_names import LoraNameError, resolve
from ..lora.files.file_types import by_slashes
from .neighbors import COMMON_TYPES, Consumer, Neighbors, NoNeighbors, Place
from .widgets import CONTROL, Layout, is_integer, is_number


class NotMigratable(Exception):  # noqa: N818 - no error: the node stays, and the report says why
    """A known node that has to stay as it is; the message says why."""


@dataclass(frozen=True)
class Known:
    """What is on this machine, by ComfyUI's own names; empty where nobody knows."""

    loras: Collection[str] = ()
    models: Collection[str] = ()
    any_model: bool = False
    """Whether nodes for models of any kind are replaced without a look at the model."""
    installed: Collection[str] = ()
    """Classes that work here; their nodes stay."""
    music_models: Collection[str] = ()
    output_types: Callable[[str], Sequence[str]] = lambda name: COMMON_TYPES.get(name, ())
    """The types of what nodes of a class give out, which a prompt does not say."""


@dataclass(frozen=True)
class OldNode:
    """A node to replace, as either format gives it."""

    values: Mapping[str, Any]
    """By input name."""
    linked: frozenset[str]
    """Inputs that get their value from another node."""
    known: Known
    sources: Mapping[str, Place] = field(default_factory=dict)
    """Where the links of `linked` begin."""
    consumers: Sequence[Consumer] = ()
    around: Neighbors = field(default_factory=NoNeighbors)


@dataclass
class NewNode:
    """The node of ours that takes its place."""

    class_type: str
    values: dict[str, Any] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    """Our input -> the old input whose link it takes."""
    sources: dict[str, Place] = field(default_factory=dict)
    """Our input -> an output that it gets a new link from."""
    folded: dict[int | str, str] = field(default_factory=dict)
    """Id and class of nodes that ours does the work of; those that serve nobody else go."""
    spent: set[str] = field(default_factory=set)
    """Old inputs whose links are not needed any more."""
    notes: list[str] = field(default_factory=list)


Convert = Callable[[Any, list[str]], Any]


@dataclass(frozen=True)
class Field:
    """An old input with a counterpart."""

    old: str
    new: str
    convert: Convert
    linkable: bool = True
    """Whether a value that comes over a link means the same to ours."""


@dataclass(frozen=True)
class Rule:
    """How nodes of one class become ours."""

    old: tuple[str, ...]
    """Class names; packs have renamed theirs."""
    new: str
    layouts: tuple[Layout, ...]
    """Orders of widgets, newest first."""
    fields: tuple[Field, ...] = ()
    fixed: Mapping[str, Any] = field(default_factory=dict)
    """Values of ours that stand for what the old node always did."""
    ignored: frozenset[str] = frozenset()
    """Inputs that mean nothing to ours, and whose loss changes no result."""
    outputs: Mapping[int, int] = field(default_factory=lambda: {0: 0})
    """Old output -> ours."""
    passes: Mapping[int, str] = field(default_factory=dict)
    """Old output that only handed on an input: its name."""
    finish: Callable[[OldNode, NewNode], None] | None = None
    """Does what is not one value for one value; links that it takes over it enters itself."""
    own: Callable[[str], bool] = lambda name: False
    """Inputs that `finish` reads."""
    for_any_model: bool = False
    """Whether the old node works with models that ours cannot take."""
    widgets: Mapping[str, str] = field(default_factory=dict)
    """Old widget -> ours, beside those of `fields`: where a subgraph shows it outside."""
    last: bool = False
    """Whether its nodes are replaced after those that they may be folded into."""
    secret: bool = False
    """Whether a value may be a secret, which no message may show."""

    def read(self, values: Any) -> dict[str, Any]:
        """The values by input name, from a node's `widgets_values` or a prompt's `inputs`.

        Raises:
            NotMigratable: they are not those of the node that the rule is for.
        """
        if isinstance(values, Mapping):
            if any(layout.required <= values.keys() for layout in self.layouts):
                return {str(name): value for name, value in values.items()}
            raise NotMigratable("it has other inputs than any version of that node")
        given = values if isinstance(values, list) else []
        for layout in self.layouts:
            found = layout.read(given)
            if found is not None:
                return found
        listed = "" if self.secret else f" {shown(given)}"
        raise NotMigratable(f"its values{listed} are not those of any version of that node")

    def convert(self, old: OldNode) -> NewNode:
        """Our node for an old one.

        Raises:
            NotMigratable: an input has a value or link that ours cannot have.
        """
        new = NewNode(self.new, dict(self.fixed))
        for item in self.fields:
            self._carry(item, old, new)
        if self.finish is not None:
            self.finish(old, new)
        claimed = {item.old for item in self.fields} | self.ignored | set(self.passes.values())
        for name in sorted(old.linked - claimed - set(new.links.values())):
            raise NotMigratable(f"our node has no input for what is connected to '{name}'")
        for name in sorted(set(old.values) - claimed - old.linked):
            if not self.own(name) and name != CONTROL:
                new.notes.append(f"{name} = {shown(old.values[name])} has no counterpart")
        return new

    @staticmethod
    def _carry(item: Field, old: OldNode, new: NewNode) -> None:
        if item.old in old.linked:
            if not item.linkable:
                raise NotMigratable(f"'{item.old}' is connected, and ours means other values by it")
            new.links[item.new] = item.old
        if item.old in old.values:
            value = old.values[item.old]
            try:
                new.values[item.new] = item.convert(value, new.notes)
            except NotMigratable as problem:
                raise NotMigratable(f"{item.old} is {shown(value)}, {problem}") from None


def as_text(value: Any, _: list[str]) -> str:
    """A string."""
    if not isinstance(value, str):
        raise NotMigratable("not text")
    return value


def as_switch(value: Any, _: list[str]) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise NotMigratable("not true or false")
    return value


def as_integer(low: int, high: int) -> Convert:
    """A whole number, brought into a range with a note."""

    def convert(value: Any, notes: list[str]) -> int:
        if not is_integer(value):
            raise NotMigratable("not a whole number")
        return _clamp(int(value), low, high, notes)

    return convert


def as_number(low: float, high: float) -> Convert:
    """A number, brought into a range with a note."""

    def convert(value: Any, notes: list[str]) -> float:
        if not is_number(value):
            raise NotMigratable("not a number")
        return _clamp(value, low, high, notes)

    return convert


def choice(options: Mapping[str, Any], note_of: Collection[str] = ()) -> Convert:
    """One of the old choices, as ours; those in `note_of` get a note."""

    def convert(value: Any, notes: list[str]) -> Any:
        if not isinstance(value, str) or value not in options:
            raise NotMigratable(f"not one of {', '.join(options)}")
        if value in note_of:
            notes.append(f"'{value}' has no counterpart; it is '{options[value]}' now")
        return options[value]

    return convert


def shown(value: Any) -> str:
    """A value for a message, shortened."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def find_name(name: str, listed: Collection[str], notes: list[str]) -> str:
    """The name as it is listed here, with forward slashes: the same, or the one file it means.

    Some packs save a file's name without its folder or its ending, and here it may lie elsewhere.
    """
    plain = name.replace("\\", "/")
    known = by_slashes(listed)
    if not known:
        return plain
    try:
        here = resolve(plain, known, moved=True)
    except LoraNameError as error:
        count = "several files here have" if error.several else "no file here has"
        notes.append(f"{count} the name '{name}'; choose the right one")
        return plain
    if here != plain:
        notes.append(f"'{name}' is '{here}' here")
    return here


def _clamp(value: Any, low: Any, high: Any, notes: list[str]) -> Any:
    inside = min(max(value, low), high)
    if inside != value:
        notes.append(f"{value} is out of range for ours; it is {inside} now")
    return inside

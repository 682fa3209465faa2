"""What a node of a workflow or prompt is connected to, the same for both formats."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

REROUTE = "Reroute"
ACTIVE, MUTED, BYPASSED = 0, 2, 4  # modes of a saved node

# Outputs of common nodes, for prompts where nobody knows more.
COMMON_TYPES: Mapping[str, tuple[str, ...]] = {
    "PrimitiveString": ("STRING",),
    "PrimitiveStringMultiline": ("STRING",),
    "StringConcatenate": ("STRING",),
    "LoadImage": ("IMAGE", "MASK"),
    "EmptyImage": ("IMAGE",),
    "ImageBatch": ("IMAGE",),
    "ImageScale": ("IMAGE",),
    "ImageScaleBy": ("IMAGE",),
    "ImageStitch": ("IMAGE",),
    "VAEDecode": ("IMAGE",),
    "SystemPromptTaskGenerator": ("*", "STRING"),
    "BananaTaskGenerator": ("*", "STRING"),
    "StylePromptGenerator": ("*", "STRING"),
}


@dataclass(frozen=True)
class Place:
    """An output of a node: where links begin."""

    id: int | str
    slot: int
    type: str = ""
    """Empty where it does not matter, or nobody knows it."""


@dataclass(frozen=True)
class Consumer:
    """An input that an output is connected to."""

    slot: int
    """Of the output."""
    id: int | str
    class_type: str
    """Empty for what is no node, such as the output of a subgraph."""


@dataclass(frozen=True)
class Neighbor:
    """Another node, as it stands there."""

    id: int | str
    class_type: str
    values: Any
    """By position or by name, as its format has them."""
    inputs: Mapping[str, Place] = field(default_factory=dict)
    mode: int = ACTIVE


class Neighbors(Protocol):
    """The nodes around one."""

    def node(self, id_: int | str) -> Neighbor | None:
        """The node with an id."""
        ...

    def output_types(self, id_: int | str) -> Sequence[str]:
        """The types of a node's outputs; empty where nobody knows them."""
        ...

    def consumers(self, id_: int | str) -> Sequence[Consumer]:
        """All that a node's outputs are connected to."""
        ...


class NoNeighbors:
    """A node on its own."""

    def node(self, id_: int | str) -> Neighbor | None:
        return None

    def output_types(self, id_: int | str) -> Sequence[str]:
        return ()

    def consumers(self, id_: int | str) -> Sequence[Consumer]:
        return ()


def origin(around: Neighbors, place: Place) -> Place:
    """Where a link really begins, behind nodes that only lead it around corners."""
    seen: set[int | str] = set()
    while place.id not in seen:
        seen.add(place.id)
        found = around.node(place.id)
        if found is None or found.class_type != REROUTE or len(found.inputs) != 1:
            break
        (place,) = found.inputs.values()
    return place


def type_of(around: Neighbors, place: Place) -> str:
    """What an output hands on; empty where nobody knows it."""
    place = origin(around, place)
    types = around.output_types(place.id)
    return types[place.slot] if 0 <= place.slot < len(types) else ""


def ends(around: Neighbors, consumers: Sequence[Consumer]) -> Iterator[Consumer]:
    """Where links really end, behind nodes that only lead them around corners."""
    waiting, seen = list(consumers), set[int | str]()
    while waiting:
        found = waiting.pop(0)
        if found.class_type != REROUTE:
            yield found
        elif found.id not in seen:
            seen.add(found.id)
            waiting += around.consumers(found.id)

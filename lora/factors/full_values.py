"""Full weights among the tensors of a LoRA file: which are changes, and which are not."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from ..files.header import TensorInfo
from ..mapping.key_map import Group
from .adapter_families import FAMILIES

_ADAPTERS = tuple(family.marks for family in FAMILIES if family.name != "diff")


def are_changes(groups: Collection[Group]) -> bool:
    """Whether the full values of a file's norms are what training has made of them.

    A file with adapters stores them so where norms were trained beside (PDD bundles of VideoX-Fun,
    peft's `modules_to_save`). One in which a layer with an adapter has its weight too is a dump of
    a model as it was loaded, and one without adapters is a checkpoint.
    """
    adapted = [group for group in groups if any(marks & group.roles.keys() for marks in _ADAPTERS)]
    dumped = any("weight" in group.roles and "on_input" not in group.roles for group in adapted)
    return bool(adapted) and not dumped


def by_step(group: Group, infos: Mapping[str, TensorInfo]) -> str | None:
    """Why several weights of a module in one tensor are not applied; None for other tensors.

    A PDD bundle has as many output layers as its sampler has steps.
    """
    key = group.roles.get("weight")
    shape = () if key is None else infos[key].shape
    if len(shape) != 3 or shape[1:] != group.target.shape:
        return None
    return f"{shape[0]} full weights, one for each step of a sampler that it belongs to (PDD)"

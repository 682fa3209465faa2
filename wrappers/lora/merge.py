"""LoRAs as ComfyUI's own weight patches: merged when ComfyUI loads the model, undone exactly."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

import torch
from comfy.weight_adapter.base import WeightAdapterBase

from ...lora.factors.delta import Delta
from ...lora.factors.dora import Dora
from ...lora.factors.weight_relative import Relative
from ...lora.loader import Entry
from ...lora.mapping.architecture import Architecture

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

Change = Delta | Dora | Relative


class DeltaAdapter(WeightAdapterBase):
    """A change of the LoRA engine in the form that ComfyUI patches weights with.

    ComfyUI moves the tensors of an adapter by rebuilding it from `loaded_keys` and `weights`, going
    through tuples; so the delta is kept as nested tuples of its class and fields. Before it stands
    what returns the rows of the parameter that the change is of, without any patches: ComfyUI hands
    on what the patches before have made of it, and their order must not count.
    """

    name = "vivace"

    def __init__(self, loaded_keys: set[str], weights: tuple[Any, ...]) -> None:
        self.loaded_keys = loaded_keys
        self.weights = weights  # pyright: ignore[reportAttributeAccessIssue]

    def calculate_weight(
        self,
        weight: torch.Tensor,
        key: str,
        strength: float,
        strength_model: float,
        offset: Any,
        function: Any,
        intermediate_dtype: torch.dtype = torch.float32,
        original_weight: Any = None,
    ) -> torch.Tensor:
        """Add strength times the change to `weight` in place, computed in `intermediate_dtype`.

        `weight` holds the rows of the change only: ComfyUI has narrowed it by `offset`.
        """
        known: Any = self.weights
        base_rows, _ = known
        delta = self.delta.to(weight.device)

        def base() -> torch.Tensor:
            rows = base_rows()
            # Of a model that is gone, what ComfyUI hands on is the nearest to it.
            return (weight if rows is None else rows).to(weight.device, intermediate_dtype)

        change = change_of(delta, strength, base, intermediate_dtype)
        weight += function(change.reshape(weight.shape).to(weight.dtype))
        return weight

    @property
    def delta(self) -> Change:
        """The change as the LoRA engine has it, at strength 1."""
        known: Any = self.weights
        return _unpacked(known[1])


def change_of(
    delta: Change, strength: float, base: Callable[[], torch.Tensor], dtype: torch.dtype
) -> torch.Tensor:
    """A change multiplied out, in `dtype`; `base` returns the weight that it is a change of, which
    is asked only by what depends on it."""
    if isinstance(delta, Delta):
        return delta.scaled(strength).matrix(dtype)
    weight = base()
    relative = delta.resolve(weight) if isinstance(delta, Dora) else delta
    return relative.scaled(strength).matrix(weight, dtype)


def add_merged(
    model: ModelPatcher,
    architecture: Architecture,
    entries: Iterable[Entry],
    strength: float,
    base: Callable[[str, str], torch.Tensor | None],
) -> set[str]:
    """Add changes to a model's patches.

    Args:
        base: returns the weight or bias of a module without patches, by path and parameter; None
            where there is none any more.

    Returns:
        The paths of modules that the model turned out not to have.
    """
    waiting = list(entries)
    missing: set[str] = set()
    while waiting:
        # One call takes one patch per parameter; a file may hold more (a LoRA and a diff, say).
        batch: dict[Any, DeltaAdapter] = {}
        modules: dict[Any, str] = {}
        later: list[Entry] = []
        for entry in waiting:
            key = _patch_key(architecture, entry)
            if key in batch:
                later.append(entry)
            else:
                batch[key] = DeltaAdapter(set(), (_base_rows(base, entry), _packed(entry.delta)))
                modules[key] = entry.module
        added = set(model.add_patches(batch, strength))
        missing |= {module for key, module in modules.items() if key not in added}
        waiting = later
    return missing


def adds_a_bias(module: object, entries: Iterable[Entry]) -> bool:
    """Whether a layer without a bias gets one from these changes, which no merged weight can hold.

    The layer itself is asked: models of one architecture may differ in that.
    """
    return getattr(module, "bias", None) is None and any(e.parameter == "bias" for e in entries)


def _base_rows(
    base: Callable[[str, str], torch.Tensor | None], entry: Entry
) -> Callable[[], torch.Tensor | None]:
    def rows() -> torch.Tensor | None:
        whole = base(entry.module, entry.parameter)
        return None if whole is None else whole[entry.start : entry.stop]

    return rows


def _patch_key(architecture: Architecture, entry: Entry) -> Any:
    module = architecture.modules[entry.module]
    key = f"diffusion_model.{module.parameter_name(entry.parameter)}"
    if (entry.start, entry.stop) == (0, module.shape[0]):
        return key
    return key, (0, entry.start, entry.stop - entry.start)


def _packed(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return (type(value), *(_packed(getattr(value, item.name)) for item in fields(value)))
    return value


def _unpacked(value: Any) -> Any:
    if isinstance(value, tuple) and value and isinstance(value[0], type):
        return value[0](*map(_unpacked, value[1:]))
    return value

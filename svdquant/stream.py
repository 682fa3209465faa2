"""A Nunchaku checkpoint as a state_dict of ComfyUI's model, converted layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .checkpoint import Checkpoint, PlacedLayer
from .convert import convert_awq, convert_svdq, planar_modulation
from .layers import UNUSED_TENSORS
from .state_dict_names import to_state_dict

Read = Callable[[Iterable[str]], dict[str, Tensor]]

# ComfyUI tells Qwen-Image-Edit-2511 by this name; diffusers by an entry of the configuration.
_TIMESTEP_ZERO = "__index_timestep_zero__"


def converted(checkpoint: Checkpoint, read: Read) -> Iterator[dict[str, Tensor]]:
    """Yield the state_dict of ComfyUI's model in pieces, one for each layer of the file, in order.

    `read` returns tensors of the file by name. Only one layer is in memory beside what was yielded.

    Raises:
        CheckpointError, ValueError: a tensor cannot be read, or does not fit.
    """
    dense = _Rows(checkpoint)
    if checkpoint.config.get("zero_cond_t"):
        yield {_TIMESTEP_ZERO: torch.empty(0)}
    for placed in checkpoint.layers:
        layer = placed.layer
        names = {role: name for role, name in layer.tensors.items() if role not in UNUSED_TENSORS}
        stored = read(names.values())
        tensors = {role: stored[name] for role, name in names.items()}
        if layer.kind == "dense":
            yield dense.add(placed, tensors)
        elif layer.kind == "awq":
            linear = planar_modulation(convert_awq(tensors))
            yield to_state_dict(linear, placed.placements[0].module)
        else:
            yield _svdq(placed, tensors)


def _svdq(placed: PlacedLayer, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    linear = convert_svdq(tensors, act_unsigned=placed.act_unsigned)
    if len(placed.placements) == 1:
        return to_state_dict(linear, placed.placements[0].module)
    found: dict[str, Tensor] = {}
    for module, start, stop, _ in placed.placements:
        found.update(to_state_dict(linear.rows(start, stop), module))
    return found


@dataclass
class _Rows:
    """Puts the rows of plain modules together that the file stores in several layers."""

    checkpoint: Checkpoint
    waiting: dict[str, dict[int, Tensor]] = field(default_factory=dict)

    def add(self, placed: PlacedLayer, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Take a layer, and return the parameters that are complete with it."""
        complete: dict[str, Tensor] = {}
        for module, start, stop, first in placed.placements:
            known = self.checkpoint.architecture.modules[module]
            for role, tensor in tensors.items():
                name = known.parameter_name(role or "weight")
                rows = self.waiting.setdefault(name, {})
                rows[first] = tensor[start:stop]
                if sum(map(len, rows.values())) == known.shape[0]:
                    parts = [rows[at] for at in sorted(rows)]
                    complete[name] = parts[0] if len(parts) == 1 else torch.cat(parts)
                    del self.waiting[name]
        return complete

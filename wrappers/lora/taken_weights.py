"""What other nodes get when they take the weights of a model with branches.

A branch is no part of any weight. Nodes that save a model, merge it with another or subtract it
from one ask the patcher for its weights and patches, and would get those without the LoRAs, without
a word. So the patcher gives them the LoRAs as ComfyUI's own patches, merged as in the mode `merge`,
and says so: that rounds. While the model samples nobody takes weights but ComfyUI's hooks, which
put them back.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

from comfy.model_management import load_models_gpu

from .branch_set import KEY, RUN, BranchSet
from .merge import add_merged, adds_a_bias
from .node_text import show_at_node
from .running_model import RunningModel
from .way import Way, need_of

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

    from ...lora.loader import Lora

log = logging.getLogger(__name__)


def give_weights(model: ModelPatcher) -> None:
    """Make a patcher with branches, and its clones, give them to who takes its weights."""
    if not issubclass(type(model), _Giving):
        model.__class__ = _giving(type(model))


class _Giving:
    """The methods of a patcher through which weights are taken."""

    def add_patches(self, patches: dict[Any, Any], *args: Any, **kwargs: Any) -> Any:
        strength_model = kwargs.get("strength_model", args[1] if len(args) > 1 else 1.0)
        if strength_model != 1.0 or any(isinstance(patch, list) for patch in patches.values()):
            # Weights of another model, or a part of the own ones: the LoRAs have to be in them.
            _settle(cast("ModelPatcher", self))
        return super().add_patches(patches, *args, **kwargs)  # pyright: ignore

    def get_key_patches(self, *args: Any, **kwargs: Any) -> Any:
        model = cast("ModelPatcher", self)
        if KEY not in model.attachments or RUN in model.model.diffusion_model.__dict__:
            return super().get_key_patches(*args, **kwargs)  # pyright: ignore
        return _settled(model).get_key_patches(*args, **kwargs)

    def state_dict_for_saving(self, *args: Any, **kwargs: Any) -> Any:
        model = cast("ModelPatcher", self)
        if KEY not in model.attachments:
            return super().state_dict_for_saving(*args, **kwargs)  # pyright: ignore
        settled = _settled(model)
        load_models_gpu([settled])
        return settled.state_dict_for_saving(*args, **kwargs)


@lru_cache(maxsize=16)
def _giving(cls: type) -> type:
    return type(cls.__name__, (_Giving, cls), {"__module__": cls.__module__})


def _settled(model: ModelPatcher) -> ModelPatcher:
    """A clone whose weights have the LoRAs that run beside those of `model`."""
    settled = model.clone()
    _settle(settled)
    return settled


def _settle(model: ModelPatcher) -> None:
    """Turn the branches of a patcher into ComfyUI's patches, and say what that means."""
    branches = model.attachments.get(KEY)
    if not isinstance(branches, BranchSet):
        return
    branches.detach(model)
    running = RunningModel.of(model)
    left: set[str] = set()
    for lora, strength in cast("tuple[tuple[Lora, float], ...]", branches.rows):
        merged = []
        for path, entries in lora.deltas.items():
            way = running.way(path, "merge", need_of(entries))
            if way is Way.MERGE and not adds_a_bias(running.module(path), entries):
                merged += entries
            else:
                left.add(path)
        architecture = running.architecture
        left |= add_merged(model, architecture, merged, strength, running.base_parameter)
    text = _told(len(branches.rows), left)
    log.warning("%s", text)
    show_at_node(text)


def _told(number: int, left: set[str]) -> str:
    """What a user reads of LoRAs that were merged because weights were taken."""
    files = "1 LoRA is" if number == 1 else f"{number} LoRAs are"
    text = (
        f"{files} merged into the weights that this node takes, which rounds the change to the type"
        " of the weights. The report of the LoRA node in mode `merge` says how much is lost."
    )
    if left:
        layers = "1 layer cannot" if len(left) == 1 else f"{len(left)} layers cannot"
        text += f" {layers} hold a merged change, which is left out: {min(left)}"
        text += " and more." if len(left) > 1 else "."
    return text

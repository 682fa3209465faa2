"""What is particular about models of ComfyUI-nunchaku's loaders."""

from __future__ import annotations

import re
import weakref
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch

from ...lora.factors.branch import Branch
from .rank_target import RankTarget

_BLOCK = re.compile(r"(?P<blocks>.+?)\.(?P<index>\d+)\.(?P<leaf>.+)")


class Offload:
    """Nunchaku's CPU offload of blocks, where a model has it.

    Offloaded blocks run in two copies of block 0, into which their parameters and buffers are
    copied by position: shapes must be equal in all blocks, and after a change of shapes the copies
    must be made anew.
    """

    def __init__(self, network: torch.nn.Module) -> None:
        self._network = weakref.ref(network)
        self._settings: tuple[int, bool, Any] = (1, True, None)

    @property
    def on(self) -> bool:
        """Whether blocks are offloaded at present."""
        return bool(getattr(self._network(), "offload", False))

    @property
    def block(self) -> int:
        """The number of the block that runs now."""
        network: Any = self._network()
        return network.offload_manager.current_block_idx

    def copy_of(self, path: str) -> tuple[int, Any] | None:
        """The block of a module and the module that runs in its place; None if it runs itself."""
        network: Any = self._network()
        match = _BLOCK.fullmatch(path)
        if match is None or not self.on:
            return None
        index = int(match["index"])
        manager = network.offload_manager
        if index < manager.num_blocks_on_gpu:
            return None
        return index, manager.get_block(index).get_submodule(match["leaf"])

    def copies(self) -> list[torch.nn.Module]:
        """The modules of the block copies."""
        network: Any = self._network()
        manager = network.offload_manager if self.on else None
        blocks = () if manager is None else manager.buffer_blocks
        return [module for block in blocks for module in block.modules()]

    def rebuild(self) -> None:
        """Make the block copies anew, with the settings that they were made with."""
        network: Any = self._network()
        if network is None or not self.on:
            return
        manager = network.offload_manager
        if manager is not None:  # else there was no memory for it the last time
            self._settings = manager.num_blocks_on_gpu, manager.use_pin_memory, manager.device
        blocks, pinned, device = self._settings
        network.set_offload(False)
        network.set_offload(True, num_blocks_on_gpu=blocks, use_pin_memory=pinned)
        if device is not None:
            network.offload_manager.set_device(device)


def offload_of(network: torch.nn.Module) -> Offload | None:
    """The offload of a model that has one."""
    return Offload(network) if hasattr(network, "set_offload") else None


def merges_nothing(model: Any) -> bool:
    """Whether a patcher ignores weight patches, as that of Nunchaku's Qwen-Image does."""
    return any(cls.__name__ == "NunchakuModelPatcher" for cls in type(model).__mro__)


def is_native(model: Any) -> bool:
    """Whether a patcher appends LoRAs of ComfyUI's own nodes to the same layers itself."""
    return hasattr(model, "svdq_backup")


def even_out(wanted: Mapping[str, Branch], targets: Mapping[str, RankTarget]) -> dict[str, Branch]:
    """Add empty branches, so that a layer of one block has one if that of any block has."""
    leaves = {leaf for path in wanted if (leaf := _leaf(path)) is not None}
    found = dict(wanted)
    for path, target in targets.items():
        if path not in found and _leaf(path) in leaves:
            found[path] = _empty(target)
    return found


def even_ranks(wanted: Mapping[str, Branch]) -> dict[str, int]:
    """The greatest rank among all blocks, by target."""
    greatest: dict[str, int] = {}
    for path, branch in wanted.items():
        leaf = _leaf(path) or path
        greatest[leaf] = max(greatest.get(leaf, 0), branch.rank)
    return {path: greatest[_leaf(path) or path] for path in wanted}


def _leaf(path: str) -> str | None:
    match = _BLOCK.fullmatch(path)
    return None if match is None else f"{match['blocks']}.*.{match['leaf']}"


def _empty(target: RankTarget) -> Branch:
    return _zeros(target.path, target.rows[-1][1], target.modules[0].in_features)


@lru_cache(maxsize=1024)
def _zeros(path: str, out: int, inp: int) -> Branch:
    """Always the same object, so that it is seen to be there already."""
    return Branch(path, (out, inp), torch.zeros(1, inp), torch.zeros(out, 1), torch.ones(1))

"""What the LoRA engine has to know of a model that ComfyUI runs."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from comfy.model_management import get_torch_device

from ...lora.composer import EXPAND_RANK, Composer
from ...lora.factors.branch import Branch
from ...lora.lora_set import LoraSet
from ..targets.appended_ranks import AppendedRanks
from ..targets.known_kinds import kind_of
from ..targets.nunchaku_offload import is_native, merges_nothing, offload_of
from ..targets.rank_shares import Share, share_out
from ..targets.rank_target import rank_targets
from ..targets.weight_kind import UnreadableWeightError, WeightKind
from .compute_place import FACTORS_PLACE, compute_place
from .factor_store import Stores
from .model_architecture import architecture_of, known_to_files
from .way import Need, NotApplied, Way

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

Mode = Literal["auto", "merge", "branch"]
_ABSENT = NotApplied("not in this model")
_NO_PATCHES = NotApplied("Nunchaku's loader takes no changes of norms")
# Patches of what is no parameter of a module without modules are taken, and never made.
_TOKEN = NotApplied("a token, which ComfyUI's patches do not reach")
_ROTATES = NotApplied(
    "OFT rotates the weight, which is exact only on weights that are not quantized"
)


class RunningModel:
    """What was found out about one model; kept, and reused by every stack, as long as it lives.

    Attributes:
        architecture: that of the model, with its own depth and widths.
        known: the architectures by which LoRA files for it are recognised.
        ranks: the layers that take LoRAs as more ranks of their own branch.
        homes: the fused layer that a module is a part of, where it is one of `ranks`.
        offload: Nunchaku's offload of blocks, if the model has it.
        merges_nothing: whether changes of plain weights would be ignored or refused.
        stores: the factors of the stacks that are in use, as ComfyUI manages them.
        uncalled: layers whose branch the last run has lost, since they were not called.
        composer: keeps the branches of the last stack, so that a change costs what has changed.
    """

    def __init__(self, model: ModelPatcher) -> None:
        self.architecture = architecture_of(model)
        self.known = known_to_files(self.architecture)
        # This object lives as long as the model, so it must not keep the model alive.
        self._model = weakref.ref(model.model)
        self._backup: Mapping[str, Any] = model.backup
        self._modules: dict[str, torch.nn.Module | None] = {}
        self._shares: dict[str, tuple[Branch, Share]] = {}
        self._ways: dict[tuple[str, Mode, Need], Way | NotApplied] = {}
        network: Any = model.model.diffusion_model
        self.uncalled: frozenset[str] = frozenset()
        self.offload = offload_of(network)
        self.merges_nothing = merges_nothing(model) or is_native(model)
        dynamic = hasattr(model, "is_dynamic") and model.is_dynamic()
        targets = {} if dynamic else rank_targets(self.architecture, self.module)
        self.ranks = AppendedRanks(network, targets, self.offload)
        fused = [path for path in targets if path in self.architecture.fusions]
        self.homes = {
            block.module: path for path in fused for block in self.architecture.fusions[path]
        }
        limits = [room for path in targets if (room := targets[path].room(targets[path].rank))]
        self.stores = Stores()
        self.composer = Composer(
            self.architecture,
            fused,
            device=FACTORS_PLACE,
            dtype=compute_dtype(model),
            expand_rank=max(EXPAND_RANK, *limits) if limits else EXPAND_RANK,
            weights=self._weight_for_products,
        )

    @classmethod
    def of(cls, model: ModelPatcher) -> RunningModel:
        """The one object for the model that a patcher and all its clones share.

        Raises:
            ValueError: the model is none that is supported.
        """
        found = RUNNING.get(model.model)
        if found is None:
            found = RUNNING[model.model] = cls(model)
        return found

    def module(self, path: str) -> torch.nn.Module | None:
        """The module at a canonical path, or None if the model has none there."""
        if path not in self._modules:
            network: Any = cast(Any, self._model()).diffusion_model
            try:
                self._modules[path] = network.get_submodule(path)
            except AttributeError:
                self._modules[path] = None
        return self._modules[path]

    def way(self, path: str, mode: Mode, need: Need) -> Way | NotApplied:
        """How a change of a module is applied, or why it is not."""
        key = (path, mode, need)
        if key not in self._ways:
            self._ways[key] = self._decide(path, mode, need)
        return self._ways[key]

    def _decide(self, path: str, mode: Mode, need: Need) -> Way | NotApplied:
        known = self.architecture.modules.get(path)
        if known is None:
            return _ABSENT
        if known.kind == "parameter":
            return _TOKEN
        linear, module = known.kind == "linear", self.module(path)
        if linear and self.takes_ranks(path):
            return _ROTATES if need is Need.EXACT_WEIGHT else Way.BRANCH
        if module is None:
            return _ABSENT
        if not linear:
            return _NO_PATCHES if self.merges_nothing else Way.MERGE
        return self._of_linear(path, kind_of(module), mode, need)

    def _of_linear(self, path: str, kind: WeightKind, mode: Mode, need: Need) -> Way | NotApplied:
        if need is Need.EXACT_WEIGHT and kind.rounds:
            return _ROTATES
        if mode == "merge" and not self.merges_nothing and kind.takes_merges(self.module(path)):
            return Way.MERGE
        refusal = kind.refusal(self.module(path))
        if refusal is not None:
            return NotApplied(refusal)
        if need is Need.WEIGHT:
            reason = kind.unreadable(self.module(path))
            if reason is not None:
                return NotApplied(_needs_weight(path, reason))
        return Way.BRANCH

    def takes_ranks(self, path: str) -> bool:
        """Whether a module is, or is a part of, a layer to which ranks can be appended."""
        return self.homes.get(path, path) in self.ranks.targets

    def shares(self, branches: Mapping[str, Branch]) -> dict[str, Share]:
        """How the branches of rank targets are shared out, by target."""
        found: dict[str, tuple[Branch, Share]] = {}
        for path in branches.keys() & self.ranks.targets.keys():
            known = self._shares.get(path)
            if known is None or known[0] is not branches[path]:
                known = branches[path], self._share_out(path, branches[path])
            found[path] = known
        self._shares = found
        return {path: found[path][1] for path in branches if path in found}

    def _share_out(self, path: str, branch: Branch) -> Share:
        target = self.ranks.targets[path]
        blocks = self.architecture.fusions.get(path)
        members = {path: (0, branch.shape[0])}
        if blocks is not None and len(target.modules) > 1:
            members = {block.module: (block.start, block.stop) for block in blocks}
        return share_out(
            branch, target, self.ranks.base_rank(path), members,
            only_ranks=target.kind.only_ranks(path, self.module),
            weights=self._weight_for_products, device=get_torch_device(),
        )  # fmt: skip

    def compose(self, stack: LoraSet) -> dict[str, Branch]:
        """The branches of a stack, in host memory; what depends on weights is computed where
        `compute_place` says.

        Raises:
            UnreadableWeightError: as `base_weight`.
            ValueError: as `Composer.compose`.
        """
        self.composer.compute = compute_place()
        return self.composer.compose(stack)

    def _weight_for_products(self, path: str) -> torch.Tensor:
        return self.base_weight(path, self.composer.compute)

    def base_weight(self, path: str, device: torch.device | None = None) -> torch.Tensor:
        """The weight `[out, in]` of a linear layer without any patches, as a plain tensor.

        It is worked out on `device`, where it lies unless given. Reading it back may take long, and
        nothing keeps it: ask once.

        Raises:
            UnreadableWeightError: the layer keeps its weight in a form that cannot be read back.
        """
        target = self.ranks.targets.get(path)
        if target is not None:
            return target.weight(self.ranks.base_rank(path), device)
        module: Any = self.module(path)
        stored = self.stored_weight(path)
        if device is not None:
            stored = stored.to(device)
        try:
            return kind_of(module).weight(module, stored)
        except UnreadableWeightError as error:
            raise UnreadableWeightError(_needs_weight(path, str(error))) from None

    def stored_weight(self, path: str) -> Any:
        """The weight parameter of a layer without any patches, in the form that it is kept in."""
        module: Any = self.module(path)
        # While patches are merged in, ComfyUI keeps the weight as it was.
        saved = self._backup.get(f"diffusion_model.{path}.weight")
        return module.weight if saved is None else saved.weight

    def base_parameter(self, path: str, parameter: str) -> torch.Tensor | None:
        """The ``"weight"`` or ``"bias"`` of a module without any patches, as a plain tensor; None
        once the model is gone, of which a merged model may still have patches.

        Raises:
            UnreadableWeightError: as `base_weight`.
        """
        if self._model() is None:
            return None
        if parameter == "weight":
            return self.base_weight(path)
        saved = self._backup.get(f"diffusion_model.{path}.bias")
        module: Any = self.module(path)
        return (module.bias if saved is None else saved.weight).detach()


def _needs_weight(path: str, reason: str) -> str:
    return f"DoRA needs the weight of {path}: {reason}"


RUNNING: weakref.WeakKeyDictionary[torch.nn.Module, RunningModel] = weakref.WeakKeyDictionary()


def compute_dtype(model: ModelPatcher) -> torch.dtype:
    """The dtype that the model's linear layers calculate in."""
    manual = getattr(model.model, "manual_cast_dtype", None)
    dtype = manual or model.model.get_dtype()
    return dtype if dtype in (torch.float16, torch.bfloat16) else torch.float32

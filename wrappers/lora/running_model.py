"""What the LoRA engine has to know of a model that ComfyUI runs."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from comfy.model_management import get_torch_device

from ...lora.compose import EXPAND_RANK, Composer
from ...lora.factors.branch import Branch
from ...lora.mapping.architecture import Architecture
from ...lora.mapping.models import qwen_image, standard, z_image
from ..targets.column_kinds import NUNCHAKU
from ..targets.column_targets import column_targets, dense_weight
from ..targets.columns import Columns
from ..targets.nunchaku import is_native, merges_nothing, offload_of
from ..targets.split import Share, share_out
from ..targets.unfused import fused_parent, stock_class

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

Mode = Literal["auto", "merge", "branch"]
DENSE_DTYPES = (torch.bfloat16, torch.float16, torch.float32)
MERGE, BRANCH, ABSENT = "merge", "branch", "not in this model"


class RunningModel:
    """What was found out about one model; kept, and reused by every stack, as long as it lives.

    Attributes:
        architecture: that of the model, with its own depth and widths.
        known: the architectures by which LoRA files for it are recognised.
        columns: the layers that take LoRAs as more ranks of their own branch.
        homes: the fused layer that a module is a part of, where it is one of `columns`.
        offload: Nunchaku's offload of blocks, if the model has it.
        merges_nothing: whether changes of plain weights would be ignored or refused.
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
        self._ways: dict[tuple[str, Mode, bool], str] = {}
        network: Any = model.model.diffusion_model
        self.offload = offload_of(network)
        self.merges_nothing = merges_nothing(model) or is_native(model)
        dynamic = hasattr(model, "is_dynamic") and model.is_dynamic()
        targets = {} if dynamic else column_targets(self.architecture, self.module)
        self.columns = Columns(network, targets, self.offload)
        fused = [path for path in targets if path in self.architecture.fusions]
        self.homes = {
            block.module: path for path in fused for block in self.architecture.fusions[path]
        }
        limits = [room for path in targets if (room := targets[path].room(targets[path].rank))]
        self.composer = Composer(
            self.architecture,
            fused,
            dtype=compute_dtype(model),
            expand_rank=max(EXPAND_RANK, *limits) if limits else EXPAND_RANK,
            weights=self.base_weight,
        )

    @classmethod
    def of(cls, model: ModelPatcher) -> RunningModel:
        """The one object for the model that a patcher and all its clones share.

        Raises:
            ValueError: the model is neither a Qwen-Image nor a Z-Image.
        """
        found = _running.get(model.model)
        if found is None:
            found = _running[model.model] = cls(model)
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

    def way(self, path: str, mode: Mode, needs_weight: bool) -> str:
        """How a change of a module is applied: `MERGE`, `BRANCH`, or why it is not.

        `needs_weight` tells whether the change has to know the weight (DoRA).
        """
        key = (path, mode, needs_weight)
        if key not in self._ways:
            self._ways[key] = self._decide(path, mode, needs_weight)
        return self._ways[key]

    def _decide(self, path: str, mode: Mode, needs_weight: bool) -> str:
        known = self.architecture.modules.get(path)
        if known is None:
            return ABSENT
        linear = known.kind == "linear"
        if linear and self.takes_ranks(path):
            return BRANCH
        module = None if known.kind == "parameter" else self.module(path)
        if module is None and known.kind != "parameter":
            return ABSENT
        if self.merges_nothing:
            return BRANCH if linear else "Nunchaku's loader takes no changes of norms and tokens"
        if module is None or not linear or mode == "merge":
            return MERGE
        if mode == "auto" and not is_quantized(module):
            return MERGE
        if not hasattr(module, "weight"):
            return f"a {type(module).__name__} takes no LoRA here"
        if needs_weight:
            try:
                self.base_weight(path)
            except ValueError as error:
                return str(error)
        return BRANCH

    def rotation_way(self, path: str, way: str) -> str:
        """The way of a change that rotates the weight (OFT, BOFT), given that of another change."""
        module = self.module(path)
        if way in (MERGE, BRANCH) and (self.takes_ranks(path) or is_quantized(cast(Any, module))):
            return "OFT rotates the weight, which is exact only on weights that are not quantized"
        return way

    def takes_ranks(self, path: str) -> bool:
        """Whether a module is, or is a part of, a layer to which ranks can be appended."""
        return self.homes.get(path, path) in self.columns.targets

    def shares(self, branches: Mapping[str, Branch]) -> dict[str, Share]:
        """How the branches of column targets are shared out, by target."""
        found: dict[str, tuple[Branch, Share]] = {}
        for path in branches.keys() & self.columns.targets.keys():
            known = self._shares.get(path)
            if known is None or known[0] is not branches[path]:
                known = branches[path], self._share_out(path, branches[path])
            found[path] = known
        self._shares = found
        return {path: found[path][1] for path in branches if path in found}

    def _share_out(self, path: str, branch: Branch) -> Share:
        target = self.columns.targets[path]
        blocks = self.architecture.fusions.get(path)
        members = {path: (0, branch.shape[0])}
        if blocks is not None and len(target.modules) > 1:
            members = {block.module: (block.start, block.stop) for block in blocks}
        parent = fused_parent(path) if target.kind is NUNCHAKU else None
        only_ranks = parent is not None and stock_class(self.module(parent)) is None
        return share_out(
            branch, target, self.columns.base_rank(path), members,
            only_ranks=only_ranks, weights=self.base_weight, device=get_torch_device(),
        )  # fmt: skip

    def base_weight(self, path: str) -> torch.Tensor:
        """The weight `[out, in]` of a linear layer without any patches, as a plain tensor.

        Raises:
            ValueError: the layer keeps its weight in a form that cannot be read back.
        """
        target = self.columns.targets.get(path)
        if target is not None:
            return dense_weight(target, self.columns.base_rank(path))
        module: Any = self.module(path)
        # While patches are merged in, ComfyUI keeps the weight as it was.
        saved = self._backup.get(f"diffusion_model.{path}.weight")
        weight = module.weight if saved is None else saved.weight
        if hasattr(weight, "dequantize") and type(weight.data) is not torch.Tensor:
            return weight.dequantize().float()
        scale = getattr(module, "scale_weight", None)
        if scale is not None:
            return weight.float() * scale.to(weight.device).float()
        if type(weight.data) is torch.Tensor and weight.dtype.is_floating_point:
            return weight.detach()
        raise ValueError(
            f"DoRA needs the weight of {path}, which a {type(weight).__name__} does not give back"
        )


_running: weakref.WeakKeyDictionary[torch.nn.Module, RunningModel] = weakref.WeakKeyDictionary()


def architecture_of(model: ModelPatcher) -> Architecture:
    """The architecture of a running model, with its own depth and widths.

    Raises:
        ValueError: the model is neither a Qwen-Image nor a Z-Image.
    """
    network: Any = model.model.diffusion_model
    if hasattr(network, "transformer_blocks") and hasattr(network, "txt_norm"):
        first = network.transformer_blocks[0]
        return _standard_if_same(
            qwen_image(
                len(network.transformer_blocks),
                network.img_in.out_features,
                first.attn.norm_q.weight.shape[0],
                network.txt_in.in_features,
                network.img_in.in_features,
            )
        )
    if hasattr(network, "layers") and hasattr(network, "context_refiner"):
        first = network.layers[0]
        return _standard_if_same(
            z_image(
                len(network.layers),
                len(network.noise_refiner),
                network.x_embedder.out_features,
                first.feed_forward.w2.in_features,
                first.attention.q_norm.weight.shape[0],
                network.cap_embedder[1].in_features,
                network.x_embedder.in_features,
            )
        )
    raise ValueError(
        f"This model ({type(model.model).__name__}) is neither a Qwen-Image nor a Z-Image; use"
        " ComfyUI's own Load LoRA for it."
    )


def known_to_files(model: Architecture) -> tuple[Architecture, ...]:
    """The architectures that LoRA files are recognised by.

    A file is mapped against the published depth, so that it is read the same whatever model it is
    put on, and once for all. Only a model of other widths, which has none published, is its own
    measure.
    """
    published = standard()
    for candidate in published:
        if candidate.name == model.name and _same_widths(candidate, model):
            return published
    return (model,)


def is_quantized(module: torch.nn.Module) -> bool:
    """Whether merging into the module's weight would round it: fp8, int8, 4-bit, GGUF and others.

    Anything but a plain tensor of 16 or 32 bits counts, so that unknown kinds are left alone.
    """
    weight = getattr(module, "weight", None)
    if not isinstance(weight, torch.Tensor) or weight.dtype not in DENSE_DTYPES:
        return True
    plain = type(weight.data) is torch.Tensor and type(weight) in (torch.Tensor, torch.nn.Parameter)
    return not plain or getattr(module, "scale_weight", None) is not None


def compute_dtype(model: ModelPatcher) -> torch.dtype:
    """The dtype that the model's linear layers calculate in."""
    manual = getattr(model.model, "manual_cast_dtype", None)
    dtype = manual or model.model.get_dtype()
    return dtype if dtype in (torch.float16, torch.bfloat16) else torch.float32


def _standard_if_same(model: Architecture) -> Architecture:
    """The published object itself where nothing differs, so that memos keyed by it are shared."""
    for candidate in standard():
        if candidate.name == model.name and candidate.modules == model.modules:
            return candidate
    return model


def _same_widths(one: Architecture, other: Architecture) -> bool:
    common = one.modules.keys() & other.modules.keys()
    return all(one.modules[path] == other.modules[path] for path in common)

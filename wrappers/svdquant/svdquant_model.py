"""SVDQuant checkpoints as stock ComfyUI models, without the nunchaku package."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import comfy.sd
import torch
from comfy import model_management, quant_ops
from comfy.model_patcher import ModelPatcher

from ...lora.files.open_file import stamp
from ...svdquant.errors import CheckpointError
from ...svdquant.reader import CheckpointFile
from ...svdquant.save import SOURCE, converted_path, source_mark, write_converted
from ...svdquant.state_dict_names import FORMATS
from .kernels import Kernels, kernels_for
from .svdquant_ops import NO_MERGE, cast_side_tensors, is_kitchen, operations

log = logging.getLogger(__name__)

# (layers read, layers in all); may raise to cancel.
Progress = Callable[[int, int], None]


def comfyui_loads_it() -> bool:
    """Whether this ComfyUI loads the converted form itself.

    None does yet. One that does has both formats among its own, under the names that the converted
    form is written with; then ComfyUI's operations take the place of ours.
    """
    return quant_ops.QUANT_ALGOS.keys() >= FORMATS


class SvdquantPatcher(ModelPatcher):
    """A patcher that says at once what cannot be done with 4-bit weights.

    ComfyUI would find out in the middle of a run, with an error about shapes or dtypes.
    """

    def add_patches(self, patches: dict[Any, Any], *args: Any, **kwargs: Any) -> Any:
        for key in patches:
            name = key if isinstance(key, str) else key[0]
            path, _, parameter = name.rpartition(".")
            if parameter == "weight" and is_kitchen(_parameter(self.model, path)):
                raise ValueError(NO_MERGE)
        return super().add_patches(patches, *args, **kwargs)

    def get_key_patches(self, *args: Any, **kwargs: Any) -> Any:
        raise ValueError(NO_MERGE)

    def state_dict_for_saving(self, *args: Any, **kwargs: Any) -> Any:
        raise ValueError(NO_MERGE)


def _empty(module: torch.nn.Module) -> bool:
    return hasattr(module, "in_features") and getattr(module, "weight", None) is None


def _parameter(model: torch.nn.Module, path: str) -> Any:
    try:
        return getattr(model.get_submodule(path), "weight", None)
    except AttributeError:
        return None


def load_svdquant(
    path: str | os.PathLike[str],
    keep_converted: bool = False,
    progress: Progress | None = None,
    disable_dynamic: bool = False,
) -> ModelPatcher:
    """Load an int4 checkpoint of Nunchaku, or a converted copy of one.

    Args:
        path: the checkpoint.
        keep_converted: write the converted form beside it, and read that the next time.
        progress: called for each layer.
        disable_dynamic: as ComfyUI calls it to load the model once more; these never are dynamic.

    Raises:
        CheckpointError: the file cannot be read, or is no supported checkpoint.
    """
    mark = source_mark(stamp(path)) if Path(path).is_file() else ""
    copy = converted_path(path)
    source = copy if is_copy_of(copy, mark) else path
    with CheckpointFile(source) as file:
        state_dict = _read(file, progress)
        is_copy = file.converted
    if keep_converted and not is_copy:
        _keep(copy, state_dict, mark)
    model = _build(path, state_dict)
    model.cached_patcher_init = (load_svdquant, (path, keep_converted, None))
    return model


def is_copy_of(copy: Path, mark: str) -> bool:
    """Whether a file is the converted copy of the checkpoint with this `source_mark`."""
    if not copy.is_file():
        return False
    try:
        with CheckpointFile(copy) as file:
            return file.converted and file.metadata.get(SOURCE) == mark
    except CheckpointError as error:
        log.warning("%s; it is ignored.", error)
        return False


def _read(file: CheckpointFile, progress: Progress | None) -> dict[str, torch.Tensor]:
    state_dict: dict[str, torch.Tensor] = {}
    for done, piece in enumerate(file.pieces(), 1):
        state_dict.update(piece)
        if progress is not None:
            progress(min(done, file.count), file.count)
    return state_dict


def _keep(copy: Path, state_dict: dict[str, torch.Tensor], mark: str) -> None:
    try:
        write_converted(copy, state_dict, {"format": "pt", SOURCE: mark})
    except OSError as error:
        # The model is there; only the next load will be slower.
        log.warning("The converted copy %s cannot be written (%s).", copy, error.strerror)


def _build(path: str | os.PathLike[str], state_dict: dict[str, torch.Tensor]) -> ModelPatcher:
    dtype = next(t.dtype for name, t in state_dict.items() if name.endswith(".weight_scale"))
    device = model_management.get_torch_device()
    compute = model_management.unet_manual_cast(dtype, device, [torch.bfloat16, torch.float32])
    options: dict[str, Any] = {"dtype": dtype}
    if not comfyui_loads_it():
        options["custom_operations"] = operations(compute or dtype)
    loaded = comfy.sd.load_diffusion_model_state_dict(state_dict, options, disable_dynamic=True)
    if loaded is None:
        raise CheckpointError(path, "ComfyUI does not know a model of these sizes")
    empty = [
        path for path, module in loaded.model.diffusion_model.named_modules() if _empty(module)
    ]
    if empty:
        raise CheckpointError(path, f"ComfyUI's model has a layer {empty[0]}, and the file has not")
    inference = loaded.model.manual_cast_dtype or loaded.model.get_dtype()
    cast_side_tensors(loaded.model, inference)
    kernels = kernels_for(loaded.load_device, inference)
    if kernels is Kernels.EAGER:
        log.warning("%s runs with %s.", Path(path).name, kernels.value)
    return SvdquantPatcher(loaded.model, loaded.load_device, loaded.offload_device)

"""The small models of `devkit/doubles/`, in a server."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import folder_paths
import torch

import nodes

_TINY = Path(__file__).parents[3] / "doubles" / "tiny_models.py"


def pack_module(name: str) -> ModuleType:
    """A module of the pack that this server runs, whose package has the name of a path."""

    known: Any = nodes
    registry = known.NODE_CLASS_MAPPINGS["VivaceLoraStack"].__module__
    return importlib.import_module(f"{registry.rpartition('.')[0]}.{name}")


def _tiny() -> Any:
    name = f"{__package__}.tiny_models"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, _TINY)
        assert spec is not None  # noqa: S101 - a file of this name can be imported
        assert spec.loader is not None  # noqa: S101
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def _quantized(family: str) -> Any:
    """As `load_svdquant` builds a model, but of sizes that ComfyUI does not recognize by itself."""
    tiny = _tiny()
    operations = pack_module("wrappers.svdquant.svdquant_ops")
    path = folder_paths.get_full_path_or_raise("soak_svdquant", f"soak-{family}.safetensors")
    state_dict: dict[str, torch.Tensor] = {}
    with pack_module("svdquant.reader").CheckpointFile(path) as file:
        for piece in file.pieces():
            state_dict.update(piece)
    model = tiny.unloaded(family, torch.float32, operations.operations(torch.float32))
    model.diffusion_model.load_state_dict(state_dict)
    operations.cast_side_tensors(model, torch.float32)
    patcher = pack_module("wrappers.svdquant.svdquant_model").SvdquantPatcher
    return patcher(model, load_device=tiny.CPU, offload_device=tiny.CPU)


SMALL: dict[str, Callable[[], Any]] = {
    "Qwen-Image": lambda: _tiny().qwen_image("bf16"),
    "Qwen-Image fp8": lambda: _tiny().qwen_image("fp8 cast"),
    "Qwen-Image SVDQuant": lambda: _quantized("qwen_image"),
    "Z-Image": lambda: _tiny().z_image("fp32"),
    "Z-Image SVDQuant": lambda: _quantized("z_image"),
}


def load(name: str) -> Any:
    """A new `ModelPatcher`, always with the same weights."""
    return SMALL[name]()

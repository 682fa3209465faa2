"""A vision tower loaded from a model's folder without its language model."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from ...hub.model_check import CheckedModel, check_model
from ...hub.model_folders import ModelFolderError
from ..loading.load_options import DTYPES, LoadError
from .tower_check import check_tower
from .vision_tower import VisionTower, find_vision_tower

_FIRST_LAYER = "patch_embed.proj.weight"


def load_tower(path: Path, dtype: str = "float32") -> tuple[CheckedModel, VisionTower]:
    """Check a folder and load its vision tower to the CPU; no other weights are read.

    Raises:
        ModelFolderError: the folder cannot be used, as `check_model` says, or the model takes no
            images.
        LoadError: transformers refuses the config, or the weights are quantized or do not fit.
        UnsupportedTowerError: the vision tower is of an unknown construction.
    """
    checked = check_model(path)
    if not checked.folder.has_vision:
        remedy = "Choose a Qwen-VL model"
        raise ModelFolderError(path, "the model takes no images", remedy)
    module = _untrained(path)
    weights = _tower_weights(checked)
    check_whole(weights.items())
    try:
        # Buffers, such as rotary frequencies, stay in full precision, as `from_pretrained` does it.
        module.load_state_dict({n: w.to(DTYPES[dtype]) for n, w in weights.items()}, assign=True)
    except RuntimeError as error:
        problem = " ".join(str(error).split())  # of several lines
        raise LoadError(
            f"{path}: the weights do not fit the vision tower ({problem}). Download the model again"
        ) from None
    module.eval().requires_grad_(False)
    check_tower(module)
    return checked, VisionTower(module, "off")


def check_whole(weights: Iterable[tuple[str, torch.Tensor]]) -> None:
    """Quantized towers see less; where names have changed, that must not go unnoticed.

    Raises:
        LoadError: a weight is not at least a half-precision float.
    """
    for name, weight in weights:
        if not weight.is_floating_point() or weight.itemsize < 2:
            raise LoadError(
                f"The vision tower is quantized ({name} is {weight.dtype}). Choose quantization "
                "none, or a model with a whole vision tower"
            )


def _untrained(path: Path) -> torch.nn.Module:
    """A tower of the model's class and size. The model around it takes no memory."""
    from transformers import AutoConfig, AutoModelForImageTextToText

    try:
        config = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
        with torch.device("meta"):
            model = AutoModelForImageTextToText.from_config(config)
    except (ImportError, OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise LoadError(f"{path}: transformers cannot make the model ({error})") from error
    tower: Any = find_vision_tower(model)
    return type(tower)(tower.config)


def _tower_weights(checked: CheckedModel) -> dict[str, torch.Tensor]:
    """The tower's weights by their names in the tower, whatever it is called in the files."""
    from safetensors import safe_open

    weights: dict[str, torch.Tensor] = {}
    prefix = _prefix(checked)
    for file in checked.weights:
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118  (not a mapping)
                if name.startswith(prefix):
                    weights[name.removeprefix(prefix)] = opened.get_tensor(name)
    return weights


def _prefix(checked: CheckedModel) -> str:
    from safetensors import safe_open

    found: list[str] = []
    for file in checked.weights:
        with safe_open(file, framework="pt") as opened:
            found += [name for name in opened.keys() if name.endswith(_FIRST_LAYER)]  # noqa: SIM118
    if len(found) != 1:
        raise LoadError(
            f"{checked.folder.path}: {len(found)} tensors are called {_FIRST_LAYER}, where a "
            "vision tower has one. Download the model again, or choose a Qwen-VL model"
        )
    return found[0].removesuffix(_FIRST_LAYER)

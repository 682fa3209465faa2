"""Small vision towers and processors of the real transformers classes, with random weights."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from vivace.vlm.vision.compiled_encoder import CompiledGraphs
from vivace.vlm.vision.pixels import PixelFormat
from vivace.vlm.vision.vision_tower import VisionTower

FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5")

_COMMON = {"depth": 4, "num_heads": 4, "spatial_merge_size": 2, "temporal_patch_size": 2}
_NARROW = {"hidden_size": 64, "intermediate_size": 96, "out_hidden_size": 64}
_DEEPSTACK = {"num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1, 2]}
# Tower class, configuration class, and what differs from the common configuration.
_TOWERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "qwen2_vl": (
        "Qwen2VisionTransformerPretrainedModel",
        "Qwen2VLVisionConfig",
        {"embed_dim": 64, "hidden_size": 64, "patch_size": 14},
    ),
    "qwen2_5_vl": (
        "Qwen2_5_VisionTransformerPretrainedModel",
        "Qwen2_5_VLVisionConfig",
        {**_NARROW, "patch_size": 14, "window_size": 112, "fullatt_block_indexes": [1, 3]},
    ),
    "qwen3_vl": (
        "Qwen3VLVisionModel",
        "Qwen3VLVisionConfig",
        {**_NARROW, **_DEEPSTACK, "patch_size": 16},
    ),
    "qwen3_vl_moe": (
        "Qwen3VLMoeVisionModel",
        "Qwen3VLMoeVisionConfig",
        {**_NARROW, **_DEEPSTACK, "patch_size": 16},
    ),
    "qwen3_5": (
        "Qwen3_5VisionModel",
        "Qwen3_5VisionConfig",
        {**_NARROW, "num_position_embeddings": 64, "patch_size": 16},
    ),
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small tensors gain nothing from threads, and results shall not depend on their number."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def build_tower(family: str, seed: int = 0) -> torch.nn.Module:
    """Build a vision tower of a family, or skip if the installed transformers has none."""
    tower, config, settings = _TOWERS[family]
    package = f"transformers.models.{family}"
    try:
        modeling = importlib.import_module(f"{package}.modeling_{family}")
    except ModuleNotFoundError:
        pytest.skip(f"this transformers has no {family}")
    configuration = importlib.import_module(f"{package}.configuration_{family}")
    torch.manual_seed(seed)
    module = getattr(modeling, tower)(getattr(configuration, config)(**_COMMON, **settings))
    with torch.no_grad():
        for parameter in module.parameters():  # biases and norms that do something
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return module.eval()


@pytest.fixture
def make_tower() -> Callable[..., torch.nn.Module]:
    return build_tower


@pytest.fixture(params=FAMILIES)
def tower_module(request: pytest.FixtureRequest) -> torch.nn.Module:
    """A vision tower of each family in turn."""
    return build_tower(request.param)


def format_of(processor: Any) -> PixelFormat:
    """What a processor of transformers makes of pixels."""
    mean, std = map(tuple, (processor.image_mean, processor.image_std))
    patch, merge = processor.patch_size, processor.merge_size
    return PixelFormat(patch, merge, processor.temporal_patch_size, mean, std)


@pytest.fixture
def pixel_format() -> PixelFormat:
    """The pixels of Qwen2.5-VL."""
    return format_of(build_processor())


@pytest.fixture
def make_format() -> Callable[[Any], PixelFormat]:
    return format_of


@pytest.fixture
def make_processor() -> Callable[..., Any]:
    return build_processor


def build_processor(**settings: Any) -> Any:
    """Build the image processor of Qwen2-VL that works on tensors."""
    import transformers

    # Version 5 has dropped the suffix.
    fast = int(transformers.__version__.split(".")[0]) < 5
    return getattr(transformers, "Qwen2VLImageProcessor" + "Fast" * fast)(**settings)


@pytest.fixture
def eager_tower() -> VisionTower:
    """Qwen2.5-VL's tower, never compiled."""
    return VisionTower(build_tower("qwen2_5_vl"), "off", graphs=CompiledGraphs())

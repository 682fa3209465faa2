"""Our vision encoder beside the towers' own forward."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from vivace.vlm.vision.compiled_encoder import CompiledGraphs
from vivace.vlm.vision.grid_tables import grid_tables
from vivace.vlm.vision.tower_check import check_tower, stock_features
from vivace.vlm.vision.vision_tower import (
    UnsupportedTowerError,
    VisionTower,
    find_vision_tower,
    geometry_of,
)

# Windows are 8 patches wide: less than one, exactly one, several with and without a rest.
GRIDS = [(1, 2, 2), (1, 4, 6), (1, 8, 8), (1, 16, 24), (1, 10, 22), (3, 6, 18), (2, 16, 8)]


def pixels_of(tower: VisionTower, *grids: tuple[int, int, int], seed: int = 0) -> torch.Tensor:
    geometry = tower.geometry
    values = 3 * geometry.temporal_patch_size * geometry.patch_size**2
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(sum(map(math.prod, grids)), values, generator=generator)


def stock(tower: VisionTower, pixels: torch.Tensor, *grids: tuple[int, int, int]) -> torch.Tensor:
    return stock_features(tower.module, pixels, torch.tensor(grids))


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_one_image(tower_module: torch.nn.Module, grid: tuple[int, int, int]) -> None:
    tower = VisionTower(tower_module, "off")
    pixels = pixels_of(tower, grid)
    found = tower.encode(pixels, grid)
    assert found.shape[1:] == (1, math.prod(grid) // 4, 64)
    close(found[:, 0], stock(tower, pixels, grid))


def test_images_of_equal_and_of_mixed_sizes(tower_module: torch.nn.Module) -> None:
    tower = VisionTower(tower_module, "off")
    grids = [(1, 10, 6), (1, 10, 6), (2, 10, 6), (1, 6, 18), (1, 10, 6)]
    parts = [pixels_of(tower, grid, seed=seed) for seed, grid in enumerate(grids)]
    expected = stock(tower, torch.cat(parts), *grids)
    found = [tower.encode(part, grid)[:, 0] for part, grid in zip(parts, grids, strict=True)]
    close(torch.cat(found, dim=1), expected)
    together = tower.encode(torch.cat([parts[0], parts[1], parts[4]]), (1, 10, 6), images=3)
    close(together, torch.stack([found[0], found[1], found[4]], dim=1))


def test_clips_encoded_together(tower_module: torch.nn.Module) -> None:
    tower = VisionTower(tower_module, "off")
    grid = (3, 4, 10)
    pixels = pixels_of(tower, grid, grid)
    expected = stock(tower, pixels, grid, grid)
    found = tower.encode(pixels, grid, images=2)
    assert found.shape[1:3] == (2, 30)
    close(found.flatten(1, 2), expected)


def test_a_small_budget_changes_calls_and_no_features(tower_module: torch.nn.Module) -> None:
    grid = (7, 4, 6)
    whole = VisionTower(tower_module, "off")
    pieces = VisionTower(tower_module, "off", patch_budget=3 * 24)
    pixels = pixels_of(whole, grid)
    close(pieces.encode(pixels, grid), whole.encode(pixels, grid))
    assert (whole.calls, pieces.calls) == (1, 3)


def test_half_precision(tower_module: torch.nn.Module) -> None:
    tower = VisionTower(tower_module.bfloat16(), "off")
    assert tower.dtype == torch.bfloat16
    found = tower.encode(pixels_of(tower, (1, 10, 6)), (1, 10, 6))
    assert found.dtype == torch.bfloat16
    assert check_tower(tower_module) < 0.05


def test_no_gradients_are_recorded(eager_tower: VisionTower) -> None:
    assert not eager_tower.encode(pixels_of(eager_tower, (1, 4, 4)), (1, 4, 4)).requires_grad


def test_tables_are_computed_once_per_grid(
    eager_tower: VisionTower, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vivace.vlm.vision import vision_tower

    computed: list[tuple[int, int]] = []

    def count(rows: int, columns: int, *arguments: Any, **options: Any) -> Any:
        computed.append((rows, columns))
        return grid_tables(rows, columns, *arguments, **options)

    monkeypatch.setattr(vision_tower, "grid_tables", count)
    for grid in [(1, 4, 6), (2, 4, 6), (1, 6, 4), (1, 4, 6)]:
        eager_tower.encode(pixels_of(eager_tower, grid), grid)
    assert computed == [(4, 6), (6, 4)]


def test_every_patch_is_in_one_window() -> None:
    tables = grid_tables(10, 22, 2, torch.ones(4), window=4)
    assert tables.order is not None
    assert tables.restore is not None
    assert tables.order.sort().values.tolist() == list(range(55))
    assert tables.order[tables.restore].tolist() == list(range(55))
    assert sum(number * length for number, length in tables.windows) == 220
    # 2 x 3 windows of 4 x 4 tokens, cut off after 5 rows and 11 columns; 4 patches a token.
    assert sorted(tables.windows) == [(1, 12), (1, 48), (2, 16), (2, 64)]


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_the_check_passes_and_notices(
    make_tower: Callable[..., torch.nn.Module], family: str
) -> None:
    module: Any = make_tower(family)
    assert check_tower(module) < 1e-5
    module.blocks[2].attn.register_forward_hook(lambda *arguments: arguments[-1] * 1.5)
    with pytest.raises(UnsupportedTowerError, match="differ by"):
        check_tower(module)


def test_the_tower_is_found_in_the_whole_model() -> None:
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    config = Qwen3VLConfig(
        text_config={
            "vocab_size": 64,
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 16,
            "rope_scaling": {"rope_type": "default", "mrope_section": [4, 2, 2]},
        },
        vision_config={"depth": 1, "hidden_size": 32, "num_heads": 2, "out_hidden_size": 32},
    )
    model: Any = Qwen3VLForConditionalGeneration(config)
    assert find_vision_tower(model) is model.model.visual


def test_other_models_are_refused(make_tower: Callable[..., torch.nn.Module]) -> None:
    with pytest.raises(UnsupportedTowerError, match="no Qwen-VL vision tower"):
        find_vision_tower(torch.nn.Linear(2, 2))
    module: Any = make_tower("qwen3_vl")
    module.interpolation_mode = "bicubic"
    with pytest.raises(UnsupportedTowerError, match="unknown construction"):
        geometry_of(module)
    module = make_tower("qwen2_vl")
    del module.blocks[1].attn.qkv
    with pytest.raises(UnsupportedTowerError, match="qkv"):
        geometry_of(module)


def test_unknown_compile_mode(make_tower: Callable[..., torch.nn.Module]) -> None:
    with pytest.raises(ValueError, match="'maybe' is none of auto, on, off"):
        VisionTower(make_tower("qwen2_vl"), "maybe", graphs=CompiledGraphs())

"""One graph per grid, without breaks, that really runs; and what happens when compiling fails."""

from __future__ import annotations

import gc
import shutil
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from vivace.vlm.vision.compiled_encoder import CompiledGraphs
from vivace.vlm.vision.encoder_graph import encode_frames
from vivace.vlm.vision.grid_tables import grid_tables
from vivace.vlm.vision.vision_tower import VisionTower, geometry_of

GRID = (1, 10, 6)


class CountingBackend:
    """Counts the graphs that torch.compile makes, and how often each runs."""

    def __init__(self) -> None:
        self.runs: list[int] = []

    def __call__(self, graph: torch.fx.GraphModule, inputs: Any) -> Callable[..., Any]:
        number = len(self.runs)
        self.runs.append(0)

        def run(*arguments: Any) -> Any:
            self.runs[number] += 1
            return graph(*arguments)

        return run


def pixels_of(tower: VisionTower, grid: tuple[int, int, int], images: int = 1) -> torch.Tensor:
    geometry = tower.geometry
    time, rows, columns = grid
    values = 3 * geometry.temporal_patch_size * geometry.patch_size**2
    generator = torch.Generator().manual_seed(0)
    return torch.randn(images * time * rows * columns, values, generator=generator)


@pytest.fixture
def backend() -> CountingBackend:
    torch._dynamo.reset()
    return CountingBackend()


def test_there_are_no_graph_breaks(tower_module: torch.nn.Module) -> None:
    module: Any = tower_module
    torch._dynamo.reset()
    geometry = geometry_of(module)
    tables = grid_tables(
        10,
        6,
        2,
        module.rotary_pos_emb.inv_freq,
        position_side=geometry.position_side,
        window=geometry.window,
    )
    pixels = pixels_of(VisionTower(module, "off"), GRID)
    with torch.no_grad():
        ours = torch._dynamo.explain(encode_frames)(module, geometry, pixels[None], tables)
        stock = torch._dynamo.explain(module)(pixels, torch.tensor([GRID]))
    assert (ours.graph_count, ours.graph_break_count) == (1, 0)
    assert stock.graph_break_count > 0


def test_one_graph_per_grid_runs_every_time(
    tower_module: torch.nn.Module, backend: CountingBackend
) -> None:
    eager = VisionTower(tower_module, "off")
    tower = VisionTower(tower_module, "on", graphs=CompiledGraphs(backend=backend))
    for grid in [GRID, (1, 4, 18), GRID, GRID]:
        pixels = pixels_of(tower, grid)
        found = tower.encode(pixels, grid)
        torch.testing.assert_close(found, eager.encode(pixels, grid), rtol=1e-4, atol=1e-5)
    assert backend.runs == [1 + 3, 1 + 1]  # the first of each is the warm-up
    assert tower.calls == tower.compiled_calls == 4
    assert tower.eager_reason is None
    assert tower.warmup_seconds > 0


def test_batches_and_clips_share_few_graphs(
    make_tower: Callable[..., torch.nn.Module], backend: CountingBackend
) -> None:
    module = make_tower("qwen2_5_vl")
    tower = VisionTower(module, "on", graphs=CompiledGraphs(backend=backend))
    eager = VisionTower(module, "off")
    for images, time in [(7, 1), (1, 6), (3, 1), (2, 2), (5, 1)]:
        grid = (time, 4, 6)
        pixels = pixels_of(tower, grid, images)
        found = tower.encode(pixels, grid, images)
        torch.testing.assert_close(found, eager.encode(pixels, grid, images), rtol=1e-4, atol=1e-5)
    assert len(backend.runs) == 3  # of 4, 2 and 1 frames


def test_the_number_of_graphs_is_bounded(
    make_tower: Callable[..., torch.nn.Module], backend: CountingBackend
) -> None:
    graphs = CompiledGraphs(limit=2, backend=backend)
    tower = VisionTower(make_tower("qwen2_vl"), "on", graphs=graphs)
    for columns in (2, 4, 6, 8):
        tower.encode(pixels_of(tower, (1, 4, columns)), (1, 4, columns))
    assert len(graphs.graphs) == len(backend.runs) == 2
    assert (tower.calls, tower.compiled_calls) == (4, 2)
    assert tower.eager_reason == "2 image sizes are compiled already"
    tower.encode(pixels_of(tower, (1, 4, 2)), (1, 4, 2))
    assert tower.compiled_calls == 3
    other = VisionTower(make_tower("qwen3_vl"), "on", graphs=graphs)
    other.encode(pixels_of(other, (1, 4, 4)), (1, 4, 4))
    assert other.compiled_calls == 1
    assert len(graphs.graphs) == 2


def test_many_sizes_do_not_exhaust_the_compiler(
    make_tower: Callable[..., torch.nn.Module], backend: CountingBackend
) -> None:
    """`torch.compile` gives up a function after 8 variants; ours are functions of their own."""
    module: Any = make_tower("qwen2_vl")
    module.blocks = module.blocks[:1]
    tower = VisionTower(module, "on", graphs=CompiledGraphs(limit=12, backend=backend))
    for columns in range(2, 26, 2):
        tower.encode(pixels_of(tower, (1, 2, columns)), (1, 2, columns))
    assert tower.eager_reason is None
    assert backend.runs == [2] * 12


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_graphs_outlive_the_model_and_do_not_hold_it(
    make_tower: Callable[..., torch.nn.Module], backend: CountingBackend, family: str
) -> None:
    graphs = CompiledGraphs(backend=backend)
    tower = VisionTower(make_tower(family), "on", graphs=graphs)
    pixels = pixels_of(tower, GRID)
    tower.encode(pixels, GRID)
    weights = weakref.ref(tower.module.get_parameter("blocks.0.attn.qkv.weight"))
    module = weakref.ref(tower.module)
    del tower
    gc.collect()
    assert module() is None
    assert weights() is None
    tower = VisionTower(make_tower(family, seed=1), "on", graphs=graphs)
    found = tower.encode(pixels, GRID)
    assert backend.runs == [3]
    expected = VisionTower(tower.module, "off").encode(pixels, GRID)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_changed_weights_are_seen(
    make_tower: Callable[..., torch.nn.Module], backend: CountingBackend
) -> None:
    module = make_tower("qwen3_vl")
    tower = VisionTower(module, "on", graphs=CompiledGraphs(backend=backend))
    pixels = pixels_of(tower, GRID)
    before = tower.encode(pixels, GRID)
    with torch.no_grad():
        module.get_parameter("blocks.1.mlp.linear_fc1.weight").mul_(2)
        module.get_parameter("pos_embed.weight").add_(1)
    after = tower.encode(pixels, GRID)
    assert not torch.allclose(before, after)
    expected = VisionTower(module, "off").encode(pixels, GRID)
    torch.testing.assert_close(after, expected, rtol=1e-4, atol=1e-5)
    assert backend.runs == [3]


def test_a_failing_compiler_is_no_error(make_tower: Callable[..., torch.nn.Module]) -> None:
    attempts = 0

    def broken(graph: torch.fx.GraphModule, inputs: Any) -> Callable[..., Any]:
        nonlocal attempts
        attempts += 1
        raise RuntimeError("no compiler here\nwith a long explanation")

    torch._dynamo.reset()
    module = make_tower("qwen3_vl")
    tower = VisionTower(module, "on", graphs=CompiledGraphs(backend=broken))
    for grid in [GRID, GRID, (1, 4, 4)]:
        pixels = pixels_of(tower, grid)
        expected = VisionTower(module, "off").encode(pixels, grid)
        assert torch.equal(tower.encode(pixels, grid), expected)
    assert attempts == 1
    assert tower.compiled_calls == 0
    assert tower.eager_reason == "compiling failed (RuntimeError: no compiler here)"


def test_a_graph_that_fails_later_is_given_up(
    make_tower: Callable[..., torch.nn.Module],
) -> None:
    def flaky(graph: torch.fx.GraphModule, inputs: Any) -> Callable[..., Any]:
        left = [2]

        def run(*arguments: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise RuntimeError("out of luck")
            return graph(*arguments)

        return run

    torch._dynamo.reset()
    graphs = CompiledGraphs(backend=flaky)
    tower = VisionTower(make_tower("qwen2_vl"), "on", graphs=graphs)
    pixels = pixels_of(tower, GRID)
    first = tower.encode(pixels, GRID)
    second = tower.encode(pixels, GRID)
    torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-5)
    assert (tower.calls, tower.compiled_calls) == (2, 1)
    assert tower.eager_reason == "compiling failed (RuntimeError: out of luck)"
    assert not graphs.graphs
    graphs.clear()
    tower.encode(pixels, GRID)
    assert tower.compiled_calls == 2


def test_auto_and_off_compile_nothing_here(
    make_tower: Callable[..., torch.nn.Module], backend: CountingBackend
) -> None:
    module = make_tower("qwen2_vl")
    for mode, reason in [("auto", "not worth it on the device cpu"), ("off", "switched off")]:
        tower = VisionTower(module, mode, graphs=CompiledGraphs(backend=backend))
        for _ in range(3):
            tower.encode(pixels_of(tower, GRID), GRID)
        assert tower.eager_reason == reason
    assert backend.runs == []


@pytest.mark.skipif(
    not any(map(shutil.which, ("g++", "clang++", "cl"))), reason="needs a C++ compiler"
)
@pytest.mark.parametrize("family", ["qwen2_5_vl", pytest.param("qwen3_vl", marks=pytest.mark.long)])
def test_the_real_compiler(make_tower: Callable[..., torch.nn.Module], family: str) -> None:
    torch._dynamo.reset()
    module = make_tower(family)
    graphs = CompiledGraphs()
    tower = VisionTower(module, "on", graphs=graphs)
    pixels = pixels_of(tower, GRID)
    for _ in range(2):
        found = tower.encode(pixels, GRID)
        expected = VisionTower(module, "off").encode(pixels, GRID)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert tower.eager_reason is None
    assert [graph.runs for graph in graphs.graphs.values()] == [2]


def test_in_the_inference_mode_that_comfyui_runs_nodes_in(
    make_tower: Callable[..., torch.nn.Module], backend: CountingBackend
) -> None:
    module = make_tower("qwen3_vl")
    tower = VisionTower(module, "on", graphs=CompiledGraphs(backend=backend))
    pixels = pixels_of(tower, GRID)
    with torch.inference_mode():
        inside = tower.encode(pixels, GRID)
    outside = tower.encode(pixels, GRID)
    expected = VisionTower(module, "off").encode(pixels, GRID)
    torch.testing.assert_close(inside, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(outside, expected, rtol=1e-4, atol=1e-5)
    assert tower.compiled_calls == 2

"""Running the vision tower of any Qwen-VL model of transformers, compiled where that pays.

A tower is known by what it consists of, not by the name of its class. Qwen2-VL, Qwen2.5-VL (with
windows), Qwen3-VL (with a position grid and deepstack; dense or mixture of experts) and Qwen3.5
consist of the same parts.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from ..loading.graph_compiler import COMPILE_MODES
from .compiled_encoder import GRAPHS, CompiledGraphs, GraphKey
from .encoder_graph import TowerGeometry, encode_frames
from .grid_tables import GridTables, grid_tables

# Patches per run of the encoder: eight images of `ultra` at 14 pixels a patch.
PATCH_BUDGET = 8 * 4096
_TABLES_KEPT = 32


class UnsupportedTowerError(ValueError):
    """The model has no vision tower, or one of another construction."""


@dataclass
class _Grid:
    tables: GridTables
    uses: int = 0


class VisionTower:
    """A vision tower, its tables per grid, and its compiled graphs.

    Args:
        module: the tower itself, as `find_vision_tower` returns it.
        compile_mode: ``"on"``, ``"off"``, or ``"auto"``: on CUDA, and from the second image of a
            size on, as one image is encoded sooner than a graph is compiled.
        patch_budget: patches to encode in one run; a single frame may exceed it.
        graphs: where compiled graphs are kept.

    Attributes:
        calls: runs of the encoder; `compiled_calls` of them by compiled graphs.
        warmup_seconds: what compiling took, of `encode`'s time.
        eager_reason: why the last run was not compiled; None if it was.

    Raises:
        UnsupportedTowerError: the tower consists of other parts than those known.
        ValueError: unknown compile mode.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        compile_mode: str = "auto",
        patch_budget: int = PATCH_BUDGET,
        graphs: CompiledGraphs = GRAPHS,
    ) -> None:
        if compile_mode not in COMPILE_MODES:
            raise ValueError(f"compile mode {compile_mode!r} is none of {', '.join(COMPILE_MODES)}")
        self.module = module
        self.geometry = geometry_of(module)
        self.compile_mode = compile_mode
        self.patch_budget = patch_budget
        self.calls = 0
        self.compiled_calls = 0
        self.warmup_seconds = 0.0
        self.eager_reason: str | None = None
        self._graphs = graphs
        self._grids: OrderedDict[tuple[int, int, torch.device], _Grid] = OrderedDict()

    @property
    def dtype(self) -> torch.dtype:
        """The dtype the tower takes pixels in, and returns features in."""
        return self._projection.dtype

    @property
    def device(self) -> torch.device:
        return self._projection.device

    @property
    def _projection(self) -> torch.Tensor:
        module: Any = self.module
        return module.patch_embed.proj.weight

    @torch.no_grad()
    def encode(
        self, pixel_values: torch.Tensor, grid_thw: tuple[int, int, int], images: int = 1
    ) -> torch.Tensor:
        """Encode images, or video clips, of one grid.

        Args:
            pixel_values: `[images * t * h * w, patch values]`, in the layout of the processors.
            grid_thw: of each image.

        Returns:
            `[1 + deepstack layers, images, tokens, dim]` on the tower's device, in its dtype.
        """
        time, rows, columns = grid_thw
        frames, patches = images * time, rows * columns
        pixels = pixel_values.to(self.device, self.dtype).view(frames, patches, -1)
        grid = self._grid(rows, columns)
        grid.uses += 1
        may_compile = self._may_compile(grid)
        pieces = list(_pieces(frames, max(1, self.patch_budget // patches), may_compile))
        parts = [
            self._run(part, rows, columns, grid.tables, may_compile)
            for part in pixels.split(pieces)
        ]
        packed = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        return packed.reshape(len(packed), images, -1, packed.shape[-1])

    def tables(self, rows: int, columns: int) -> GridTables:
        """The tables of a grid of `rows` x `columns` patches, on the tower's device."""
        return self._grid(rows, columns).tables

    def _run(
        self,
        pixels: torch.Tensor,
        rows: int,
        columns: int,
        tables: GridTables,
        may_compile: bool,
    ) -> torch.Tensor:
        self.calls += 1
        if may_compile:
            key = GraphKey(self._kind(), len(pixels), rows, columns)
            compiled_before = key in self._graphs
            packed = self._graphs.run(key, self.module, self.geometry, pixels, tables)
            self.eager_reason = self._graphs.refusal(key) if packed is None else None
            if packed is not None:
                self.compiled_calls += 1
                if not compiled_before:
                    self.warmup_seconds += self._graphs.graphs[key].warmup_seconds
                return packed
        return encode_frames(self.module, self.geometry, pixels, tables)

    def _may_compile(self, grid: _Grid) -> bool:
        if self.compile_mode == "off":
            self.eager_reason = "switched off"
        elif self.compile_mode == "auto" and self.device.type != "cuda":
            self.eager_reason = f"not worth it on the device {self.device.type}"
        elif self.compile_mode == "auto" and grid.uses < 2:
            self.eager_reason = "the first image of its size"
        else:
            return True
        return False

    def _grid(self, rows: int, columns: int) -> _Grid:
        key = (rows, columns, self.device)
        grid = self._grids.pop(key, None)
        if grid is None:
            module: Any = self.module
            tables = grid_tables(
                rows,
                columns,
                self.geometry.merge_size,
                module.rotary_pos_emb.inv_freq.to(self.device),
                position_side=self.geometry.position_side,
                window=self.geometry.window,
            )
            grid = _Grid(tables)
        self._grids[key] = grid
        if len(self._grids) > _TABLES_KEPT:
            self._grids.popitem(last=False)
        return grid

    def _kind(self) -> tuple[object, ...]:
        return self.geometry, self._projection.shape, self.dtype, self.device


def find_vision_tower(model: torch.nn.Module) -> torch.nn.Module:
    """Return the module inside `model` that encodes images, the one its forward really calls.

    Raises:
        UnsupportedTowerError: there is none.
    """
    parts = ("patch_embed", "blocks", "merger", "rotary_pos_emb")
    for module in model.modules():
        if all(hasattr(module, part) for part in parts):
            return module
    raise UnsupportedTowerError("The model has no Qwen-VL vision tower. Choose a Qwen-VL model")


def geometry_of(tower: Any) -> TowerGeometry:
    """Read the numbers that shape a tower's graph from its parts.

    Raises:
        UnsupportedTowerError: a part is missing, or works in a way not known here.
    """
    try:
        projection = tower.patch_embed.proj
        depth, patch, width = projection.kernel_size
        known = projection.stride == projection.kernel_size and patch == width
        for block in tower.blocks:
            _ = block.norm1, block.norm2, block.mlp, block.attn.qkv, block.attn.proj
            _ = block.attn.num_heads, block.attn.scaling
        mergers = list(getattr(tower, "deepstack_merger_list", ()))
        deepstack = tuple(getattr(tower, "deepstack_visual_indexes", ()))
        has_positions = hasattr(tower, "pos_embed")
        if has_positions:
            mode = getattr(tower, "interpolation_mode", "bilinear")
            corners = getattr(tower, "interpolation_align_corners", True)
            known = known and mode == "bilinear" and corners
        full = tuple(getattr(tower, "fullatt_block_indexes", ()))
        merge = int(tower.spatial_merge_size)
        geometry = TowerGeometry(
            patch_size=patch,
            temporal_patch_size=depth,
            merge_size=merge,
            depth=len(tower.blocks),
            dim=_last_linear(tower.merger).out_features,
            window=tower.window_size // merge // patch if hasattr(tower, "window_size") else 0,
            full_layers=full,
            deepstack_layers=deepstack,
            position_side=int(tower.num_grid_per_side) if has_positions else 0,
        )
    except (AttributeError, TypeError, ValueError) as error:
        raise UnsupportedTowerError(
            f"The vision tower {type(tower).__name__} is of an unknown construction ({error})"
        ) from None
    if not known or len(mergers) != len(deepstack):
        raise UnsupportedTowerError(
            f"The vision tower {type(tower).__name__} is of an unknown construction"
        )
    return geometry


def _last_linear(module: torch.nn.Module) -> Any:
    return [part for part in module.modules() if hasattr(part, "out_features")][-1]


def _pieces(frames: int, most: int, powers: bool) -> Iterator[int]:
    """Split frames into runs of at most `most`; into powers of two, so that few shapes occur."""
    while frames:
        piece = min(frames, most)
        if powers:
            piece = 1 << (piece.bit_length() - 1)
        yield piece
        frames -= piece

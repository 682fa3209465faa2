"""The vision encoder as an ONNX graph, the one that `encode_frames` runs.

Without windows the same graph serves every grid: the tables are inputs, and the number of patches
is free. Windows are cut differently in each grid, so that the tables of one grid become constants.
The number of frames is free in either case.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from ..vision.encoder_graph import TowerGeometry, encode_frames
from ..vision.grid_tables import GridTables
from ..vision.vision_tower import VisionTower

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
# The format's own limit is 2 GiB for a file without external data, of which the graph takes some.
SINGLE_FILE_BYTES = 2**31 - 2**26
_OPSET = 20  # the first with Gelu
_TABLES = ("cos", "sin", "taps", "tap_weights")


class OnnxError(ValueError):
    """An encoder cannot be exported as asked; the message says what to do."""


def check_packages() -> None:
    """See whether the packages of the optional extra are installed.

    Raises:
        OnnxError: one is not.
    """
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise OnnxError(
            f"Not installed: {', '.join(missing)}. Run this in the folder of the node pack: "
            'python -m pip install ".[onnx]"'
        )


def output_names(geometry: TowerGeometry) -> list[str]:
    """Names of the outputs, each `[frames, tokens, dim]`, in the order of `encode_frames`."""
    return ["features", *(f"deepstack_{layer}" for layer in geometry.deepstack_layers)]


def graph_inputs(
    tower: VisionTower, pixel_values: torch.Tensor, rows: int, columns: int
) -> dict[str, torch.Tensor]:
    """What the graph takes for frames of a grid, by name.

    Args:
        pixel_values: `[frames, rows * columns, patch values]`.
    """
    inputs = {"pixel_values": pixel_values}
    if not tower.geometry.window:
        tables = tower.tables(rows, columns)
        named = {name: getattr(tables, name) for name in _TABLES}
        inputs |= {name: table for name, table in named.items() if table is not None}
    return inputs


def noise(tower: VisionTower, frames: int, patches: int) -> torch.Tensor:
    """Random pixels `[frames, patches, patch values]`, about as wide as normalized images."""
    geometry = tower.geometry
    values = 3 * geometry.temporal_patch_size * geometry.patch_size**2
    generator = torch.Generator().manual_seed(0)
    return torch.randn(frames, patches, values, generator=generator).to(tower.dtype)


@torch.no_grad()
def export_encoder(
    tower: VisionTower,
    output: Path,
    grid: tuple[int, int],
    metadata: Mapping[str, str],
) -> None:
    """Write the graph with its weights.

    Args:
        output: the file; weights of more than `SINGLE_FILE_BYTES` are put beside it, in a file with
            ``.data`` after its name.
        grid: rows and columns of patches; only a tower with windows is bound to them.
        metadata: is added to what the file says of itself.

    Raises:
        OnnxError: torch cannot export the tower.
        OSError: the file cannot be written.
    """
    geometry = tower.geometry
    # No size may be 1 where it shall be free.
    rows, columns = grid if geometry.window else (2 * geometry.merge_size, 3 * geometry.merge_size)
    inputs = graph_inputs(tower, noise(tower, 2, rows * columns), rows, columns)
    tables = tower.tables(rows, columns) if geometry.window else None
    outputs = output_names(geometry)
    sizes = _free_sizes(inputs, geometry)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the exporter, about itself
            # Traced here, and once: the exporter itself would try again in ways that take long.
            traced = torch.export.export(
                _Encoder(tower, tables).eval(),
                tuple(inputs.values()),
                dynamic_shapes=sizes,
                strict=False,
            )
            program: Any = torch.onnx.export(
                traced,
                dynamo=True,
                dynamic_shapes=sizes,  # their names
                input_names=list(inputs),
                output_names=outputs,
                opset_version=_OPSET,
                verbose=False,
            )
    except (RuntimeError, TypeError, ImportError, AttributeError) as error:
        raise OnnxError(
            f"torch {torch.__version__} cannot export a {type(tower.module).__name__} ({error}). "
            'Update torch, and the packages by: python -m pip install --upgrade ".[onnx]"'
        ) from error
    described = _description(tower, grid, list(inputs), outputs)
    program.model.metadata_props.update({**described, **metadata})
    weights = sum(parameter.nbytes for parameter in tower.module.parameters())
    program.save(output, external_data=weights > SINGLE_FILE_BYTES)


class _Encoder(torch.nn.Module):
    def __init__(self, tower: VisionTower, tables: GridTables | None) -> None:
        super().__init__()
        self.tower = tower.module
        self.geometry = tower.geometry
        self.tables = tables

    def forward(
        self,
        pixel_values: torch.Tensor,
        cos: Any = None,
        sin: Any = None,
        taps: torch.Tensor | None = None,
        tap_weights: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, ...]:
        tables = self.tables
        if tables is None:
            tables = GridTables(cos, sin, taps, tap_weights, None, None, ())
        return encode_frames(self.tower, self.geometry, pixel_values, tables).unbind()


def _free_sizes(
    inputs: Mapping[str, torch.Tensor], geometry: TowerGeometry
) -> tuple[dict[int, Any], ...]:
    """The axes of each input that may have any length, in the order of the inputs."""
    frames = torch.export.Dim("frames")
    if geometry.window:
        return ({0: frames},)
    patches = geometry.merge_size**2 * torch.export.Dim("tokens")
    axes = {"pixel_values": {0: frames, 1: patches}, "cos": {0: patches}, "sin": {0: patches}}
    axes |= {"taps": {1: patches}, "tap_weights": {1: patches}}
    return tuple(axes[name] for name in inputs)


def _description(
    tower: VisionTower, grid: tuple[int, int], inputs: list[str], outputs: list[str]
) -> dict[str, str]:
    """What a reader must know to prepare the inputs; lists are JSON."""
    geometry, module = tower.geometry, tower.module
    frequencies: Any = module.rotary_pos_emb
    return {
        "tower": type(module).__name__,
        "grid": json.dumps(grid) if geometry.window else "any",
        "inputs": json.dumps(inputs),
        "outputs": json.dumps(outputs),
        "patch_size": str(geometry.patch_size),
        "temporal_patch_size": str(geometry.temporal_patch_size),
        "merge_size": str(geometry.merge_size),
        "position_side": str(geometry.position_side),
        "rotary_frequencies": json.dumps(frequencies.inv_freq.tolist()),
        "dtype": str(tower.dtype).removeprefix("torch."),
        **{f"{name}_version": version(name) for name in ("torch", "transformers", *PACKAGES)},
    }

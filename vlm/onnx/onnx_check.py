"""Does an ONNX file compute what torch computes?"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import torch

from ..vision.encoder_graph import encode_frames
from ..vision.vision_tower import VisionTower
from .onnx_export import OnnxError, graph_inputs, noise, output_names

# Largest difference in relation to the largest feature of the same output. Both round on the way,
# at other places; in half precision onnxruntime computes much in float32, where torch does not.
TOLERANCE = {torch.float32: 1e-3, torch.float16: 0.05}


class OutputError(NamedTuple):
    """The largest difference of an output, in itself and in relation to the largest feature."""

    name: str
    absolute: float
    relative: float


class Sample(NamedTuple):
    """Frames of random pixels; the grid is in patches."""

    frames: int
    rows: int
    columns: int


def samples_of(tower: VisionTower, rows: int, columns: int) -> tuple[Sample, ...]:
    """What to check a graph with that was exported for this grid, or for all: no size that is free
    may be fixed in the graph by mistake."""
    if tower.geometry.window:
        return Sample(1, rows, columns), Sample(3, rows, columns)
    merge = tower.geometry.merge_size
    return Sample(1, rows, columns), Sample(3, merge, 5 * merge)


@torch.no_grad()
def output_errors(
    path: Path, tower: VisionTower, samples: Iterable[Sample]
) -> dict[Sample, list[OutputError]]:
    """Run the file on the CPU by onnxruntime, and the tower by torch.

    Raises:
        OnnxError: onnxruntime cannot run the file.
    """
    import onnxruntime

    # The package raises classes of its own that have only Exception in common.
    state = import_module("onnxruntime.capi.onnxruntime_pybind11_state")
    kinds = [kind for kind in vars(state).values() if isinstance(kind, type)]
    failures = tuple(kind for kind in kinds if issubclass(kind, Exception))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    names = output_names(tower.geometry)
    errors: dict[Sample, list[OutputError]] = {}
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        for sample in samples:
            frames, rows, columns = sample
            pixels = noise(tower, frames, rows * columns)
            inputs = graph_inputs(tower, pixels, rows, columns)
            arrays = {name: tensor.numpy() for name, tensor in inputs.items()}
            found = [torch.from_numpy(array) for array in session.run(names, arrays)]
            tables = tower.tables(rows, columns)
            expected = encode_frames(tower.module, tower.geometry, pixels, tables)
            errors[sample] = [
                _difference(*three) for three in zip(names, found, expected, strict=True)
            ]
    except failures as error:
        raise OnnxError(
            f"onnxruntime {onnxruntime.__version__} cannot run the exported graph ({error}). "
            'Update it by: python -m pip install --upgrade ".[onnx]"'
        ) from error
    return errors


def check_errors(errors: Iterable[OutputError], dtype: torch.dtype) -> None:
    """Refuse a graph that differs by more than rounding explains.

    Raises:
        OnnxError: it does; no number counts as different.
    """
    for error in errors:
        if not error.relative <= TOLERANCE[dtype]:
            raise OnnxError(
                f"Of {error.name}, onnxruntime's values differ from torch's by "
                f"{error.relative:.1e} of the largest, and {TOLERANCE[dtype]:g} is tolerated. "
                "Try float32, or other versions of torch and onnxruntime"
            )


def _difference(name: str, found: torch.Tensor, expected: torch.Tensor) -> OutputError:
    if found.shape != expected.shape:
        raise OnnxError(f"{name} has the shape {tuple(found.shape)}, not {tuple(expected.shape)}")
    found, expected = found.float(), expected.float()
    absolute = float((found - expected).abs().max())
    return OutputError(name, absolute, absolute / float(expected.abs().max()))

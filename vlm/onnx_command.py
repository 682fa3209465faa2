"""Export a Qwen-VL model's vision encoder to ONNX, and check it with onnxruntime against torch.

The file takes images as patches, in the layout of the model's own processor. That of a model with
attention windows (Qwen2.5-VL) serves one grid, others every grid; what a file needs is in its
metadata. Weights of more than 2 GB are put beside it, in OUTPUT.onnx.data. Nothing is written if
onnxruntime's values differ from torch's by more than a thousandth of the largest value (a twentieth
in float16).
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from .vision.quality import QUALITIES, ImageGrid, budget_of, grid_of

_DTYPES = (
    "float32",
    "float16",
)  # onnxruntime's CPU kernels, which check the file, know no bfloat16


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m vivace.vlm.onnx_command", description=__doc__)
    parser.add_argument("model", type=Path, metavar="MODEL_FOLDER")
    parser.add_argument("output", type=Path, metavar="OUTPUT.onnx")
    parser.add_argument("--width", type=int, help="of the images, in pixels before resizing")
    parser.add_argument("--height", type=int, help="likewise; default: the largest square")
    quality = "the size that images are resized to (default: %(default)s)"
    parser.add_argument("--quality", choices=tuple(QUALITIES), default="balanced", help=quality)
    parser.add_argument("--dtype", choices=_DTYPES, default="float32", help="of the weights")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status, 1 if no file was written."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if (options.width is None) != (options.height is None):
        parser.error("--width and --height belong together")
    try:
        _check_output(options.output, options.overwrite)
        _export(options)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


def _export(options: argparse.Namespace) -> None:
    from .onnx.onnx_check import check_errors, output_errors, samples_of
    from .onnx.onnx_export import check_packages, export_encoder
    from .vision.tower_load import load_tower

    check_packages()
    checked, tower = load_tower(options.model, options.dtype)
    geometry = tower.geometry
    grid = _grid(options, geometry.patch_size, geometry.merge_size)
    _, rows, columns = grid.grid_thw
    # The identity holds the whole path, which is nobody's business who gets the file.
    folder, _, version = checked.identity.rpartition("@")
    metadata = {"model": f"{Path(folder).name}@{version}", "model_type": checked.folder.model_type}
    with TemporaryDirectory(prefix=".onnx-", dir=options.output.parent) as temporary:
        staged = Path(temporary) / options.output.name
        export_encoder(tower, staged, (rows, columns), metadata)
        samples = samples_of(tower, rows, columns)
        for sample, errors in output_errors(staged, tower, samples).items():
            for name, absolute, relative in errors:
                print(  # noqa: T201
                    f"{sample.frames} x {sample.rows} x {sample.columns} patches, {name}: "
                    f"largest error {absolute:.2e}, {relative:.2e} of the largest value"
                )
            check_errors(errors, tower.dtype)
        _publish(staged, options.output)
    size = (
        f"for {grid.width} x {grid.height} pixels" if geometry.window else "for images of any size"
    )
    print(f"{options.output}: written, {size}")  # noqa: T201


def _grid(options: argparse.Namespace, patch: int, merge: int) -> ImageGrid:
    height, width = options.height, options.width
    if height is None:
        height = width = math.isqrt(budget_of(options.quality).max_pixels)
    return grid_of(height, width, options.quality, patch, merge)


def _data_file(output: Path) -> Path:
    return output.with_name(f"{output.name}.data")


def _check_output(output: Path, overwrite: bool) -> None:
    """Refuse an output that cannot be written, before the long work.

    Raises:
        ValueError: its folder is missing, or it is there already.
    """
    if not output.parent.is_dir():
        raise ValueError(f"{output.parent}: there is no such folder. Make it, or choose another")
    if not os.access(output.parent, os.W_OK):
        raise ValueError(f"{output.parent}: cannot be written to. Choose another folder")
    for file in (output, _data_file(output)):
        if file.is_dir():
            raise ValueError(f"{file}: is a folder. Choose another name")
        if file.exists() and not overwrite:
            raise ValueError(f"{file}: exists. Choose another name, or give --overwrite")


def _publish(staged: Path, output: Path) -> None:
    """Put the finished files in place, the graph never without its weights."""
    if _data_file(staged).exists():
        _data_file(staged).replace(_data_file(output))
        staged.replace(output)
    else:
        staged.replace(output)
        _data_file(output).unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())

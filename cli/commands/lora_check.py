"""``vivace lora check``: what is wrong with the LoRAs of a folder."""

from __future__ import annotations

from ..errors import FAILED, OK
from ..spec import TEXT, Argument, Command, Option, Values, folder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..output import Output

COMMAND = Command(
    "Finds files that cannot be read or are cut off, files whose tensors are the same whatever"
    " their names and metadata, and, with --model, files for another model. Reads headers, and the"
    " data only of files that may be the same.",
    [Argument("folder", folder(), "the folder, with those in it")],
    [
        Option(
            "--model",
            TEXT,
            "the model that all should be for",
            choices=("qwen_image", "qwen_image_21", "z_image"),
        )
    ],
    [("vivace lora check ~/ComfyUI/models/loras", "look through a collection")],
    status="something is wrong with a file, or two are the same.",
)


def run(values: Values, out: Output) -> int:
    """Check the folder."""
    from ...lora.file_report import printable
    from ...lora.tools.check import check_folder

    with out.progress("checking", 1.0) as step:
        report = check_folder(values.folder, values.model, step)
    broken = [item for item in report.files if item.problem is not None]
    text = [f"{item.path}: {item.problem}" for item in broken]
    text += [f"the same: {', '.join(map(str, group))}" for group in report.duplicates]
    others = sum(item.other is not None and item.problem is None for item in report.files)
    count = len(report.files)
    text.append(
        f"{count} files, {len(broken)} with a problem, {len(report.duplicates)} groups of the same,"
        f" {others} for models that are not supported"
    )
    data = {
        "files": [{**vars(item), "path": str(item.path)} for item in report.files],
        "duplicates": [list(map(str, group)) for group in report.duplicates],
    }
    out.result(data, list(map(printable, text)))
    return FAILED if broken or report.duplicates else OK

"""``vivace lora inspect``: what LoRA files hold, from their headers."""

from __future__ import annotations

from ...lora.files.file_types import ENDINGS
from ..errors import FAILED, OK
from ..spec import Argument, Command, Option, Values, files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

    from ...lora.errors import LoraError
    from ...lora.report import Report
    from ..output import Output

LORA_FILES = files(*ENDINGS)
COMMAND = Command(
    "Reads headers only, so that large files answer at once: model, format, rank, modules, and"
    " every tensor that would not be applied, with the reason. With --against, what that checkpoint"
    " does not have counts as unmatched.\n\n"
    "In JSON, each file is an object with 'architecture', 'keys' (key, module, part, role, status:"
    " mapped, refused, ignored or unmatched, reason), 'faults' (modules that are not applied) and"
    " 'notes'; a file that cannot be read has 'error'.",
    [Argument("files", LORA_FILES, "LoRA files", count="+")],
    [
        Option(
            "--against",
            files(".safetensors", ".index.json", metavar="CHECKPOINT"),
            "a checkpoint of the model: a file, or diffusers' folder",
        )
    ],
    [
        ("vivace lora inspect style.safetensors", "what is in a file"),
        ("vivace lora inspect *.safetensors --json", "the same of many, for a program"),
    ],
    status="a file could not be read, or with --against does not fit.",
)


def run(values: Values, out: Output) -> int:
    """Inspect the files; one that fails does not keep the others from being inspected."""
    from ...lora.errors import LoraError
    from ...lora.examine import inspect
    from ...lora.report import Report, printable
    from ...lora.tools.checkpoint import ModelCheckpoint, against

    def one(path: Path, checkpoint: ModelCheckpoint | None) -> Report | LoraError:
        try:
            report = inspect(path)
            return report if checkpoint is None else against(report, checkpoint)
        except LoraError as error:
            return error

    if values.against is None:
        found = [one(path, None) for path in values.files]
    else:
        with ModelCheckpoint(values.against) as checkpoint:
            found = [one(path, checkpoint) for path in values.files]
    text = [item.line() if isinstance(item, Report) else printable(str(item)) for item in found]
    out.result([_as_json(item) for item in found], text)
    read = [item for item in found if isinstance(item, Report)]
    fitting = [item for item in read if item.refusal is None or values.against is None]
    return OK if len(fitting) == len(found) else FAILED


def _as_json(item: Report | LoraError) -> dict[str, object]:
    from ...lora.report import Report

    if isinstance(item, Report):
        return item.to_json()
    return {"file": item.path, "architecture": None, "keys": [], "error": str(item)}

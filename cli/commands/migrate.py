"""``vivace migrate``: our nodes in the place of other packs', in files."""

from __future__ import annotations

from ..errors import FAILED, OK
from ..settings import option
from ..spec import Argument, Command, Option, Values, files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from ...migrate.rules import Known
    from ..output import Output

COMMAND = Command(
    "Reads JSON (of the editor, or for the API) and the PNG files that ComfyUI saves. Without -o"
    " and --in-place nothing is written; the report says what would be done.",
    [Argument("files", files(".json", ".png"), "workflows", count="+")],
    [
        Option(
            "--output",
            files(".json", metavar="OUT"),
            "a new file; of several FILES, a folder",
            short="-o",
            group="target",
        ),
        Option("--in-place", None, "replace the JSON files themselves", group="target"),
        option("models"),
        Option(
            "--any-model",
            None,
            "also replace general LoRA loaders whose model is not known to be Qwen-Image, Z-Image",
        ),
    ],
    [("vivace migrate old.json -o new.json", "migrate one workflow")],
    status="a file could not be read or written.",
)


def run(values: Values, out: Output) -> int:
    """Migrate the files; one that fails does not keep the others from being migrated."""
    import dataclasses

    from ...migrate.files import files_here
    from ...migrate.rules import Known

    known = files_here(values.models) if values.models else Known()
    known = dataclasses.replace(known, any_model=values.any_model)
    results = [_migrate(path, values, known) for path in values.files]
    out.result(results, [line for result in results for line in _lines(result)])
    return FAILED if any("error" in result for result in results) else OK


def _migrate(path: Path, values: Values, known: Known) -> dict[str, Any]:
    """What was done to one file, as JSON data."""
    from ...migrate.files import is_picture, read_workflow
    from ...migrate.workflow import migrate_workflow
    from ...toolkit.json_files import JsonFileError, write_object

    result: dict[str, Any] = {"file": str(path)}
    try:
        workflow, report = migrate_workflow(read_workflow(path), known)
        result |= report.to_json() | {"lines": report.lines()}
        target = _target(path, values)
        if target is None or (values.in_place and not report.replaced):
            return result
        if values.in_place and is_picture(path):
            raise JsonFileError(path, "a picture", "Name the file for the workflow with -o")
        if not values.in_place and target.exists():
            raise JsonFileError(target, "there already", "Name another file, or move it away")
        write_object(target, workflow)
        result["written"] = str(target)
    except JsonFileError as error:
        result["error"] = str(error)
    return result


def _target(path: Path, values: Values) -> Path | None:
    if values.in_place:
        return path
    if values.output is not None and (len(values.files) > 1 or values.output.is_dir()):
        return values.output / f"{path.stem}.json"
    return values.output


def _lines(result: dict[str, Any]) -> list[str]:
    lines = [f"{result['file']}:"] + [f"  {line}" for line in result.get("lines", [])]
    if "written" in result:
        lines.append(f"  written: {result['written']}")
    if "error" in result:
        lines.append(f"  error: {result['error']}")
    return [line.encode("utf-8", "replace").decode() for line in lines]

"""Runs a prompt for each combination of values, fetches the results, and lays out the pictures."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .contact_sheet import write_sheet
from .output import Output
from .server.http import Json, Server
from .server.prompts import Prompt, Runner
from .server.results import save_all, texts_of
from .workflow.assign import assign

Changes = Sequence[tuple[str, str]]
_PICTURES = (".png", ".jpg", ".jpeg", ".webp")


@dataclass(frozen=True)
class SeriesPlan:
    """What to do with the results of a series.

    Attributes:
        folder: where files go.
        sheet: the contact sheet, or None for none.
        columns: of the sheet; 0 for about as many as there are rows.
        previews: whether to download previews too.
    """

    folder: Path
    sheet: Path | None = None
    columns: int = 0
    previews: bool = False


def run_series(
    server: Server,
    out: Output,
    prompt: Prompt,
    series: Sequence[Changes],
    plan: SeriesPlan,
    embedded: Json | None = None,
) -> Json:
    """Run the prompt once for each of the series, each with its changes.

    Every change is checked before the first run begins.

    Args:
        server: where to run.
        out: for progress.
        prompt: in API format; not changed.
        series: target and value of each change, for each run.
        plan: what to do with the results.
        embedded: what the server writes into pictures beside the prompt.

    Returns:
        What ``--json`` prints.
    """
    prompts = []
    for changes in series:
        prompts.append(copy.deepcopy(prompt))
        for target, text in changes:
            assign(prompts[-1], target, text, server.object_info(), option="--matrix")
    runner = Runner(server, out)
    runs: list[Json] = []
    pictures: list[tuple[str, Path]] = []
    for number, (changes, changed) in enumerate(zip(series, prompts, strict=True), 1):
        label = ", ".join(f"{target}={text}" for target, text in changes)
        count = f"{number}/{len(prompts)} " if len(prompts) > 1 else ""
        id_, outputs = runner.run(changed, f"{count}{label}".strip() or "run", embedded)
        saved = save_all(server, outputs, plan.folder, previews=plan.previews)
        runs.append(
            {
                "prompt_id": id_,
                "values": dict(changes),
                "files": saved,
                "texts": texts_of(outputs),
            }
        )
        paths = [Path(item["path"]) for item in saved]
        pictures += [(label, path) for path in paths if path.suffix.lower() in _PICTURES]
    sheet = plan.sheet if pictures else None
    if sheet is not None:
        sheet.parent.mkdir(parents=True, exist_ok=True)
        write_sheet(sheet, pictures, plan.columns if len(pictures) == len(runs) else 0)
    return {"runs": runs, "sheet": None if sheet is None else str(sheet)}


def lines_of(result: Json) -> list[str]:
    """The result for people: the files, the texts, the sheet."""
    lines = []
    for run in result["runs"]:
        lines += [text for texts in run["texts"].values() for text in texts]
        lines += [item["path"] for item in run["files"]]
    if result["sheet"]:
        lines.append(f"contact sheet: {result['sheet']}")
    return lines or ["done; the workflow made no files"]

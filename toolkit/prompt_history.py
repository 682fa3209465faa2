"""What was run of a prompt library: one file, the latest run last."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from .json_files import damaged, read_object, write_object

HISTORY_LENGTH = 200
HISTORY_CHARACTERS = 4 * 2**20


@dataclass(frozen=True)
class Run:
    """What was run: the texts after expansion, and what they came from.

    Attributes:
        when: UTC, in ISO format.
        name: the prompt's, or empty for a text of no prompt.
    """

    name: str
    positive: str
    negative: str
    seed: int
    variables: Mapping[str, str] = field(default_factory=dict)
    when: str = ""


_FIELDS = {item.name for item in fields(Run)}
_NEEDED = {"name", "positive", "negative", "seed"}


def read_runs(path: Path) -> list[Run]:
    """The runs of a file; none if there is no file.

    Raises:
        JsonFileError: the file cannot be read, or is damaged.
    """
    content = read_object(path)
    runs = [] if content is None else content.get("runs")
    if not isinstance(runs, list):
        raise damaged(path, "has no list of runs")
    if not all(_is_run(run) for run in runs):
        raise damaged(path, "has runs of another shape")
    return [Run(**run) for run in runs]


def write_runs(path: Path, runs: Sequence[Run]) -> None:
    """Write the last `HISTORY_LENGTH` runs, or fewer if they are long.

    Raises:
        JsonFileError: the file cannot be written.
    """
    kept = [asdict(run) for run in runs[-HISTORY_LENGTH:]]
    while len(kept) > 1 and len(json.dumps(kept)) > HISTORY_CHARACTERS:
        del kept[: len(kept) // 2]
    write_object(path, {"runs": kept})


def _is_run(value: Any) -> bool:
    """Whether a `Run` can be made of a JSON value."""
    if not isinstance(value, dict) or not _NEEDED <= value.keys() <= _FIELDS:
        return False
    variables = value.get("variables", {})
    if type(value["seed"]) is not int or not isinstance(variables, dict):
        return False
    texts = [value[name] for name in value if name not in ("seed", "variables")]
    return all(isinstance(text, str) for text in [*texts, *variables.values()])

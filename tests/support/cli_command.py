"""Runs a command in a process of its own, away from the settings of whoever runs the tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import vivace

ROOT = Path(vivace.__file__).parents[1]


class Done(NamedTuple):
    """What is left of a process."""

    status: int
    out: str
    err: str

    def json(self) -> Any:
        """Standard output, which has to be one JSON document."""
        return json.loads(self.out)


def environment(home: Path, variables: Mapping[str, str] | None = None) -> dict[str, str]:
    """Ours without settings of the command line, and with `home` for the configuration."""
    kept = {key: text for key, text in os.environ.items() if not key.startswith("VIVACE_")}
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))
    kept |= {"PYTHONPATH": path, "XDG_CONFIG_HOME": str(home), "APPDATA": str(home)}
    kept |= {"COLUMNS": "100", "TERM": "xterm"}
    kept.pop("NO_COLOR", None)
    return kept | dict(variables or {})


def vivace_command(
    home: Path, *words: str | Path, variables: Mapping[str, str] | None = None
) -> Done:
    """Run the command in the folder `home`, which is also that of its configuration."""
    done = subprocess.run(
        [sys.executable, "-m", "vivace", *map(str, words)],
        env=environment(home, variables),
        cwd=home,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=300,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return Done(done.returncode, done.stdout, done.stderr)

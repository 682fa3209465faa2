"""Starts the command line as a shell does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import vivace

ROOT = Path(vivace.__file__).parents[1]


def start(url: str, *words: str | Path) -> subprocess.Popen[str]:
    """The command, running."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))
    environment = {**os.environ, "PYTHONPATH": path, "VIVACE_SERVER": url}
    environment["VIVACE_TIMEOUT"] = "120"
    return subprocess.Popen(
        [sys.executable, "-m", "vivace", *map(str, words)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_heed_interrupts,
    )


def _heed_interrupts() -> None:
    """What is started in the background of a script ignores Ctrl-C, and so do its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def vivace_json(url: str, *words: str | Path) -> dict[str, Any]:
    """What a command that has to succeed prints as JSON."""
    process = start(url, *words, "--json")
    output, errors = process.communicate(timeout=500)
    assert process.returncode == 0, errors
    return json.loads(output)


def refused(url: str, *words: str | Path) -> tuple[int, str]:
    """Exit status and message of a command that has to fail."""
    process = start(url, *words, "--quiet")
    output, errors = process.communicate(timeout=200)
    assert output == ""
    assert "Traceback" not in errors
    return process.returncode, errors

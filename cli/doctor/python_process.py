"""Questions to the Python that runs ComfyUI, in a process of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from ..errors import CliError
from ..startup.server import environment

_SECONDS = 120


class NoAnswerError(CliError):
    """The Python could not be started, or the question failed in it."""


def ask(python: str, question: str, *words: str) -> dict[str, Any]:
    """Run a module of this package in another Python and return what it prints.

    Args:
        python: the program, a name or a path.
        question: the module's name, such as ``"ask_packages"``.

    Raises:
        NoAnswerError: there is no such program, or it fails; the message has its last line.
    """
    if shutil.which(python) is None:
        remedy = "Name the Python that runs ComfyUI with --python, or VIVACE_PYTHON"
        raise NoAnswerError(f"There is no program {python}", remedy)
    script = Path(__file__).with_name(f"{question}.py")
    try:
        done = subprocess.run(  # noqa: S603 - the Python that the user names
            [python, str(script), *words],
            env=environment(),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise _no_answer(f"{python} did not answer within {_SECONDS} s") from None
    except OSError as error:
        raise _no_answer(f"{python} cannot be started ({error.strerror})") from None
    try:
        # Packages may print while they are imported.
        return json.loads(done.stdout.strip().rpartition("\n")[2])
    except ValueError:
        last = done.stderr.strip().rpartition("\n")[2] or f"exit status {done.returncode}"
        raise _no_answer(f"{python} failed ({last})") from None


def _no_answer(problem: str) -> NoAnswerError:
    return NoAnswerError(problem, "Check that it is the Python that runs ComfyUI")

"""The environment of a cell: what somebody who installs that ComfyUI today would get.

There is one for each Python, made exact anew for each of its cells: so most packages stay where
they are, together with their bytecode.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from ..rig.environment import find_uv
from ..rig.layout import DEV, REQUIREMENTS, ROOT, DevError, child_environment, python_in
from ..rig.link import link_checkout
from .cells import TRANSFORMERS, Cell

FOLDER = DEV / "matrix"
_OFFLINE = ("Failed to fetch", "Could not connect", "dns error", "Request failed after")


class UnsupportedError(Exception):
    """The cell's environment cannot be made, for a reason that lies outside of the pack."""


def environment_dir(python: str) -> Path:
    """Where the environment of that version of Python lies."""
    return FOLDER / f"python-{python}"


def make_environment(cell: Cell, comfyui: Path) -> Path:
    """Make the environment of the cell.

    Args:
        comfyui: the folder with ComfyUI's `requirements.txt`, which are all that is installed
            besides what the cell names, at their newest versions.

    Returns:
        Its Python.

    Raises:
        UnsupportedError: there is no such Python, or the requirements cannot be met together.
        DevError: the package index cannot be reached.
    """
    uv = find_uv()
    folder = environment_dir(cell.python)
    python = python_in(folder)
    if not python.exists():
        ask_uv(uv, "venv", "--clear", "--python", _find_python(cell.python), str(folder))
    wanted = FOLDER / f"{cell.name}.in"
    wanted.write_text(TRANSFORMERS[cell.transformers] + "\n")
    pins = wanted.with_suffix(".txt")
    sources = [str(comfyui / "requirements.txt"), str(REQUIREMENTS / "torch.in"), str(wanted)]
    if cell.extras:
        sources += [str(ROOT / "pyproject.toml"), "--all-extras"]
    ask_uv(uv, "pip", "compile", "--upgrade", "--python", str(python), *sources, "-o", str(pins))
    ask_uv(uv, "pip", "sync", "--python", str(python), str(pins))
    return python


def check_environment() -> dict[str, str]:
    """Variables for the process that checks a cell: it imports the checkout as `vivace`."""
    folder = FOLDER / "path"
    folder.mkdir(parents=True, exist_ok=True)
    link_checkout(folder / "vivace")
    return {**child_environment(), "PYTHONPATH": str(folder)}


def remove_environment(python: str) -> None:
    """Give the disk back."""
    shutil.rmtree(environment_dir(python), ignore_errors=True)


def _find_python(version: str) -> str:
    """A program, where pyenv has one, or the version, for `uv` to find or to fetch."""
    versions = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser() / "versions"
    programs = sorted(versions.glob(f"{version}.*/bin/python"))
    return str(programs[-1]) if programs else version


def ask_uv(uv: str, *arguments: str) -> None:
    """Run `uv`, and tell an index that cannot be reached from requirements that cannot be met.

    Raises:
        UnsupportedError: the requirements cannot be met together, or there is no such Python.
        DevError: the package index cannot be reached.
    """
    FOLDER.mkdir(parents=True, exist_ok=True)
    command = [uv, *arguments, "--quiet", "--color", "never"]
    done = subprocess.run(
        command, cwd=ROOT, env=child_environment(), capture_output=True, text=True, check=False
    )
    if done.returncode == 0:
        return
    reason = " ".join(done.stderr.split())
    if arguments[0] == "venv":
        raise UnsupportedError(f"Python {arguments[3]} is not to be had on this machine")
    if any(mark in reason for mark in _OFFLINE):
        raise DevError(f"The package index cannot be reached. Go online. uv says: {reason[-500:]}")
    raise UnsupportedError(reason)

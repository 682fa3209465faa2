"""The private Python environment: `uv`, pinned packages, the pack itself as `vivace`."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

from .layout import (
    CACHE,
    DEV,
    ROOT,
    TOOLS,
    ComfyRelease,
    DevError,
    child_environment,
    say,
    venv_dir,
    venv_python,
)
from .link import link_checkout

NEEDED_GIB = 12
"""Free disk that a first setup needs: torch with its CUDA libraries, unpacked and cached."""
ANOTHER_GIB = 4
"""The same for another environment, most of whose packages are in the cache and linked from it."""
NEWEST_PYTHON = (3, 13)


def ensure_environment(release: ComfyRelease) -> Path:
    """Make the environment of a release if it is missing or its pins have changed.

    Returns:
        The environment's Python.

    Raises:
        DevError: no network, no disk, or no usable Python.
    """
    python = venv_python(release)
    stamp = venv_dir(release) / "vivace.stamp"
    wanted = _fingerprint(release)
    if python.exists() and stamp.exists() and stamp.read_text() == wanted:
        return python
    check_disk()
    uv = find_uv()
    say(f"Making the environment for ComfyUI {release.version} in {venv_dir(release)} ...")
    if not python.exists():
        run_uv(uv, "venv", "--quiet", "--python", base_python(), str(venv_dir(release)))
    stamp.unlink(missing_ok=True)
    run_uv(uv, "pip", "sync", "--quiet", "--python", str(python), str(release.requirements))
    # A link, not an editable install: the pack then runs from the same tree, and nothing is built.
    link_checkout(_site_packages(python) / "vivace")
    stamp.write_text(wanted)
    return python


def _fingerprint(release: ComfyRelease) -> str:
    return hashlib.sha256(release.requirements.read_bytes() + str(ROOT).encode()).hexdigest()


def _site_packages(python: Path) -> Path:
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    output = subprocess.run([str(python), "-c", code], check=True, capture_output=True, text=True)
    return Path(output.stdout.strip())


def base_python() -> str:
    """The Python to build on: this one, or one that `uv` finds when this one is too new."""
    if sys.version_info[:2] <= NEWEST_PYTHON:
        return sys.executable
    return f">=3.10,<={'.'.join(map(str, NEWEST_PYTHON))}"


def check_disk() -> None:
    """See whether an environment fits on the disk.

    Raises:
        DevError: it does not.
    """
    DEV.mkdir(exist_ok=True)
    free = shutil.disk_usage(DEV).free / 2**30
    setup, needed = ("another", ANOTHER_GIB) if (CACHE / "uv").exists() else ("a first", NEEDED_GIB)
    if free < needed:
        raise DevError(
            f"{DEV} has {free:.1f} GiB free and {setup} setup needs about {needed} GiB."
            " Free some space, or put the checkout on a larger disk."
        )


def find_uv() -> str:
    """`uv` from the path or from `.dev/tools`, where it is installed when there is none."""
    name = "uv.exe" if os.name == "nt" else "uv"
    private = TOOLS / "bin" / name
    found = shutil.which("uv") or (str(private) if private.exists() else None)
    if found:
        return found
    say(f"Installing uv into {TOOLS} ...")
    command = [*_pip(), "install", "--quiet", "--disable-pip-version-check", "--upgrade"]
    _run([*command, "--target", str(TOOLS), "uv"], "uv could not be installed")
    if not private.exists():
        raise DevError(f"pip installed uv but {private} is not there; install uv yourself.")
    return str(private)


def _pip() -> list[str]:
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    if importlib.util.find_spec("ensurepip") is None:
        raise DevError(
            "This Python has neither pip nor ensurepip, and uv is not installed. Install one of"
            " them (on Debian or Ubuntu: apt install python3-pip) and try again."
        )
    bootstrap = TOOLS / "bootstrap"
    _run([sys.executable, "-m", "venv", str(bootstrap)], "No environment with pip could be made")
    return [
        str(bootstrap / ("Scripts/python.exe" if os.name == "nt" else "bin/python")),
        "-m",
        "pip",
    ]


def run_uv(uv: str, *arguments: str) -> None:
    """Run `uv`, whose output goes to the terminal.

    Raises:
        DevError: it failed.
    """
    _run([uv, *arguments], f"`uv {' '.join(arguments[:2])}` failed")


def _run(command: list[str], problem: str) -> None:
    try:
        finished = subprocess.run(command, cwd=ROOT, env=child_environment(), check=False)
    except OSError as error:
        raise DevError(f"{problem}: {error}") from error
    if finished.returncode != 0:
        raise DevError(
            f"{problem} (exit status {finished.returncode}, see above). If it could not reach the"
            " package index, go online, or set the proxy or index variables that pip and uv read."
        )

"""Lint and types: programs that know nothing of each other, so that they run side by side."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .rig.layout import DEV, ROOT
from .web_checks import ensure_web_tools, eslint_command, tsc_command


def check_all(python: Path, environment: Mapping[str, str]) -> int:
    """Lint and check types of everything.

    Args:
        python: the environment's Python.
        environment: variables of the checks.

    Returns:
        The exit status of the first check that failed, or 0.
    """
    ensure_web_tools(python)
    return run_side_by_side(
        [
            [str(python), "-m", "pyright"],  # takes longest, so that it begins first
            [str(python), "-m", "ruff", "check", "."],
            [str(python), "-m", "ruff", "format", "--check", "."],
            [str(python.with_name("lint-imports")), "--cache-dir", str(DEV / "cache" / "imports")],
            [*eslint_command(python), "web"],
            tsc_command(python),
        ],
        environment,
    )


def run_side_by_side(commands: Sequence[list[str]], environment: Mapping[str, str]) -> int:
    """Run all of them in the checkout, and print what each has said, in the order given.

    Returns:
        The exit status of the first, in that order, that failed, or 0.
    """

    def run(command: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=ROOT,
            env=dict(environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )

    status = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for command, done in zip(commands, pool.map(run, commands), strict=True):
            told = " ".join([Path(command[0]).name, *command[1:]])
            print(f"$ {told}\n{done.stdout}", end="", flush=True)
            status = status or done.returncode
    return status

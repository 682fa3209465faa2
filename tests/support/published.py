"""The pack as the registry publishes it: what git tracks, without what `.comfyignore` names."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from vivace.devkit.layout import ROOT
from vivace.devkit.server import ComfyServer


def _git(*words: str, lines: list[str] | None = None) -> list[str]:
    text = None if lines is None else "\n".join(lines)
    found = subprocess.run(
        ["git", *words], cwd=ROOT, input=text, capture_output=True, text=True, check=False
    )
    assert found.returncode <= 1, found.stderr  # 1: nothing is ignored
    return found.stdout.splitlines()


def left_out(files: list[str]) -> list[str]:
    """Those of the files that `.comfyignore` names, in the patterns of git."""
    rules = ("-c", f"core.excludesFile={ROOT / '.comfyignore'}")
    return _git(*rules, "check-ignore", "--no-index", "--stdin", lines=files)


def published_files() -> list[str]:
    """Paths in the archive, relative to the pack."""
    tracked = [name for name in _git("ls-files") if (ROOT / name).is_file()]
    return sorted(set(tracked) - set(left_out(tracked)))


def copy_pack(folder: Path) -> None:
    """Unpack the archive there."""
    for name in published_files():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)


def server_with(pack: Path, work: Path, comfyui: Path) -> ComfyServer:
    """A server that has this copy of the pack, and the nodes of the tests."""
    return ComfyServer(
        Path(sys.executable),
        comfyui,
        work,
        arguments=[
            "--disable-all-custom-nodes",
            "--whitelist-custom-nodes",
            pack.name,
            "vivace_test_nodes",
        ],
        test_nodes=True,
        model_dirs={"custom_nodes": [pack.parent]},
        log=work / "server.log",
    )

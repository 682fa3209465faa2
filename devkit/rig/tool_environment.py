"""Small environments of their own for tools that nothing of ours imports."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .environment import base_python, find_uv, run_uv
from .layout import DEV, python_in, say


def tool_environment(name: str, packages: Sequence[str]) -> Path:
    """The Python of an environment with exactly these packages and what they need.

    Args:
        name: of its folder below `.dev/tool-environments`.
        packages: pinned, as pip writes them.

    Raises:
        DevError: it could not be made.
    """
    folder = DEV / "tool-environments" / name
    python = python_in(folder)
    stamp, wanted = folder / "vivace.stamp", "\n".join(packages)
    if python.exists() and stamp.exists() and stamp.read_text() == wanted:
        return python
    uv = find_uv()
    say(f"Installing {', '.join(packages)} ...")
    run_uv(uv, "venv", "--quiet", "--clear", "--python", base_python(), str(folder))
    run_uv(uv, "pip", "install", "--quiet", "--python", str(python), *packages)
    stamp.write_text(wanted)
    return python

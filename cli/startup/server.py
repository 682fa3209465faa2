"""How ComfyUI is started to be measured: with folders of its own and one node pack."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path


class ProfilerError(ValueError):
    """A pack that could not be measured; the message says why, the remedy what to do."""

    def __init__(self, problem: str, remedy: str) -> None:
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{problem}. {remedy}")


def find_python(comfyui: Path) -> Path | None:
    """The Python of the environment that lies in or beside a ComfyUI folder, if there is one."""
    places = [comfyui / name / sub for name in (".venv", "venv") for sub in ("bin", "Scripts")]
    # The portable version for Windows, whose folder has this name.
    places.append(comfyui.parent / "python_embeded")
    for place in places:
        for name in ("python", "python.exe"):
            if (place / name).is_file():
                return place / name
    return None


def comfyui_around(pack: Path) -> Path | None:
    """The ComfyUI among whose custom nodes a pack lies, links not followed; None if in none."""
    comfyui = pack.parent.parent
    inside = pack.parent.name == "custom_nodes" and (comfyui / "main.py").is_file()
    return comfyui if inside else None


def check_folders(comfyui: Path, pack: Path) -> None:
    """Raise unless one is ComfyUI and the other a node pack.

    Raises:
        ProfilerError: either is not.
    """
    if not (comfyui / "main.py").is_file() or not (comfyui / "comfy").is_dir():
        raise ProfilerError(f"{comfyui} is not a ComfyUI folder", "Name the one with main.py")
    if not (pack / "__init__.py").is_file():
        problem = f"{pack} is not a custom node folder: it has no __init__.py"
        raise ProfilerError(problem, "Name the folder of a pack")


def environment() -> dict[str, str]:
    """Ours, without what would lead ComfyUI's Python to packages of another one."""
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    return {**kept, "PYTHONUTF8": "1"}


def arguments(comfyui: Path, pack: Path, work: Path, port: int) -> list[str]:
    """ComfyUI's arguments for a server that loads this pack only and writes below `work` only."""
    linked = [entry for entry in (comfyui / "custom_nodes").iterdir() if entry.resolve() == pack]
    found = ["--listen", "127.0.0.1", "--port", str(port), "--cpu"]
    found += ["--disable-auto-launch", "--disable-api-nodes"]
    for name in ("input", "output", "temp", "user"):
        (work / name).mkdir(parents=True, exist_ok=True)
        found += [f"--{name}-directory", str(work / name)]
    found += ["--database-url", "sqlite:///:memory:"]
    if not linked:
        # YAML, of which JSON is a part, so that nothing needs quoting.
        paths = work / "extra_model_paths.yaml"
        paths.write_text(json.dumps({"profiler": {"custom_nodes": str(pack.parent)}}))
        found += ["--extra-model-paths-config", str(paths)]
    # Other packs would blur the figures: what they import first is free for those that follow.
    found += ["--disable-all-custom-nodes", "--whitelist-custom-nodes"]
    return found + [entry.name for entry in linked or [pack]]


def free_port() -> int:
    """A TCP port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]

"""ComfyUI folders and Python environments that only say what is in them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

GOOD = {
    "torch": "2.11.0+cu130",
    "torchvision": "0.26.0+cu130",
    "torchaudio": "2.11.0+cu130",
    "transformers": "5.23.0",
    "safetensors": "0.8.0",
    "comfy-kitchen": "0.2.26",
}


def make_environment(folder: Path) -> Path:
    """An environment without packages; returns its Python."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    inside = "Scripts/python.exe" if sys.platform == "win32" else "bin/python"
    return folder / inside


def site_packages(python: Path) -> Path:
    """Where that environment's packages lie."""
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    return Path(subprocess.check_output([python, "-c", code], text=True).strip())


def install(site: Path, name: str, version: str, requires: Iterable[str] = ()) -> None:
    """What `pip install` leaves of a package in the records, and nothing else but `version.py`."""
    public = version.partition("+")[0] if name.startswith("torch") else version
    records = site / f"{name.replace('-', '_')}-{public}.dist-info"
    records.mkdir(parents=True)
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {public}"]
    lines += [f"Requires-Dist: {line}" for line in requires]
    (records / "METADATA").write_text("\n".join(lines) + "\n")
    if name.startswith("torch"):
        module = site / name
        module.mkdir(exist_ok=True)
        (module / "version.py").write_text(f"__version__ = '{version}'\n")


def make_comfyui(folder: Path, version: str = "0.30.0", requirements: str = "") -> Path:
    """A folder that looks like ComfyUI, with empty folders for models and this pack's mark."""
    for name in ("loras", "diffusion_models", "LLM"):
        (folder / "models" / name).mkdir(parents=True)
    (folder / "main.py").write_text("")
    (folder / "comfyui_version.py").write_text(f'# made\n__version__ = "{version}"\n')
    (folder / "requirements.txt").write_text(requirements)
    add_pack(folder, "ComfyUI-Vivace", {"pyproject.toml": 'name = "vivace"'})
    return folder


def add_pack(comfyui: Path, name: str, files: dict[str, str]) -> None:
    """A custom node pack of those files."""
    for path, text in files.items():
        file = comfyui / "custom_nodes" / name / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

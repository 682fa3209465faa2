"""Downloading a model from a node: progress, and Cancel."""

from __future__ import annotations

import re
from pathlib import Path

from comfy.model_management import processing_interrupted, throw_exception_if_processing_interrupted
from comfy.utils import ProgressBar

from ...hub.download import DownloadCancelledError, Progress, download_model
from ...hub.model_check import CheckedModel, check_complete
from ...hub.musicgen_folders import check_complete_music, read_music_model

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def download(repository: str, revision: str, root: Path) -> tuple[str, str]:
    """Download a model into a folder below `root`, unless it is there; return its name and a line.

    Raises:
        ValueError: no name of a repository.
        ModelFolderError: as `download_model`.
    """
    if not _REPOSITORY.fullmatch(repository):
        raise ValueError(f"'{repository}' is no repository. Write owner/name")
    bar = ProgressBar(1)

    def show(progress: Progress) -> None:
        bar.update_absolute(progress.done, max(progress.total, 1))

    name = repository.rpartition("/")[2]
    try:
        checked = download_model(
            repository,
            root / name,
            revision,
            on_progress=show,
            cancelled=processing_interrupted,
            check=_check,
        )
    except DownloadCancelledError:
        throw_exception_if_processing_interrupted()
        raise
    size = checked.nbytes / 2**30
    node = "QwenVL" if read_music_model(root / name) is None else "Generate Music"
    return (
        name,
        f"{name}: {size:.2f} GiB at commit {checked.revision}. Press R to see it in {node}.",
    )


def _check(path: Path) -> CheckedModel:
    """Check a folder for the node that it is for."""
    music = read_music_model(path)
    return check_complete(path) if music is None else check_complete_music(music)

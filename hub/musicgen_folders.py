"""Finds MusicGen folders as Hugging Face lays them out, and checks that they are complete."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from .model_check import CheckedModel, check_files, check_type
from .model_folders import (
    CONFIG,
    FoundModels,
    ModelFolder,
    ModelFolderError,
    download_again,
    find_models,
    is_lfs_pointer,
    lfs_error,
    read_json,
)

MELODY = "musicgen_melody"
MODEL_TYPES = ("musicgen", MELODY)
FEATURES = "preprocessor_config.json"


def find_music_models(roots: Iterable[str | os.PathLike[str]]) -> FoundModels:
    """Look for MusicGen folders below each root, complete or not, as `find_models` does."""
    return find_models(roots, read_music_model)


def read_music_model(path: Path, name: str | None = None) -> ModelFolder | None:
    """Read a folder's config; None if it is not that of MusicGen.

    Raises:
        ModelFolderError: there is no readable config.
    """
    config = read_json(path, CONFIG)
    model_type = config.get("model_type")
    if model_type not in MODEL_TYPES:
        return None
    architectures = config.get("architectures")
    first = architectures[0] if isinstance(architectures, list) and architectures else ""
    has_own_code = bool(config.get("auto_map"))
    shown = name if name is not None else path.name
    return ModelFolder(path, shown, model_type, str(first), False, has_own_code)


def check_music_model(path: Path) -> CheckedModel:
    """Check a MusicGen folder; only the headers of the weights are read.

    Raises:
        ModelFolderError: not MusicGen, incomplete, damaged, or unknown to the installed
            transformers.
    """
    folder = read_music_model(path)
    if folder is None:
        problem = "the config is not that of MusicGen"
        remedy = "Choose a MusicGen folder, such as that of facebook/musicgen-small"
        raise ModelFolderError(path, problem, remedy)
    check_type(folder)
    return check_complete_music(folder)


def check_complete_music(folder: ModelFolder) -> CheckedModel:
    """As `check_music_model`, but whether transformers can load the model does not matter.

    Raises:
        ModelFolderError: incomplete or damaged.
    """
    checked = check_files(folder)
    if folder.model_type == MELODY:
        file = folder.path / FEATURES
        if not file.is_file():
            problem = f"{FEATURES} is missing, which says how melodies are read"
            raise ModelFolderError(folder.path, problem, download_again(), (FEATURES,))
        if is_lfs_pointer(file):
            raise lfs_error(folder.path, [FEATURES])
    return checked

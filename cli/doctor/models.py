"""The models of the kinds that this pack uses: how many there are, and which are not complete."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...hub.model_check import check_files
from ...hub.model_folders import ModelFolderError, find_models
from ...hub.musicgen_folders import check_complete_music, find_music_models
from .finding import BROKEN, NOTE, WARNING, Finding
from .model_roots import model_roots
from .version_numbers import at_least
from .versions import QWEN3_VL

FILES = {
    "LoRAs": ("loras",),
    "diffusion models": ("diffusion_models", "unet"),
}
FOLDERS = {
    "language models": ("LLM", "text_encoders", "clip"),
    "music models": ("musicgen", "LLM"),
}
_SUFFIXES = (".safetensors", ".sft", ".ckpt", ".pt", ".pt2", ".pth", ".bin", ".pkl")
_TOPIC = "models"

Kinds = dict[str, dict[str, Any]]


def look_at_models(
    comfyui: Path | None, models: Path | None, transformers: str, findings: list[Finding]
) -> Kinds:
    """Number of models and state of each folder, by kind.

    Args:
        comfyui: ComfyUI's folder.
        models: its models folder, if it is another one than ``models`` in that.
        transformers: the version; "" if there is none.
        findings: gets what is wrong.
    """
    kinds = {**FILES, **FOLDERS}
    names = tuple({name: None for one in kinds.values() for name in one})
    roots = model_roots(comfyui, models, names, findings)
    found: Kinds = {}
    for kind, folder_names in kinds.items():
        folders = [_state(root, findings) for name in folder_names for root in roots[name]]
        usable = [Path(one["path"]) for one in folders if one["readable"]]
        if kind in FILES:
            count = len(set(_files(usable)))
        else:
            count = _count_folders(kind, usable, transformers, findings)
        found[kind] = {"count": count, "folders": folders}
        if folders and not count and kind == "LoRAs":
            problem = f"There are no {kind} in {folders[0]['path']}"
            remedy = "Put some there, or name their folder in extra_model_paths.yaml"
            findings.append(Finding(NOTE, _TOPIC, problem, remedy))
    return found


def _state(root: Path, findings: list[Finding]) -> dict[str, Any]:
    exists = root.is_dir()
    readable = exists and os.access(root, os.R_OK | os.X_OK)
    unreadable = Finding(
        BROKEN, _TOPIC, f"The folder {root} cannot be read", "Give yourself the right to read it"
    )
    if exists and not readable and unreadable.problem not in (one.problem for one in findings):
        findings.append(unreadable)
    return {"path": str(root), "exists": exists, "readable": readable}


def _files(roots: list[Path]) -> Iterator[str]:
    """Real paths of model files, so that two names of a folder count once."""
    for root in roots:
        for folder, _, names in os.walk(root, followlinks=True):
            yield from (
                os.path.realpath(Path(folder, name))
                for name in names
                if name.lower().endswith(_SUFFIXES)
            )


def _count_folders(kind: str, roots: list[Path], transformers: str, findings: list[Finding]) -> int:
    music = kind == "music models"
    found = find_music_models(roots) if music else find_models(roots)
    problems = list(found.problems)
    whole = 0
    for model in found.models.values():
        try:
            (check_complete_music if music else check_files)(model)
        except ModelFolderError as error:
            problems.append(error)
            continue
        whole += 1
        too_old = transformers and not at_least(transformers, QWEN3_VL)
        if model.model_type.startswith("qwen3_vl") and too_old:
            problem = f"{model.path} needs transformers {QWEN3_VL}, and {transformers} is installed"
            findings.append(Finding(BROKEN, _TOPIC, problem, "Update transformers"))
    known = {finding.problem for finding in findings}
    for error in problems:
        problem = f"{error.path}: {error.problem}"
        if problem not in known:
            findings.append(Finding(WARNING, _TOPIC, problem, error.remedy))
    return whole

"""Music for a node: the model in ComfyUI's memory, progress for each step, and Cancel."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from comfy.model_management import get_torch_device, throw_exception_if_processing_interrupted
from comfy.utils import ProgressBar

from ..hub.model_folders import CONFIG, read_json
from ..hub.musicgen_folders import check_music_model
from ..music.codec import decode_bytes
from ..music.compose import MusicRequest, compose
from ..music.music_model import (
    TRAINED_SECONDS,
    MusicModel,
    load_music_model,
    music_model_key,
    resolve_dtype,
)
from ..vlm.loading.headroom import ACTIVATION_BYTES
from .transformers_pool import PooledModelPatcher, TransformersPool

POOL: TransformersPool[MusicModel] = TransformersPool()


@dataclass(frozen=True)
class MusicChoice:
    """A MusicGen folder, the dtype of its decoder, and whether it may stay in memory."""

    path: Path
    dtype: str = "auto"
    keep_loaded: bool = True


def make_music(choice: MusicChoice, request: MusicRequest) -> tuple[dict[str, Any], str]:
    """Return ComfyUI's AUDIO and the report.

    Raises:
        ModelFolderError, MusicError: the model or the request cannot be used.
        RuntimeError: the model computes no usable numbers.
    """
    model, patcher = load(choice, request)
    bar = ProgressBar(1)

    def progress(done: int, total: int) -> None:
        throw_exception_if_processing_interrupted()
        bar.update_absolute(done, total)

    try:
        music = compose(model, request, progress)
    finally:
        del model  # an error's traceback would keep it
        if not choice.keep_loaded:
            POOL.drop(patcher)
    bar.update_absolute(bar.total)
    audio = {"waveform": music.audio.waveform, "sample_rate": music.audio.rate}
    return audio, music.report.markdown()


def load(
    choice: MusicChoice, request: MusicRequest
) -> tuple[MusicModel, PooledModelPatcher[MusicModel]]:
    """Return the model on ComfyUI's device, with room for what the request takes.

    Raises:
        ModelFolderError, MusicError: as `load_music_model`.
    """
    device = get_torch_device()
    dtype = resolve_dtype(choice.dtype, device)
    checked = check_music_model(choice.path)
    return POOL.obtain(
        music_model_key(checked, dtype, device),
        choice.path,
        lambda: load_music_model(choice.path, dtype, device),
        checked.nbytes,
        device,
        headroom(choice.path, request, dtype),
    )


def headroom(path: Path, request: MusicRequest, dtype: torch.dtype) -> int:
    """Estimate the bytes for keys and values, for activations and for decoding."""
    config = read_json(path, CONFIG)
    decoder, codec = config.get("decoder", {}), config.get("audio_encoder", {})
    layers, width = decoder.get("num_hidden_layers", 24), decoder.get("hidden_size", 1024)
    positions = decoder.get("max_position_embeddings", 2048)
    rows = request.variations * (2 if request.sampling.guided else 1)
    keys_and_values = 2 * layers * width * dtype.itemsize * positions * rows
    seconds = request.seconds + (TRAINED_SECONDS if request.before else 0)
    samples = round(seconds * codec.get("sampling_rate", 32000))
    return ACTIVATION_BYTES + keys_and_values + decode_bytes(codec.get("num_filters", 64), samples)

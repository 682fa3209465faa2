"""Checks audio that comes from outside, and brings it to the channels that a model takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from .errors import MusicError


@dataclass(frozen=True, eq=False)
class Audio:
    """Sound.

    Attributes:
        waveform: `[batch, channels, samples]` float32 on the CPU.
        rate: samples per second.
    """

    waveform: torch.Tensor
    rate: int

    @property
    def samples(self) -> int:
        return self.waveform.shape[-1]

    @property
    def seconds(self) -> float:
        return self.samples / self.rate


def read_audio(value: Any, name: str) -> Audio:
    """Return what ComfyUI hands around as AUDIO.

    Args:
        value: a mapping with ``waveform`` `[batch, channels, samples]` and ``sample_rate``.
        name: of the input, for messages.

    Raises:
        MusicError: it is none, has no samples, more than two channels, or NaN or infinite samples.
    """
    waveform, rate = _parts(value, name)
    if waveform.dim() != 3:
        shape = list(waveform.shape)
        raise MusicError(f"{name}: the waveform has shape {shape} in place of [B, C, T]")
    batch, channels, samples = waveform.shape
    if not batch or not samples:
        raise MusicError(f"{name}: the audio has no samples. Connect audio that lasts some time")
    if channels not in (1, 2):
        raise MusicError(
            f"{name}: the audio has {channels} channels; only mono and stereo are known. Mix it"
            " down to two"
        )
    if not waveform.dtype.is_floating_point:
        raise MusicError(f"{name}: samples are {waveform.dtype}; they must be floats from -1 to 1")
    waveform = waveform.detach().to("cpu", torch.float32)
    if not waveform.isfinite().all():
        raise MusicError(f"{name}: the audio has samples that are NaN or infinite")
    return Audio(waveform, rate)


def with_channels(waveform: torch.Tensor, channels: int) -> torch.Tensor:
    """Mix `[batch, 1 or 2, samples]` down to mono, or double mono for stereo."""
    if waveform.shape[1] == channels:
        return waveform
    return waveform.mean(1, keepdim=True) if channels == 1 else waveform.repeat(1, 2, 1)


def with_batch(waveform: torch.Tensor, batch: int, name: str) -> torch.Tensor:
    """Give each of `batch` variations its own audio, or all of them the same.

    Raises:
        MusicError: there are neither one nor `batch` of them.
    """
    here = len(waveform)
    if here not in (1, batch):
        raise MusicError(
            f"{name} is a batch of {here}, but there are {batch} variations. Set variations to"
            f" {here}, or connect a single one"
        )
    return waveform.expand(batch, -1, -1)


def _parts(value: Any, name: str) -> tuple[torch.Tensor, int]:
    try:
        waveform, rate = value["waveform"], value["sample_rate"]
    except (TypeError, KeyError, IndexError):
        raise MusicError(
            f"{name}: this is no audio. Connect an output of type AUDIO; a video may have no sound"
        ) from None
    if not isinstance(waveform, torch.Tensor):
        raise MusicError(f"{name}: the waveform is no tensor")
    if isinstance(rate, bool) or int(rate) != rate or rate <= 0:
        raise MusicError(f"{name}: the sample rate is {rate}; it must be a number above 0")
    return waveform, int(rate)

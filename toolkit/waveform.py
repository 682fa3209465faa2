"""Sound as ComfyUI's AUDIO has it: `{"waveform": [B, C, T] float32, "sample_rate": int}`."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch

from .outline import leaf


class AudioError(ValueError):
    """A value that is no AUDIO; the message says what is wrong with it."""


def parts_of(audio: Any) -> tuple[torch.Tensor, int]:
    """The waveform, `[B, C, T]`, and the sample rate in Hz.

    Raises:
        AudioError: there is no waveform of three dimensions, or no whole, positive sample rate.
    """
    waveform = audio.get("waveform") if isinstance(audio, dict) else None
    if not isinstance(waveform, torch.Tensor) or waveform.ndim != 3:
        shape = list(waveform.shape) if isinstance(waveform, torch.Tensor) else type(audio).__name__
        raise AudioError(
            f"audio: no waveform [batch, channels, samples] in it ({shape}). Connect an AUDIO."
        )
    rate = audio.get("sample_rate")
    number = rate if isinstance(rate, (int, float)) and not isinstance(rate, bool) else 0
    if number % 1 != 0 or number < 1:
        raise AudioError(f"audio: the sample rate is {leaf(rate)}, not a positive whole number.")
    return waveform, int(number)


def peaks(waveform: torch.Tensor, buckets: int) -> list[tuple[float, float]]:
    """The lowest and the highest sample in each of up to `buckets` equal stretches of time.

    Args:
        waveform: `[C, T]`; all channels count together, NaN as 0.
        buckets: at least 1; fewer come back for a shorter sound.
    """
    samples = waveform.shape[-1]
    if samples == 0 or waveform.shape[0] == 0:
        return []
    lowest = waveform.detach().float().nan_to_num(nan=0.0).amin(dim=0).cpu()
    highest = waveform.detach().float().nan_to_num(nan=0.0).amax(dim=0).cpu()
    edges = [index * samples // buckets for index in range(buckets + 1)]
    return [
        (float(lowest[start:end].min()), float(highest[start:end].max()))
        for start, end in pairwise(edges)
        if end > start
    ]


def decibels(amplitude: float) -> float:
    """An amplitude as dB below full scale; silence is minus infinity."""
    return 20.0 * math.log10(amplitude) if amplitude > 0 else -math.inf

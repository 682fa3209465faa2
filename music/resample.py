"""Other sample rates, by torchaudio where it is there."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from .errors import MusicError

# The filter that torchaudio makes is as large as the product of the rates, without what both can be
# divided by: some hundred kilobytes for usual rates, gigabytes for 32000 and 44101.
_MAX_FILTER = 2**24


@dataclass(frozen=True)
class AudioSupport:
    """Whether torchaudio can be used.

    Attributes:
        version: of torchaudio; None if it cannot be used.
        problem: why not; empty if it can.
    """

    version: str | None
    problem: str = ""

    def line(self) -> str:
        """One line for a report."""
        if self.version is not None:
            return f"torchaudio {self.version}: other sample rates and melodies"
        return f"no other sample rates and no melodies: {self.problem}"


def audio_support() -> AudioSupport:
    """Find out by importing it, as one that does not fit torch is installed but cannot be used."""
    try:
        import torchaudio
    except ModuleNotFoundError:
        return AudioSupport(None, "torchaudio is not installed")
    except (ImportError, OSError, RuntimeError) as error:
        return AudioSupport(None, f"torchaudio cannot be imported ({error})")
    return AudioSupport(torchaudio.__version__)


def require_torchaudio(purpose: str) -> Any:
    """Return torchaudio's module of functions.

    Args:
        purpose: what it is needed for, the beginning of the message.

    Raises:
        MusicError: it cannot be used.
    """
    support = audio_support()
    if support.version is None:
        raise MusicError(
            f"{purpose} needs torchaudio: {support.problem}. Install the version that fits your"
            " torch into the Python that runs ComfyUI"
        )
    import torchaudio.functional

    return torchaudio.functional


def resample(waveform: torch.Tensor, rate: int, wanted: int, purpose: str) -> torch.Tensor:
    """Return `[..., samples]` at another rate, `ceil(samples * wanted / rate)` samples.

    Raises:
        MusicError: the rates differ and torchaudio cannot be used, or the rates are so odd that it
            would take very much memory.
    """
    if rate == wanted:
        return waveform
    common = math.gcd(rate, wanted)
    if (rate // common) * (wanted // common) > _MAX_FILTER:
        raise MusicError(
            f"{purpose}: {rate} Hz cannot be brought to {wanted} Hz within reasonable memory. Use a"
            " common rate, such as 32000, 44100 or 48000"
        )
    functional = require_torchaudio(f"{purpose} ({rate} Hz to {wanted} Hz)")
    return functional.resample(waveform.contiguous(), rate, wanted)

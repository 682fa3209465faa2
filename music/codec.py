"""Sound to codes and back, by the EnCodec inside of a MusicGen."""

from __future__ import annotations

import torch

from .errors import MusicError
from .music_model import MusicModel

_TENSORS_AT_ONCE = 4  # input, padded input, output and the shortcut of a residual block


@torch.no_grad()
def encode(model: MusicModel, waveform: torch.Tensor) -> torch.Tensor:
    """Return the codes `[batch, codebooks, frames]` int64, on the model's device.

    Args:
        waveform: `[batch, channels, samples]` float32 at the model's rate, with its channels, a
            whole number of frames long.

    Raises:
        MusicError: the codec has other codebooks than the decoder.
    """
    per_channel = model.codebooks // model.channels
    codec = model.model.audio_encoder
    codes = []
    for channel in waveform.to(model.device).split(1, dim=1):
        found = codec.encode(channel).audio_codes
        if len(found) != 1 or found.shape[2] != per_channel:
            raise MusicError(
                f"{model.path}: the codec writes {found.shape[2]} codes a frame in {len(found)}"
                f" pieces, and the decoder reads {per_channel} in one"
            )
        codes.append(found[0])
    # Left and right take turns.
    return torch.stack(codes, 2).flatten(1, 2)


@torch.no_grad()
def decode(model: MusicModel, codes: torch.Tensor) -> torch.Tensor:
    """Return the sound `[batch, channels, frames * hop]` float32 on the CPU.

    Args:
        codes: `[batch, codebooks, frames]` int64.

    Raises:
        RuntimeError: the codec computes no usable numbers.
    """
    codec = model.model.audio_encoder
    # One at a time: long sound takes much memory on its way through the codec.
    rows = [
        torch.cat(
            [
                codec.decode(row[None, None, channel :: model.channels], [None]).audio_values[0]
                for channel in range(model.channels)
            ]
        ).to("cpu", torch.float32)
        for row in codes
    ]
    waveform = torch.stack(rows)
    if not waveform.isfinite().all():
        raise RuntimeError("The codec computes no usable numbers. Download the model again")
    return waveform[..., : codes.shape[-1] * model.hop]


def decode_bytes(filters: int, samples: int) -> int:
    """Estimate the bytes that decoding takes at most, in the last layers.

    Args:
        filters: of the codec's widest layer at the full rate.
        samples: of one channel.
    """
    return 4 * _TENSORS_AT_ONCE * filters * samples

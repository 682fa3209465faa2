"""The order in which MusicGen writes codes: each codebook one step later than the one before.

Step 0 is the start token in all of them. Frame `t` of codebook `k` stands at step `t + k + 1`; what
no frame stands at holds the start token. A stereo model has its codebooks in pairs, left and right,
of equal delay.
"""

from __future__ import annotations

import torch


def delays(codebooks: int, channels: int) -> torch.Tensor:
    """Return by how many steps each codebook is late, `[codebooks]` int64."""
    return torch.arange(codebooks) // channels


def steps_for(frames: int, codebooks: int, channels: int) -> int:
    """Return the number of steps, start included, that hold so many frames."""
    return frames + codebooks // channels


def delayed(codes: torch.Tensor, steps: int, channels: int, start: int) -> torch.Tensor:
    """Lay codes `[batch, codebooks, frames]` out in steps `[batch, codebooks, steps]`.

    What is not known yet is -1, and the start token stands where no frame does.
    """
    batch, codebooks, frames = codes.shape
    late = delays(codebooks, channels).to(codes.device)[:, None]
    step = torch.arange(steps, device=codes.device)
    last = steps - codebooks // channels + late
    outside = (step <= late) | (step > last)
    laid = codes.new_full((batch, codebooks, steps), -1)
    laid[:, outside] = start
    for codebook, delay in enumerate(late.flatten().tolist()):
        first = delay + 1
        laid[:, codebook, first : first + frames] = codes[:, codebook]
    return laid


def undelayed(laid: torch.Tensor, channels: int) -> torch.Tensor:
    """Return the frames `[batch, codebooks, frames]` of steps `[batch, codebooks, steps]`."""
    codebooks, steps = laid.shape[1:]
    frames = steps - codebooks // channels
    late = delays(codebooks, channels).tolist()
    rows = [laid[:, k, delay + 1 : delay + 1 + frames] for k, delay in enumerate(late)]
    return torch.stack(rows, 1)

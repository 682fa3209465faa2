"""Choosing codes: guided by what the prompt changes, at random in a way that a seed repeats."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from ..defaults import DEFAULTS
from .errors import MusicError

_DEFAULTS = DEFAULTS["VivaceGenerateMusic"]


@dataclass(frozen=True)
class CodeSampling:
    """How codes are chosen.

    Attributes:
        guidance: how many times what the prompt changes counts; 1 reads the prompt only once.
        temperature: higher is more varied; 0 always takes the most probable code.
        top_k: take only this many of the most probable codes; 0 for all.
        seed: of the first variation; each further one has the next.

    Raises:
        MusicError: a number outside its range.
    """

    guidance: float = _DEFAULTS["guidance_scale"]
    temperature: float = _DEFAULTS["temperature"]
    top_k: int = _DEFAULTS["top_k"]
    seed: int = 0

    def __post_init__(self) -> None:
        ranges = {
            "guidance_scale": (self.guidance, self.guidance >= 1, "1 or more"),
            "temperature": (self.temperature, self.temperature >= 0, "0 or more"),
            "top_k": (self.top_k, self.top_k >= 0, "0 or more"),
        }
        for name, (value, fits, wanted) in ranges.items():
            if not (fits and math.isfinite(value)):
                raise MusicError(f"{name} is {value}; give a number {wanted}")

    @property
    def guided(self) -> bool:
        return self.guidance > 1


class CodeSampler:
    """Chooses the codes of several variations, each with a generator of its own.

    The generators are on the CPU, so that a seed means the same on every device.
    """

    def __init__(self, sampling: CodeSampling, variations: int) -> None:
        self._sampling = sampling
        self._generators = [
            torch.Generator().manual_seed((sampling.seed + number) % 2**63)
            for number in range(variations)
        ]

    def choose(self, logits: torch.Tensor) -> torch.Tensor:
        """Return codes `[batch, codebooks]` int64.

        Args:
            logits: `[batch, codebooks, codes]`; for guidance `[2 * batch, ...]`, those without the
                prompt behind those with it.

        Raises:
            RuntimeError: they are not numbers, as half precision overflows make them.
        """
        logits = logits.float()
        if self._sampling.guided:
            prompted, plain = logits.chunk(2)
            logits = plain + (prompted - plain) * self._sampling.guidance
        if not logits.isfinite().all():
            raise RuntimeError("The model computes no usable numbers. Choose dtype float32")
        if self._sampling.temperature == 0:
            return logits.argmax(-1)
        return self._draw(logits / self._sampling.temperature)

    def _draw(self, logits: torch.Tensor) -> torch.Tensor:
        top_k = self._sampling.top_k
        if 0 < top_k < logits.shape[-1]:
            least = logits.topk(top_k).values[..., -1:]
            logits = logits.masked_fill(logits < least, -torch.inf)
        # The largest of logits plus Gumbel noise is a draw from their softmax.
        noise = torch.stack(
            [
                torch.empty(logits.shape[1:]).exponential_(generator=generator)
                for generator in self._generators
            ]
        )
        return (logits - noise.to(logits.device).log()).argmax(-1)

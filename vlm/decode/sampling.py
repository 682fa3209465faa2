"""Choosing the next token: greedy, or at random in a way that a seed repeats."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen.

    Attributes:
        temperature: 0 takes the most probable token; the rest but the penalty then plays no part.
        top_p: take only the most probable tokens that together reach this probability.
        top_k: take only this many of the most probable tokens; 0 for all.
        min_p: take only tokens at least this probable, in relation to the most probable one.
        repetition_penalty: above 1, tokens that occurred are less probable.
        seed: the same seed makes the same choices.

    Raises:
        ValueError: a number outside its range.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        ranges = {
            "temperature": (self.temperature >= 0, "0 or more"),
            "top_p": (0 < self.top_p <= 1, "above 0 and at most 1"),
            "top_k": (self.top_k >= 0, "0 or more"),
            "min_p": (0 <= self.min_p <= 1, "from 0 to 1"),
            "repetition_penalty": (self.repetition_penalty > 0, "above 0"),
        }
        for name, (fits, wanted) in ranges.items():
            value = getattr(self, name)
            if not (fits and math.isfinite(value)):
                raise ValueError(f"{name} is {value}; give a number {wanted}")


class Sampler:
    """Chooses the tokens of one sequence, with a generator of its own.

    Args:
        prompt: token ids, which count for the repetition penalty.
    """

    def __init__(self, sampling: Sampling, prompt: Sequence[int], device: torch.device) -> None:
        self._sampling = sampling
        self._generator = torch.Generator(device).manual_seed(sampling.seed % 2**63)
        self._seen = torch.tensor(sorted(set(prompt)), dtype=torch.long, device=device)

    def choose(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the next token, int64 without dimensions, for logits `[vocabulary]` float32."""
        sampling = self._sampling
        if sampling.repetition_penalty != 1:
            logits = self._penalized(logits)
        if sampling.temperature == 0:
            return logits.argmax()
        logits = logits / sampling.temperature
        if 0 < sampling.top_k < len(logits):
            least = logits.topk(sampling.top_k).values[-1]
            logits = logits.masked_fill(logits < least, -torch.inf)
        if sampling.top_p < 1:
            logits = _nucleus(logits, sampling.top_p)
        probabilities = logits.softmax(-1)
        if sampling.min_p > 0:
            least = probabilities.max() * sampling.min_p
            probabilities = probabilities.masked_fill(probabilities < least, 0)
        return torch.multinomial(probabilities, 1, generator=self._generator)[0]

    def push(self, token: int) -> None:
        """Take note of the token that came next."""
        if self._sampling.repetition_penalty != 1:
            self._seen = torch.cat((self._seen, self._seen.new_tensor([token]))).unique()

    def _penalized(self, logits: torch.Tensor) -> torch.Tensor:
        penalty = self._sampling.repetition_penalty
        seen = logits[self._seen]
        return logits.index_copy(
            0, self._seen, torch.where(seen < 0, seen * penalty, seen / penalty)
        )


def _nucleus(logits: torch.Tensor, top_p: float) -> torch.Tensor:
    """Remove the tail of tokens that is not needed to reach `top_p`; one token always stays."""
    ordered, order = logits.sort()
    tail = ordered.softmax(-1).cumsum(-1) <= 1 - top_p
    tail[-1] = False
    return logits.masked_fill(torch.zeros_like(tail).scatter(0, order, tail), -torch.inf)

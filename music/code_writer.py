"""The decode loop: codes that go on from codes, one step of all codebooks at a time."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import torch

from .code_sampler import CodeSampler
from .delay_pattern import delayed, steps_for, undelayed
from .music_model import MusicModel

Step = Callable[[], None]


def new_steps(model: MusicModel, frames: int) -> int:
    """How many steps writing so many new frames takes."""
    return steps_for(frames, model.codebooks, model.channels) - 1


@torch.no_grad()
def write_codes(
    model: MusicModel,
    states: torch.Tensor,
    known: torch.Tensor,
    frames: int,
    sampler: CodeSampler,
    before_step: Step = lambda: None,
) -> torch.Tensor:
    """Return `frames` new frames `[batch, codebooks, frames]` int64 that follow `known`.

    Args:
        states: `[rows, tokens, dim]`, as `condition` makes them; twice the batch with guidance.
        known: `[batch, codebooks, frames]` int64; it may have no frames.
        before_step: is called `new_steps` times, and may raise.

    Raises:
        RuntimeError: the model computes no numbers, as half precision overflows do.
    """
    batch, codebooks, old = known.shape
    steps = steps_for(old + frames, codebooks, model.channels)
    laid = delayed(known, steps, model.channels, model.start)
    given, cache = states, None
    for step in range(old + 1, steps):
        before_step()
        fed = laid[..., :step] if cache is None else laid[..., step - 1 : step]
        fed = fed.repeat(len(states) // batch, 1, 1)
        logits, cache = _forward(model, fed, given, cache)
        if model.takes_melody:
            given = None  # it stands before the codes, and is in the cache now
        chosen = sampler.choose(logits)
        laid[..., step] = torch.where(laid[..., step] < 0, chosen, laid[..., step])
    return undelayed(laid, model.channels)[..., old:]


def _forward(
    model: MusicModel, fed: torch.Tensor, states: torch.Tensor | None, cache: Any
) -> tuple[torch.Tensor, Any]:
    """Return the logits of the last step, `[rows, codebooks, codes]`, and the cache."""
    # The decoder draws from Python's generator for each layer, even where it drops none.
    before = random.getstate()
    try:
        output = model.model.decoder(
            input_ids=fed.flatten(0, 1),
            encoder_hidden_states=states,
            past_key_values=cache,
            use_cache=True,
        )
    finally:
        random.setstate(before)
    return output.logits[:, -1].unflatten(0, (-1, model.codebooks)), output.past_key_values

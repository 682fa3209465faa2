"""What the runtime branch costs in a step of a Qwen-Image block at full width."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ...wrappers.lora.apply import apply_loras
from ...wrappers.lora.branch_set import KEY, install, remove
from .files import KINDS, write_stack
from .harness import Result, Target, Timings, spread
from .models import one_block

COUNTS, RANK = (2, 6), 16  # LoRAs of one stack
TEXT_TOKENS = {"cpu": 64, "cuda": 256}
LATENT = {"cpu": 32, "cuda": 128}  # side of the latent; a token is 2x2 of it
# Of a step with the same change merged into the weights, which is a step without a branch.
TARGETS = {"cpu": {32: Target("at most", 1.10)}, "cuda": {96: Target("at most", 1.03)}}


def measure(folder: Path, device: str, rounds: int) -> tuple[list[Result], dict[str, object]]:
    """Time steps of a one-block model with stacks of LoRAs and without, by turns."""
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    model = one_block(device, dtype)
    paths = write_stack(folder, KINDS[0], RANK, max(COUNTS), blocks=1)
    stacks = {}
    for count in COUNTS:
        patched, _ = apply_loras(model, [(path, 0.5) for path in paths[:count]], "branch")
        patched.attachments[KEY].store.to(device)
        stacks[count * RANK] = patched
    network: Any = model.model.diffusion_model
    inputs = step_inputs(device, dtype)
    timings = Timings(device)
    with torch.inference_mode():
        network(*inputs)
        for _ in range(rounds):
            timings.time("merged", lambda: network(*inputs), fresh=False)
            for rank, patched in stacks.items():
                install(patched)
                try:
                    timings.time(f"rank {rank}", lambda: network(*inputs), fresh=False)
                finally:
                    remove(patched)
    tokens = LATENT[device] ** 2 // 4 + TEXT_TOKENS[device]
    case = f"qwen_image block, {tokens} tokens"
    results = [
        Result(
            case,
            f"step with a branch of rank {rank} / step with merged weights",
            spread(timings.ratios(f"rank {rank}", "merged")),
            TARGETS[device].get(rank),
            f"multiplications alone: {1 + arithmetic_share(tokens, rank):.3f}, since all 12 linear"
            " layers have a branch",
        )
        for rank in stacks
    ]
    return results, {
        "case": case,
        "dtype": str(dtype).removeprefix("torch."),
        "milliseconds": timings.summary(),
    }


def step_inputs(
    device: str, dtype: torch.dtype, text_width: int = 3584
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Latent ``[1, 16, 1, side, side]``, time ``[1]`` and text ``[1, tokens, text_width]``."""
    side, text = LATENT[device], TEXT_TOKENS[device]
    return (
        torch.randn(1, 16, 1, side, side, device=device, dtype=dtype),
        torch.full((1,), 0.5, device=device, dtype=dtype),
        torch.randn(1, text, text_width, device=device, dtype=dtype),
    )


def arithmetic_share(tokens: int, rank: int) -> float:
    """Multiplications of branches of a total rank as a share of those of the block.

    The block has, per token, its linear layers and the attention over all tokens; its modulation
    is computed once for all tokens and does not count.
    """
    shapes = list(KINDS[0].shapes(blocks=1).values())
    linear = sum(out * inp for out, inp in shapes) / 2  # half of the layers see a token
    branch = sum(rank * (out + inp) for out, inp in shapes) / 2
    return branch / (linear + 2 * tokens * 3072)

"""A stack of LoRAs on a model and its text encoder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .apply import place_loras
from .apply_to_text_encoder import EncoderPlacement, apply_to_text_encoder
from .running_model import Mode
from .stack_report import report

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import CLIP


def apply_stack(
    model: ModelPatcher,
    clip: CLIP | None,
    loras: Sequence[tuple[Path, float, float]],
    mode: Mode = "auto",
    strict: bool = False,
) -> tuple[ModelPatcher, CLIP | None, str]:
    """Clones of both with the LoRAs, or what came in where nothing changes.

    Args:
        clip: the text encoder; None leaves what the files have for one alone, and says so.
        loras: file, strength for the model and strength for the text encoder of each.

    Returns:
        The model, the text encoder, and the report as Markdown, whose first line is the summary.

    Raises:
        ValueError: as `apply_loras` and `apply_to_text_encoder`.
    """
    # A LoRA may change only the text encoder.
    files = [(path, strength) for path, strength, _ in loras if strength]
    with_encoder = clip is not None
    placed = place_loras(model, files, mode, strict, with_encoder)
    encoders: list[EncoderPlacement] | None = None
    if clip is not None:
        parts = [(path, strength) for path, _, strength in loras]
        clip, encoders = apply_to_text_encoder(clip, parts, strict)
    return placed.model, clip, report(placed, encoders)

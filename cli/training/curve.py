"""The loss of a training as a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from ..errors import CliError

_SIZE = (960, 540)
_LEFT, _TOP, _RIGHT, _BOTTOM = 80, 24, 24, 48
_LINES = 5
_SMOOTH = 0.1  # of all steps are averaged into one point of the second line


def write_curve(path: Path, losses: Sequence[float]) -> None:
    """Draw each step's loss, and their running mean, as a PNG, whole or not at all.

    Args:
        losses: of the steps in order; those that are not finite leave gaps.

    Raises:
        CliError: Pillow is missing.
    """
    try:
        from PIL import Image, ImageDraw, ImageFont
    except ImportError:
        problem = "The loss curve needs the package pillow"
        raise CliError(problem, "Install it: pip install pillow") from None

    picture = Image.new("RGB", _SIZE, "white")
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(14)
    finite = [loss for loss in losses if math.isfinite(loss)] or [0.0]
    least, most = min(finite), max(finite)
    span = most - least or abs(most) or 1.0
    width, height = _SIZE[0] - _LEFT - _RIGHT, _SIZE[1] - _TOP - _BOTTOM

    def place(index: int, loss: float) -> tuple[float, float]:
        across = index / max(1, len(losses) - 1)
        return _LEFT + across * width, _TOP + (least + span - loss) / span * height

    for number in range(_LINES + 1):
        loss = least + span * number / _LINES
        y = place(0, loss)[1]
        draw.line([(_LEFT, y), (_LEFT + width, y)], fill="#dddddd")
        draw.text((_LEFT - 8, y), f"{loss:.4g}", fill="black", font=font, anchor="rm")
    label = f"step 1 to {len(losses)}"
    draw.text((_LEFT + width / 2, _SIZE[1] - 16), label, fill="black", font=font, anchor="mm")
    for values, color in ((losses, "#9ec5e8"), (_mean(losses), "#1f5f99")):
        for index in range(1, len(values)):
            if math.isfinite(values[index - 1]) and math.isfinite(values[index]):
                ends = [place(index - 1, values[index - 1]), place(index, values[index])]
                draw.line(ends, fill=color, width=2)
    unfinished = path.with_name(f".{path.name}.part")
    try:
        picture.save(unfinished, "PNG")
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _mean(losses: Sequence[float]) -> list[float]:
    width = max(1, round(len(losses) * _SMOOTH))
    windows = [losses[max(0, index - width + 1) : index + 1] for index in range(len(losses))]
    return [sum(window) / len(window) for window in windows]

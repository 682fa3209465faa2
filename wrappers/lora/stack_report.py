"""What a stack of LoRAs did to a model, for people: a line, a table, and a list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ...lora.file_report import Report, markdown
from ...lora.mapping.module_names import Ignored
from .rounding import Rounding, percent

if TYPE_CHECKING:
    from .apply_to_text_encoder import EncoderPlacement
    from .placement import Placed

NOTHING = "No LoRA is on."


def report(
    placed: Placed,
    encoders: Sequence[EncoderPlacement] | None = None,
) -> str:
    """The report as Markdown; its first line is the summary, which stands alone.

    Args:
        encoders: what went onto a text encoder; None where there is none, so that the table counts
            those tensors as ignored.
    """
    placements = placed.files
    if not placements and not encoders:
        return NOTHING
    files = [p.lora.report for p in placements]
    if encoders is not None:
        files = [_without_text_encoder(file) for file in files]
    lines = [f"- `{p.lora.path.name}` in {p.milliseconds:.1f} ms, {p.line()}" for p in placements]
    lines += [f"- `{encoder.path.name}`, {encoder.line()}" for encoder in encoders or ()]
    if placed.rounding is not None:
        lines.append(f"- {placed.rounding.line()}")
    lines += [f"- {note}" for note in placed.notes]
    table = [markdown(files), ""] if files else []
    return "\n".join([_summary(placed, files, encoders or ()), "", *table, *lines])


def _without_text_encoder(file: Report) -> Report:
    return replace(file, keys=tuple(k for k in file.keys if k.reason is not Ignored.TEXT_ENCODER))


def _summary(placed: Placed, files: list[Report], encoders: Sequence[EncoderPlacement]) -> str:
    placements = placed.files
    names = {p.lora.path for p in placements} | {encoder.path for encoder in encoders}
    # The same file may stand in several rows.
    parts = [_number(max(len(names), len(placements)), "LoRA")]
    parts.append(_number(sum(placement.count for placement in placements), "module"))
    if encoders:
        modules = sum(encoder.modules for encoder in encoders)
        parts.append(f"{modules} of the text encoder")
    if ignored := sum(sum(file.ignored().values()) for file in files):
        parts.append(f"{_number(ignored, 'tensor')} ignored")
    failed = sum(len(p.problems) for p in placements) + sum(len(e.left) for e in encoders)
    if failed:
        parts.append(f"{failed} not applied")
    if isinstance(placed.rounding, Rounding) and placed.rounding.too_much:
        parts.append(f"merging loses {percent(placed.rounding.error)}: use auto")
    return ", ".join(parts)


def _number(count: int, thing: str) -> str:
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"

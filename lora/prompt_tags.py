"""LoRAs written in a prompt, as `<lora:name:0.8>`, or `<lora:name:0.8:0.6>` with the strength for
the text encoder second."""

from __future__ import annotations

import math
import re

from .rows import LoraRow, RowError

_TAG = re.compile(r"<lora:([^<>]*)>", re.IGNORECASE)
_OPEN = re.compile(r"<lora:[^<>]{0,40}", re.IGNORECASE)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
_BETWEEN = " \t,"
_FORM = "Write it like <lora:style:0.8> or <lora:style:0.8:0.6>"


def parse_text(text: str) -> tuple[tuple[LoraRow, ...], str]:
    """Take the tags out of a text; return their rows in order, and the text without them.

    A tag without numbers has strength 1. With a tag goes the comma or blank that only kept it from
    its neighbours. A text without tags is returned as it is.

    Raises:
        RowError: a tag without a name, with anything but one or two numbers after it, or without
            its closing bracket.
    """
    rows, segments, end = [], [], 0
    for match in _TAG.finditer(text):
        rows.append(_row(match[0], match[1]))
        segments.append(text[end : match.start()])
        end = match.end()
    segments.append(text[end:])
    rest = _join(segments)
    for piece in (*segments, rest):  # one may come about where another was taken out
        if opened := _OPEN.search(piece):
            raise RowError(f"The tag '{opened[0]}' in the text has no closing '>'. {_FORM}.")
    return tuple(rows), rest


def _row(tag: str, content: str) -> LoraRow:
    name, *numbers = (part.strip() for part in content.split(":"))
    if not name or len(numbers) > 2:
        raise RowError(f"The tag '{tag}' in the text is none of a LoRA. {_FORM}.")
    strengths = [float(number) if _NUMBER.fullmatch(number) else math.nan for number in numbers]
    if not all(map(math.isfinite, strengths)):
        raise RowError(f"The tag '{tag}' in the text has a strength that is no number. {_FORM}.")
    return LoraRow(
        name.replace("\\", "/"),
        strength=strengths[0] if strengths else 1.0,
        strength_clip=strengths[1] if len(strengths) > 1 else None,
    )


def _join(segments: list[str]) -> str:
    """Join what stood around tags. Commas and blanks at each seam become one, or none at an end."""
    first, *others = segments
    if not others:
        return first
    body = first.rstrip(_BETWEEN)
    parts, seam = [body], first[len(body) :]
    for segment in others:
        body = segment.strip(_BETWEEN)
        if not body:  # only separators between two tags
            seam += segment
            continue
        start = segment.index(body)
        parts += [_glue(parts[-1], seam + segment[:start], body), body]
        seam = segment[start + len(body) :]
    return "".join(parts) + (seam if others[-1].strip(_BETWEEN) else "")


def _glue(before: str, seam: str, after: str) -> str:
    if not before or before.endswith("\n") or after.startswith("\n"):
        return ""
    return ", " if "," in seam else seam[:1]

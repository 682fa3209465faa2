"""What there is to say of any value that flows along a link, in words and figures."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from .outline import clipped, leaf, outline, tensor_type
from .tensor_figures import TensorFigures, measure
from .waveform import AudioError, decibels, parts_of

MAX_TEXT = 100_000
_MAX_JSON = 1_000_000
_SHOWN_VALUES = 64
_SHOWN_ENTRIES = 20


@dataclass(frozen=True)
class Summary:
    """One value: `kind` is the sort of thing, `title` one line, `figures` label and value, `text`
    what is longer than a line."""

    kind: str
    title: str
    figures: tuple[tuple[str, str], ...] = ()
    text: str = ""

    def plain(self) -> str:
        """All of it as plain text."""
        lines = [self.title, *(f"  {label}: {figure}" for label, figure in self.figures)]
        return "\n".join([*lines, self.text] if self.text else lines)


def summarize(value: Any) -> Summary:
    """The summary of a value; never raises, whatever the value is."""
    try:
        kind = kind_of(value)
        return _SUMMARIES.get(kind, _anything)(value)
    except Exception as error:  # noqa: BLE001 - a value of someone else's class may raise anything
        problem = f"cannot be examined: {type(error).__name__}"
        return Summary("object", f"{type(value).__name__}, {problem}")


def kind_of(value: Any) -> str:
    """What sort of value it is, by its form: ComfyUI's links do not tell.

    `image`, `mask`, `tensor`, `latent`, `audio`, `conditioning`, `text`, `number`, `nothing`,
    `data` (mappings, lists, sets) or `object`.
    """
    if isinstance(value, torch.Tensor):
        return _tensor_kind(value)
    if isinstance(value, dict):
        if "samples" in value and hasattr(value["samples"], "shape"):
            return "latent"
        return "audio" if {"waveform", "sample_rate"} <= value.keys() else "data"
    if isinstance(value, list) and value and all(_is_condition(entry) for entry in value[:100]):
        return "conditioning"
    if value is None:
        return "nothing"
    if isinstance(value, str):
        return "text"
    if isinstance(value, (bool, int, float, complex)):
        return "number"
    return "data" if leaf(value) is None else "object"


def count(number: int, thing: str) -> str:
    """`1 image`, `2 images`."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _tensor_kind(value: torch.Tensor) -> str:
    if not value.is_floating_point() or value.layout != torch.strided:
        return "tensor"
    if value.ndim == 4 and value.shape[-1] in (1, 3, 4):
        return "image"
    return "mask" if value.ndim == 3 and min(value.shape[1:]) > 1 else "tensor"


def _is_condition(entry: Any) -> bool:
    return (
        isinstance(entry, (list, tuple))
        and len(entry) == 2
        and isinstance(entry[0], torch.Tensor)
        and isinstance(entry[1], dict)
    )


def _image(value: torch.Tensor) -> Summary:
    number, height, width, channels = value.shape
    colors = {1: "grey", 3: "RGB", 4: "RGB with alpha"}[channels]
    title = f"Image: {count(number, 'image')} of {width} x {height} pixels, {colors}"
    return Summary("image", title, _figures(value))


def _mask(value: torch.Tensor) -> Summary:
    number, height, width = value.shape
    title = f"Mask: {count(number, 'mask')} of {width} x {height} pixels"
    return Summary("mask", title, _figures(value))


def _tensor(value: torch.Tensor) -> Summary:
    few = value.ndim == 1 and measure(value) is not None
    text = ""
    if few:
        head = ", ".join(f"{number:g}" for number in value[:_SHOWN_VALUES].tolist())
        missing = value.numel() - _SHOWN_VALUES
        text = f"{head}, <{missing} more>" if missing > 0 else head
    return Summary("tensor", f"Tensor: {tensor_type(value)}", _figures(value), text)


def _latent(value: dict[str, Any]) -> Summary:
    samples = value["samples"]
    parts = list(getattr(samples, "tensors", None) or [samples])
    figures: list[tuple[str, str]] = []
    for part in parts:
        figures += [("samples", tensor_type(part)), *_figures(part)]
    figures += [(str(key), _short(item)) for key, item in value.items() if key != "samples"]
    batch, channels, *space = parts[0].shape if parts[0].ndim > 2 else (1, 1, *parts[0].shape)
    size = " x ".join(map(str, reversed(space)))
    title = f"Latent: {count(batch, 'sample')} of {size}, {count(channels, 'channel')}"
    return Summary("latent", title, tuple(figures))


def _audio(value: dict[str, Any]) -> Summary:
    try:
        waveform, rate = parts_of(value)
    except AudioError as error:
        return Summary("data", str(error), text=outline(value))
    batch, channels, samples = waveform.shape
    sounds = {1: "mono", 2: "stereo"}.get(channels, count(channels, "channel"))
    title = f"Audio: {samples / rate:.2f} s at {rate} Hz, {sounds}"
    title += f", {count(batch, 'sound')}" if batch != 1 else ""
    found = measure(waveform)
    figures: tuple[tuple[str, str], ...] = ()
    if found is not None and not math.isnan(found.mean):
        loudest = max(abs(found.minimum), abs(found.maximum))
        rms = math.hypot(found.mean, found.deviation)
        figures = (
            ("peak", f"{loudest:.4f} ({decibels(loudest):.1f} dB)"),
            ("RMS", f"{rms:.4f} ({decibels(rms):.1f} dB)"),
        )
    return Summary("audio", title, figures + _figures(waveform))


def _conditioning(value: list[Any]) -> Summary:
    figures: list[tuple[str, str]] = []
    for index, (tensor, options) in enumerate(value[:_SHOWN_ENTRIES]):
        figures.append((f"entry {index}", tensor_type(tensor)))
        figures += [(f"entry {index} {key}", _short(item)) for key, item in options.items()]
    if len(value) > _SHOWN_ENTRIES:
        figures.append(("more", str(len(value) - _SHOWN_ENTRIES)))
    entries = f"{len(value)} entr{'y' if len(value) == 1 else 'ies'}"
    return Summary("conditioning", f"Conditioning: {entries}", tuple(figures))


def _text(value: str) -> Summary:
    lines = value.count("\n") + 1 if value else 0
    words = len(value[:MAX_TEXT].split())
    title = f"Text: {count(len(value), 'character')}"
    title += f", {count(words, 'word')}, {count(lines, 'line')}" if len(value) <= MAX_TEXT else ""
    parsed = _json_of(value)
    if parsed is not None:
        return Summary("text", f"{title}, JSON", text=outline(parsed))
    return Summary("text", title, text=clipped(value, MAX_TEXT))


def _number(value: complex) -> Summary:
    kind = {bool: "Boolean", int: "Integer", float: "Number"}.get(type(value), "Number")
    return Summary("number", f"{kind}: {leaf(value)}")


def _nothing(_: None) -> Summary:
    return Summary("nothing", "Nothing (None)")


def _data(value: Any) -> Summary:
    kind = {dict: "Mapping", list: "List", tuple: "List"}.get(type(value), type(value).__name__)
    entries = f"{len(value)} entr{'y' if len(value) == 1 else 'ies'}"
    return Summary("data", f"{kind} of {entries}", text=outline(value))


def _anything(value: Any) -> Summary:
    fields = getattr(value, "__dict__", None)
    tensors = [
        (str(name), tensor_type(item))
        for name, item in list(fields.items() if isinstance(fields, dict) else ())
        if isinstance(item, torch.Tensor)
    ]
    return Summary("object", f"Object: {leaf(value)}", tuple(tensors[:_SHOWN_ENTRIES]))


def _short(value: Any) -> str:
    text = leaf(value)
    return clipped(text, 200) if text is not None else f"{type(value).__name__} of {len(value)}"


def _json_of(text: str) -> Any:
    """What a text says as JSON, if that is an object or a list."""
    if len(text) > _MAX_JSON or not text.lstrip().startswith(("{", "[")):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _figures(tensor: torch.Tensor) -> tuple[tuple[str, str], ...]:
    found = measure(tensor)
    stored = f"{str(tensor.dtype).removeprefix('torch.')} on {tensor.device}"
    if found is None:
        return (("stored as", f"{stored}, {tensor.layout}"),)
    return (*_spread(found), ("stored as", stored))


def _spread(found: TensorFigures) -> list[tuple[str, str]]:
    lines = [
        ("minimum", f"{found.minimum:.6g}"),
        ("maximum", f"{found.maximum:.6g}"),
        ("mean", f"{found.mean:.6g}"),
        ("standard deviation", f"{found.deviation:.6g}"),
    ]
    if not found.count:
        lines = [("elements", "0")]
    if found.nan:
        lines.append(("not a number", f"{found.nan} of {found.count}"))
    if found.infinite:
        lines.append(("infinite", f"{found.infinite} of {found.count}"))
    return lines


_SUMMARIES: dict[str, Callable[[Any], Summary]] = {
    "image": _image,
    "mask": _mask,
    "tensor": _tensor,
    "latent": _latent,
    "audio": _audio,
    "conditioning": _conditioning,
    "text": _text,
    "number": _number,
    "nothing": _nothing,
    "data": _data,
}

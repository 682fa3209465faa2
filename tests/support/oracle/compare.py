"""What the engine does with a file against what another library says that it means.

There are two outcomes: every change is the oracle's, or the module (or the file) is refused with a
reason. Each case says beforehand which one it expects.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import torch
from safetensors.torch import save_file
from support.oracle.tiny import ARCHITECTURES, QWEN_21, QWEN_21_FUSED, Tiny, with_one_layer
from torch import Tensor
from vivace.byte_lru import ByteLru
from vivace.lora.errors import LoraModelError
from vivace.lora.factors.delta import Delta
from vivace.lora.factors.dora import Dora
from vivace.lora.loader import Entry, Lora, load_lora
from vivace.lora.mapping.architecture import Architecture

LIMIT = 1e-6
# Changes by diffusers' path of the module and "weight" or "bias", in float64.
Changes = Mapping[tuple[str, str], Tensor]
# Words of the reason by the path of a module that is refused.
Refusals = Mapping[str, str]


def write(
    path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None
) -> Path:
    """Save tensors as a safetensors file, each with memory of its own."""
    save_file(
        {name: t.detach().clone().contiguous() for name, t in tensors.items()}, path, metadata
    )
    return path


_FUSED = tuple(QWEN_21_FUSED if known is QWEN_21 else known for known in ARCHITECTURES)


def load(path: Path, known: tuple[Architecture, ...] = ARCHITECTURES) -> Lora:
    """Load without touching the common cache."""
    return load_lora(path, "cpu", known, ByteLru(0))


def check(path: Path, model: Tiny, changes: Changes, refused: Refusals | None = None) -> Lora:
    """Assert that a file makes just these changes, and that these modules are refused.

    A file of Qwen-Image-2.1 of which nothing is refused has to make the same changes where the
    input of its MLPs is one layer.

    Returns:
        What was loaded, for further looks at the report.
    """
    if model.architecture is QWEN_21 and not refused:
        _check(load(path, _FUSED), with_one_layer(model), changes, {})
    lora = load(path)
    _check(lora, model, changes, refused or {})
    return lora


def _check(lora: Lora, model: Tiny, changes: Changes, refused: Refusals) -> None:
    assert lora.architecture is model.architecture, lora.report.line()
    expected = _expected(model, changes)
    actual = _actual(lora, model)
    for place, change in expected.items():
        _require_close(place, actual.pop(place, None), change, lora)
    for place, change in actual.items():
        assert not change.any(), f"{place} changes, but not in the oracle: {lora.report.line()}"
    _require_refused(lora, model, refused)


def check_refused(path: Path, *words: str) -> str:
    """Assert that nothing of a file is applied, for a reason with these words; return it."""
    try:
        lora = load(path)
    except LoraModelError as error:
        reason = str(error).replace(str(path), "")
    else:
        raise AssertionError(f"applied: {lora.report.line()}")
    for word in words:
        assert word in reason, reason
    return reason


def _require_close(
    place: tuple[str, str, int], actual: Tensor | None, expected: Tensor, lora: Lora
) -> None:
    assert actual is not None, f"{place} does not change: {lora.report.line()}"
    error = (actual - expected).norm()
    allowed = LIMIT * expected.norm()
    assert error <= allowed, f"{place}: error {error / expected.norm()}: {lora.report.line()}"


def _require_refused(lora: Lora, model: Tiny, refused: Refusals) -> None:
    reasons: dict[tuple[str, str | None], str] = {}
    for fault in lora.report.faults:
        reasons[fault.module, fault.part] = fault.reason
    for path, words in refused.items():
        names = {path, _engines_name(path), model.places[path][0].module}
        found = [reason for (module, _), reason in reasons.items() if module in names]
        assert any(words in reason for reason in found), f"{path}: {words!r} not in {reasons}"
    assert len(reasons) == len(refused), f"also refused: {reasons}"


def _engines_name(path: str) -> str:
    """What the engine calls a fused projection in its reports."""
    path = path.replace("to_added_qkv", "add_qkv_proj")
    return path.replace("feed_forward.net.0.proj", "feed_forward.w13")


def _expected(model: Tiny, changes: Changes) -> dict[tuple[str, str, int], Tensor]:
    """Changes by ComfyUI's module, parameter and first row."""
    found: dict[tuple[str, str, int], Tensor] = {}
    for (path, parameter), change in changes.items():
        row = 0
        for module, start, stop in model.places[path]:
            piece = change[row : row + stop - start]
            row += stop - start
            if piece.any():
                found[module, parameter, start] = piece
        assert row == len(change)
    return found


def _actual(lora: Lora, model: Tiny) -> dict[tuple[str, str, int], Tensor]:
    found: dict[tuple[str, str, int], Tensor] = {}
    for module, entries in lora.deltas.items():
        for entry in entries:
            place = module, entry.parameter, entry.start
            change = matrix_of(entry, model)
            assert len(change) == entry.stop - entry.start
            assert place not in found or found[place].shape == change.shape
            found[place] = change + found[place] if place in found else change
    return {place: piece for change in found.items() for place, piece in _pieces(model, *change)}


def _pieces(
    model: Tiny, place: tuple[str, str, int], change: Tensor
) -> list[tuple[tuple[str, str, int], Tensor]]:
    """A change of a whole fused module, cut where the oracle has modules of their own."""
    module, parameter, start = place
    cuts = {p.start for places in model.places.values() for p in places if p.module == module}
    inner = sorted(cut for cut in cuts if start < cut < start + len(change))
    edges = [start, *inner, start + len(change)]
    return [
        ((module, parameter, one), change[one - start : two - start])
        for one, two in pairwise(edges)
    ]


def matrix_of(entry: Entry, model: Tiny) -> Tensor:
    """The change of an entry, multiplied out in float64."""
    delta = entry.delta
    if isinstance(delta, Delta):
        return delta.matrix(torch.float64)
    name = model.architecture.modules[entry.module].parameter_name(entry.parameter)
    weight = model.weights[name][entry.start : entry.stop]
    relative = delta.resolve(weight) if isinstance(delta, Dora) else delta
    return relative.matrix(weight, torch.float64)

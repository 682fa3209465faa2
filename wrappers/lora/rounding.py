"""What rounding does to changes that are merged into weights.

ComfyUI adds a change ``D`` to a weight ``W`` and stores the sum in the type of the weight, which
has few digits left for what is small beside the weight. What is lost is measured here on a sample
of rows, in float64, with ComfyUI's own rounding and its own seeds. It is that of a weight that is
loaded as a whole; one that stays in host memory is patched each time it is used, and is rounded to
the type that the layer calculates in.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from comfy.model_management import lora_compute_dtype
from comfy.utils import string_to_seed
from torch import Tensor

from ...lora.loader import Entry
from ..targets.known_kinds import kind_of
from ..targets.weight_kind import UnreadableWeightError
from .merge import Change, DeltaAdapter, change_of
from .rounding_sample import Candidate, Limits, SampledRows, WeightSample, choose
from .running_model import RunningModel

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

MOST = 0.05
"""The error up to which merging is not advised against."""

_EARLIER = -1  # the number of a file that an earlier node has merged


@dataclass(frozen=True)
class Rounding:
    """What is left of merged changes ``D``, where ``E = round(W + D) - W - D``.

    Attributes:
        error: ``||E|| / ||D||`` of all changes together.
        kept: by file, how much of its change ``D_i`` is there along itself:
            ``1 + <E, D_i> / ||D_i||²``, which is ``<round(W + D) - W, D> / ||D||²`` for one file.
            None for a file that changes nothing in the sample.
        sample: where it was measured.
    """

    error: float
    kept: tuple[float | None, ...]
    sample: WeightSample

    @property
    def too_much(self) -> bool:
        """Whether merging is advised against."""
        return self.error > MOST

    def line(self) -> str:
        """The error of all files together, for people."""
        advice = ": use auto, which rounds none" if self.too_much else ""
        amount = percent(self.error)
        return (
            f"merging rounds the weights: an error of {amount} of the change, {self.sample}{advice}"
        )


@dataclass(frozen=True)
class NotMeasured:
    """Why it is not known what rounding does."""

    reason: str

    def line(self) -> str:
        """The same for people."""
        return f"what rounding does to the merged changes was not measured: {self.reason}"


@dataclass(frozen=True)
class _Part:
    """A change of rows ``start:stop`` of a weight by a file, of which there may be several."""

    file: int
    delta: Change
    start: int
    stop: int
    strength: float


def percent(share: float) -> str:
    """A share with three digits."""
    return "under 0.001 %" if 0 < share < 1e-5 else f"{share * 100:.3g} %"


def measure(
    model: ModelPatcher,
    running: RunningModel,
    files: Sequence[tuple[Sequence[Entry], float]],
    limits: Limits | None = None,
) -> Rounding | NotMeasured | None:
    """Measure what rounding does to changes of linear layers.

    Args:
        model: without the files; what was merged into it earlier counts as part of the change.
        files: the changes of each that are merged, and its strength.

    Returns:
        None if no linear layer is changed.
    """
    parts, foreign = _parts(model, running, files)
    if not parts:
        return NotMeasured("other nodes have patched the same weights") if foreign else None
    limits = limits or Limits()
    candidates = {
        module: candidate
        for module, found in parts.items()
        if (candidate := _candidate(running, module, found)) is not None
    }
    if not candidates:
        return NotMeasured("these weights do not give their values back")
    places, sample = choose(candidates, limits)
    sums = _Sums(len(files))
    dtype = lora_compute_dtype(model.load_device)
    for place in places:
        _measure_rows(running, place, parts[place.module], dtype, sums)
    return sums.result(sample)


def _parts(
    model: ModelPatcher, running: RunningModel, files: Sequence[tuple[Sequence[Entry], float]]
) -> tuple[dict[str, list[_Part]], bool]:
    """The changes of weights by module, and whether other nodes' patches left some out."""
    found: dict[str, list[_Part]] = {}
    for number, (entries, strength) in enumerate(files):
        for entry in entries:
            known = running.architecture.modules[entry.module]
            if entry.parameter != "weight" or known.kind != "linear":
                continue
            part = _Part(number, entry.delta, entry.start, entry.stop, strength)
            found.setdefault(entry.module, []).append(part)
    foreign = False
    for module in list(found):
        earlier = list(_earlier(model.patches.get(_key(module), ()), running, module))
        if None in earlier:
            foreign = True
            del found[module]
        else:
            found[module] = [*(part for part in earlier if part), *found[module]]
    return found, foreign


def _earlier(patches: Sequence[Any], running: RunningModel, module: str) -> Iterator[_Part | None]:
    """What is merged into a weight already; None for what is not of ours."""
    rows = running.architecture.modules[module].shape[0]
    for strength, adapter, of_model, offset, function in patches:
        if not isinstance(adapter, DeltaAdapter) or of_model != 1.0 or function is not None:
            yield None
            continue
        start, stop = (0, rows) if offset is None else (offset[1], offset[1] + offset[2])
        yield _Part(_EARLIER, adapter.delta, start, stop, strength)


def _key(module: str) -> str:
    return f"diffusion_model.{module}.weight"


def _candidate(running: RunningModel, path: str, parts: Sequence[_Part]) -> Candidate | None:
    module: Any = running.module(path)
    if module is None:
        return None
    stored, kind = running.stored_weight(path), kind_of(module)
    try:
        kind.excerpt(module, stored, 0, 1) if kind.reads_rows(stored) else None
    except UnreadableWeightError:
        return None
    if stored.device.type == "meta":
        return None
    rows, columns = stored.shape
    changed = _union((part.start, part.stop) for part in parts)
    by_rows = all(_can_be_cut(part.delta) for part in parts)
    return Candidate(rows, columns, changed, by_rows, kind.reads_rows(stored))


def _union(ranges: Iterator[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    found: list[tuple[int, int]] = []
    for start, stop in sorted(ranges):
        if found and start <= found[-1][1]:
            found[-1] = found[-1][0], max(stop, found[-1][1])
        else:
            found.append((start, stop))
    return tuple(found)


def _can_be_cut(delta: Change) -> bool:
    try:
        delta.rows(0, 1)
    except ValueError:  # a rotation of rows, or a magnitude of columns
        return False
    return True


def _measure_rows(
    running: RunningModel,
    place: SampledRows,
    parts: Sequence[_Part],
    dtype: torch.dtype,
    sums: _Sums,
) -> None:
    """Do with some rows what ComfyUI does with the weight, in `dtype`, and compare."""
    module: Any = running.module(place.module)
    kind = kind_of(module)
    found = kind.excerpt(module, running.stored_weight(place.module), place.start, place.stop)
    base = found.rows.to("cpu", torch.float32)
    merged = _merged(parts, base, place.start, dtype)
    if found.peak is not None:
        values = found.peak.values.to("cpu", torch.float32)
        merged = torch.cat([merged, _merged(parts, values, found.peak.row, dtype)])
    stored = kind.rounded(module, merged, string_to_seed(_key(place.module)))
    exact = base.double()
    wanted: dict[int, Tensor] = {}
    for part in parts:
        for rows, change in _changes(part, exact, place.start):
            wanted.setdefault(part.file, torch.zeros_like(exact))[rows] += change
    sums.add(stored[: len(base)].double() - exact, wanted, place.weight)


def _merged(parts: Sequence[_Part], base: Tensor, start: int, dtype: torch.dtype) -> Tensor:
    """Rows of a weight with all changes, before they are stored."""
    merged = base.to(dtype, copy=True)
    for part in parts:
        for rows, change in _changes(part, base, start):
            merged[rows] += change.to(dtype)
    return merged


def _changes(part: _Part, base: Tensor, start: int) -> Iterator[tuple[slice, Tensor]]:
    """The rows of `base`, which begins at `start` of a weight, that a part changes, and by what;
    computed in the type of `base`."""
    low, high = max(part.start, start), min(part.stop, start + len(base))
    if low < high:
        rows = slice(low - start, high - start)
        delta = part.delta.rows(low - part.start, high - part.start).to("cpu")
        yield rows, change_of(delta, part.strength, lambda: base[rows], base.dtype)


class _Sums:
    """Squares and products over all places, of which the result is made."""

    def __init__(self, files: int) -> None:
        self._change = 0.0
        self._error = 0.0
        self._own = [0.0] * files
        self._along = [0.0] * files

    def add(self, made: Tensor, wanted: dict[int, Tensor], weight: float) -> None:
        """Count a place: what the weight changed by, and what each file wants."""
        total = torch.zeros_like(made)
        for change in wanted.values():
            total += change
        error = made - total
        self._change += weight * float(total.square().sum())
        self._error += weight * float(error.square().sum())
        for file, change in wanted.items():
            if file != _EARLIER:
                self._own[file] += weight * float(change.square().sum())
                self._along[file] += weight * float((error * change).sum())

    def result(self, sample: WeightSample) -> Rounding | None:
        """None if there was no change."""
        if not self._change:
            return None
        kept = tuple(
            1 + along / own if own else None
            for own, along in zip(self._own, self._along, strict=True)
        )
        return Rounding((self._error / self._change) ** 0.5, kept, sample)

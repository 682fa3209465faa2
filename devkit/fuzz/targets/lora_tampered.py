"""Good LoRA files of every family with something added, dropped, renamed, retyped or rescaled.

What is applied is computed once more, from the tensors by their names (see `lora_reference`): each
tensor of a module takes part in its change, or nothing of the module is applied.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any
from zlib import crc32

import torch
from torch import Tensor

from ....byte_lru import ByteLru
from ....lora.compose import Composer
from ....lora.errors import LoraFileError, LoraFormatError, LoraModelError
from ....lora.examine import inspect
from ....lora.factors.branch import Branch
from ....lora.loader import Lora, load_lora
from ....lora.mapping.architecture import Architecture
from ....lora.mapping.tensor_names import IGNORED, MAPPED, REFUSED, UNMATCHED
from ....lora.report import Report
from ....lora.stack import LoraSet
from .. import scratch
from ..lora_changes import tamper
from ..lora_found import (
    LARGE,
    Found,
    Piece,
    bias_of,
    changes_of,
    pieces,
    require_close,
    split_name,
    weight_of,
)
from ..lora_samples import ARCHITECTURES, samples
from ..mutations import json_of
from ..refusals import may_refuse
from ..valued_files import valued_file
from .safetensors_file import use

_ROUNDED, _EQUAL = 2e-3, 1e-12
_REPEATED = ("says the same as ", "is all zero, and the module is given otherwise too")
_WORDS = (
    "F32",
    "F16",
    "lora_adapter_metadata",
    "metadata",
    "config",
    "tensors",
    "x_pad_token.diff",
)


def target(data: bytes) -> None:
    """Load the file, and compare what is applied with what its tensors say."""
    try:
        description = json.loads(data)
    except (ValueError, RecursionError):
        return
    file = valued_file(description)
    if file is None:
        return
    with scratch.folder() as place:
        path = file.write(place)
        before: Report | None = None
        with may_refuse(LoraFileError, LoraFormatError):
            before = inspect(path, ARCHITECTURES)
        lora = use(path, ARCHITECTURES)
        after = None if before is None else inspect(path, ARCHITECTURES)
    if before is None or after is None:
        assert lora is None
        return
    _agree(before, after)
    if lora is None:
        assert not after.names(MAPPED)
        return
    assert lora.report.keys == after.keys
    _explained(lora)
    found = Found(lora, file, description.get("metadata") or {})
    found.compare()
    if found.ordinary:
        _composed(found)
    _alone(found, description, random.Random(crc32(data)))  # noqa: S311


def _agree(before: Report, after: Report) -> None:
    """Loading moves modules from those that match to those that do not, and nothing else."""
    assert (before.architecture, before.refusal) == (after.architecture, after.refusal)
    assert after.faults[: len(before.faults)] == before.faults
    assert after.modules_matched <= before.modules_matched
    assert after.modules_total == before.modules_total
    for one, other in zip(before.keys, after.keys, strict=True):
        moved = one.status == MAPPED and other.status in (REFUSED, IGNORED)
        assert one == other or (moved and one[:4] == other[:4])


def _explained(lora: Lora) -> None:
    """Every tensor of a module that is applied is mapped, or repeats what is."""
    known = lora.architecture
    applied: set[Piece] = set()
    for entries in lora.deltas.values():
        for entry in entries:
            applied |= pieces(known, entry.module, entry.part)
            layer = known.modules[entry.module].kind == "linear"
            assert layer or entry.parameter != "bias", f"{entry.module} has no bias"
    for fault in lora.report.faults:
        assert applied.isdisjoint(pieces(known, fault.module, fault.part)), fault
    stems: set[str] = set()
    for key in lora.report.keys:
        assert (key.reason is None) == (key.status == MAPPED), key
        if key.module is None:
            assert key.status in (IGNORED, UNMATCHED), key
            continue
        covered = pieces(known, key.module, key.part)
        if key.status == MAPPED:
            assert covered <= applied, key
            stems.add(split_name(key.key)[0])
        elif key.status == IGNORED:
            assert str(key.reason).startswith(_REPEATED), key
        else:
            assert key.status == REFUSED, key
            assert applied.isdisjoint(covered), key
    _require_none_outside(lora.report, stems)


def _require_none_outside(report: Report, stems: set[str]) -> None:
    """No tensor that has the name of an applied module belongs to none."""
    for key in report.keys:
        inside = key.key in stems or any(key.key.startswith(f"{stem}.") for stem in stems)
        assert not inside or key.module is not None, f"{key.key!r} is of an applied module"


def _composed(found: Found) -> None:
    """A stack of this file alone adds the same."""
    lora, known = found.lora, found.lora.architecture

    def weight(name: str) -> Tensor:
        return weight_of(name, known.target(name).shape).float()

    branches = Composer(known, weights=weight).compose(LoraSet([(lora, 1.0)]))
    assert branches.keys() == lora.deltas.keys()
    for (module, parameter), change in found.actual.items():
        base, branch = weight(module), branches[module]
        added = branch.matrix(base) if parameter == "weight" else _added_bias(branch, module, known)
        size = change.abs().max() + 1e-3 * base.abs().max()
        if size < LARGE:
            assert (added - change).abs().max() <= _ROUNDED * size, module


def _added_bias(branch: Branch, module: str, known: Architecture) -> Tensor:
    own = bias_of(module, known).float()
    total = torch.zeros_like(own) if branch.bias is None else branch.bias
    return total if branch.bias_lift is None else total + own * branch.bias_lift


def _alone(found: Found, description: Any, chance: random.Random) -> None:
    """Without all others, a module changes the same."""
    covered, names = found.connected(chance)
    tensors = {name: description["tensors"][name] for name in names}
    file = valued_file({**description, "tensors": tensors})
    assert file is not None
    with scratch.folder() as place:
        path = file.write(place)
        if inspect(path, ARCHITECTURES).architecture != found.lora.architecture.name:
            return  # the others told whose it is
        try:
            lora = load_lora(path, "cpu", ARCHITECTURES, ByteLru(2**20))
        except LoraModelError as error:
            raise AssertionError("a module is applied beside others only") from error
    alone = changes_of(lora)
    for where, change in found.actual.items():
        rows = torch.zeros(len(change), dtype=torch.bool)
        for module, part in covered:
            if module == where[0]:
                start, stop = lora.architecture.rows(module, part)
                rows[start:stop] = True
        if rows.any():
            other = alone.get(where, torch.zeros_like(change))
            require_close(change[rows], other[rows], _EQUAL, where)


def seeds() -> Sequence[bytes]:
    """A file of each family, spelling and way to state a scale."""
    return [json.dumps(one).encode() for one in samples()]


def mutate(data: bytes, chance: random.Random) -> bytes:
    """Tamper with it, or, seldom, change the description in other ways."""
    if chance.random() < 0.05:
        return json_of(data, chance, _WORDS)
    try:
        description = json.loads(data)
        tamper(description, chance)
        return json.dumps(description).encode()
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, OverflowError):
        return json_of(data, chance, _WORDS)

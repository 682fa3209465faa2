"""Claims about how a stack gets from its files to the device."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any
from unittest.mock import patch

from ...wrappers.lora.branch_set import KEY
from ...wrappers.lora.running_model import RUNNING, RunningModel
from ..bench.baselines import read_tensors
from ..bench.contender import forget_everything
from ..bench.files import KINDS, write_stack
from ..bench.harness import Timings, spread
from ..bench.models import whole
from ..doubles import tiny_models as tiny
from . import models
from .card import Card
from .claims import Claim, Measured

_RANK = 16
_FIRST_TARGET, _PEAK_TARGET = 1.3, 1.1


def dora_on_the_device(card: Card) -> Measured:
    """How often weights are read back for DoRA, and where what is read is."""
    model = tiny.qwen_image()
    path, _ = models.lora_file(card, model, "dora", dora=True)
    calls: Counter[str] = Counter()
    places: Counter[str] = Counter()
    original = RunningModel.base_weight

    def counted(self: RunningModel, name: str, *args: Any) -> Any:
        weight = original(self, name, *args)
        calls[name] += 1
        places[weight.device.type] += 1
        return weight

    with patch.object(RunningModel, "base_weight", counted):
        models.apply(model, (path, 1.0))
    most = max(calls.values(), default=0)
    return Measured(
        f"{sum(calls.values())} reads for {len(models.LINEARS)} layers, {most} for a layer at"
        f" most; computed on {', '.join(places)}",
        calls.keys() == set(models.LINEARS) and most == 1 and set(places) == {card.kind},
        {"reads": sum(calls.values()), "most": most, "places": dict(places)},
    )


class _FirstApply:
    """A stack of one file of real size on a model of whole depth; both small in a dry run."""

    def __init__(self, card: Card) -> None:
        self._card = card
        with models.without_dynamic_vram():
            self._model = tiny.qwen_image() if card.dry else whole("qwen_image")
        if card.dry:
            paths = [models.lora_file(card, self._model, "first")[0]]
        else:
            paths = write_stack(card.folder, KINDS[0], _RANK, 1)
        self.files: list[tuple[Path, float]] = [(path, 0.8) for path in paths]

    def apply(self) -> Any:
        """The stack from its file to the device, as if it were the first in this process."""
        forget_everything()
        RUNNING.clear()
        return self.again()

    def again(self) -> Any:
        """The same with what is known of the file already."""
        patched = models.apply(self._model, *self.files)
        patched.attachments[KEY].store.to(self._card.device)
        return patched


def first_apply(card: Card) -> Measured:
    """From the file to factors on the device, beside reading it there, by turns."""
    stack, timings = _FirstApply(card), Timings(card.kind)
    stack.apply()
    read_tensors(stack.files, card.kind)
    for _ in range(3 if card.dry else 7):
        timings.time("read", lambda: read_tensors(stack.files, card.kind))
        timings.time("first apply", stack.apply)
    ratio = spread(timings.ratios("first apply", "read"))
    size = sum(path.stat().st_size for path, _ in stack.files) / 2**20
    return Measured(
        f"{ratio['median']:.3g} ({ratio['min']:.3g} .. {ratio['max']:.3g}) times reading"
        f" {size:.4g} MiB with safetensors",
        ratio["median"] <= _FIRST_TARGET,
        {"ratio": ratio, "milliseconds": timings.summary()},
    )


def peak_while_composing(card: Card) -> Measured:
    """The most that the device has of a stack until it is there, beside what stays."""
    stack = _FirstApply(card)
    stack.apply()
    forget_everything()
    RUNNING.clear()
    peak, stays = card.peak_above(stack.again)
    return Measured(
        f"{peak / 2**20:.4g} MiB at most, {stays / 2**20:.4g} MiB stay: {peak / stays:.3g}",
        peak <= _PEAK_TARGET * stays,
        {"peak": peak, "stays": stays},
    )


CLAIMS = (
    Claim(
        "dora-device", "row 11", "DoRA is computed on the device, and reads each weight once",
        dora_on_the_device, 20, True,
    ),
    Claim(
        "first-apply", "figure: first apply",
        f"The first apply takes at most {_FIRST_TARGET} times reading the file",
        first_apply, 60, False,
    ),
    Claim(
        "peak", "figure: peak memory",
        f"Composing takes at most {_PEAK_TARGET} times the device memory that stays",
        peak_while_composing, 30, False,
    ),
)  # fmt: skip

"""What is said of files of other models."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from support.other_models import Shapes, attention, other_models, tensors
from vivace.byte_lru import ByteLru
from vivace.lora.errors import LoraModelError
from vivace.lora.examine import inspect
from vivace.lora.file_report import Report
from vivace.lora.loader import load_lora

OTHERS = other_models()
VERSION = "ss_base_model_version"
NOTE = "its names and sizes fit"
Look = Callable[..., Report]


def looked_at(path: Path) -> Report:
    """Inspect a file, and see that it is not loaded if nothing of it is applied."""
    report = inspect(path)
    # It takes as long again, so the few largest files are only inspected.
    if not report.modules_matched and len(report.keys) < 500:
        with pytest.raises(LoraModelError) as caught:
            load_lora(path, cache=ByteLru(0))
        assert (report.refusal or "") in str(caught.value)
    return report


def applied(reports: Iterable[tuple[object, Report]]) -> list[str]:
    """Those files that are not refused with a reason."""
    return [
        f"{name}: {report.line()}"
        for name, report in reports
        if report.architecture is not None or not report.refusal
    ]


def attention_of(title: str, blocks: Iterable[int]) -> Shapes:
    """The attention layers of some blocks of a model."""
    return attention(OTHERS[title].of(blocks))


ONE_BLOCK = tensors(attention_of("FLUX.1 dev", [0]))

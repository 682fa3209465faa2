"""Processes that are killed at every step of a write, and what the next one finds."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import torch
from vivace.lora.files.writer import ABANDONED_AFTER, TensorWriter
from vivace.toolkit.json_files import write_object

from .writers import WRITERS, killed

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there, processes cannot be forked")


@pytest.mark.parametrize("writer", WRITERS)
def test_a_kill_leaves_the_old_or_the_new(writer: str, tmp_path: Path) -> None:
    assert killed(WRITERS[writer](tmp_path)) >= 4


def test_what_a_killed_conversion_left_is_removed(tmp_path: Path) -> None:
    """It may be as large as the model."""
    path, others = tmp_path / "a[1].safetensors", ("b.safetensors.7.part", "a[1].safetensors.part")
    left, working = (tmp_path / f"{path.name}.{number}.part" for number in (7, 8))
    for file in (left, working, *(tmp_path / name for name in others)):
        file.write_bytes(b"x" * 1000)
        os.utime(file, (1, 1))
    os.utime(working)
    for _ in range(2):
        with TensorWriter(path, ["a"], {}) as file:
            file.add("a", torch.ones(3))
        names = {file.name for file in tmp_path.iterdir()}
        assert names == {path.name, working.name, *others}
    future = time.time() + 2 * ABANDONED_AFTER  # it was written before the clock was set back
    os.utime(working, (future, future))
    with TensorWriter(path, ["a"], {}) as file:
        file.add("a", torch.ones(3))
    assert not working.exists()


def test_what_a_killed_write_left_is_removed(tmp_path: Path) -> None:
    names = [".writing-killed.tmp", ".writing-now.tmp", ".mine.tmp", "writing-mine.tmp"]
    for name in names:
        (tmp_path / name).write_text("{")
        os.utime(tmp_path / name, (1, 1))
    os.utime(tmp_path / names[1])
    write_object(tmp_path / "a.json", {})
    assert {file.name for file in tmp_path.iterdir()} == {"a.json", *names[1:]}

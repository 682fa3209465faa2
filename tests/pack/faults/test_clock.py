"""Clocks that jump by years, back and forth."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from support.applying import QWEN_MODULES, apply, lora_file
from vivace.devkit.doubles import tiny_models as tiny
from vivace.toolkit.prompt_library import PromptLibrary, Run, SavedPrompt
from vivace.vlm.vision.disk_tier import DiskTier
from vivace.vlm.vision.embedding_cache import ImageEmbedding
from vivace.vlm.vision.hashing import EmbeddingKey

YEARS = 10 * 365 * 86_400
JUMPS = pytest.mark.parametrize("jump", [-YEARS, YEARS], ids=["back", "forth"])


def jump_to(monkeypatch: pytest.MonkeyPatch, jump: int) -> None:
    """Set the clock; only the one that tells intervals goes on."""
    now, now_ns, touch = time.time, time.time_ns, os.utime

    def utime(path: Any, times: Any = None, **options: Any) -> None:
        if times is None and not options:
            times = (now() + jump, now() + jump)
        touch(path, times, **options)

    monkeypatch.setattr(time, "time", lambda: now() + jump)
    monkeypatch.setattr(time, "time_ns", lambda: now_ns() + jump * 10**9)
    monkeypatch.setattr(os, "utime", utime)


def move(path: Path, jump: int) -> None:
    """What was written while the clock stood elsewhere."""
    moved = time.time() + jump
    os.utime(path, (moved, moved))


@pytest.mark.usefixtures("comfyui", "inference")
@JUMPS
def test_a_lora_replaced_by_one_of_another_time_is_read_again(jump: int, tmp_path: Path) -> None:
    path, _ = lora_file(tmp_path / "a.safetensors", QWEN_MODULES)
    model = tiny.qwen_image()
    first = tiny.sample(apply(model, (path, 1.0), mode="branch"))
    lora_file(path, QWEN_MODULES, seed=4)  # of the same size
    move(path, jump)
    second = tiny.sample(apply(model, (path, 1.0), mode="branch"))
    fresh = tiny.sample(apply(tiny.qwen_image(), (path, 1.0), mode="branch"))
    assert torch.equal(second, fresh)
    assert not torch.equal(second, first)


@JUMPS
def test_what_is_known_of_a_lora_is_of_the_file_that_is_there(jump: int, tmp_path: Path) -> None:
    from vivace.lora.info import lora_info

    path, notes = tmp_path / "a.safetensors", tmp_path / "a.txt"
    tensors = {"diffusion_model.img_in.lora_A.weight": torch.ones(1, 64)}
    for title in ("one", "two"):
        save_file(tensors, path, {"modelspec.title": title})
        notes.write_text(f"it is {title}")
        if title == "two":
            move(path, jump)
            move(notes, jump)
        info = lora_info(path)
        assert (info.title, info.notes) == (title, f"it is {title}")


@pytest.mark.usefixtures("comfyui")
@JUMPS
def test_a_converted_copy_is_used_for_its_own_source_only(jump: int, tmp_path: Path) -> None:
    from vivace.lora.files.open_file import stamp
    from vivace.svdquant.save import SOURCE, converted_path, source_mark, write_converted
    from vivace.svdquant.state_dict_names import MARKER
    from vivace.wrappers.svdquant.svdquant_model import is_copy_of

    source = tmp_path / "model.safetensors"
    source.write_bytes(b"x" * 100)
    copy, mark = converted_path(source), source_mark(stamp(source))
    write_converted(copy, {f"a.{MARKER}": torch.zeros(4, dtype=torch.uint8)}, {SOURCE: mark})
    move(copy, -2 * jump)  # which of the two is newer says nothing
    assert is_copy_of(copy, mark)
    move(source, jump)
    assert not is_copy_of(copy, source_mark(stamp(source)))


@JUMPS
def test_a_model_folder_replaced_by_one_of_another_time_is_another(
    jump: int, tmp_path: Path
) -> None:
    from vivace.devkit.doubles.small_vlm import save_text_model
    from vivace.hub.model_check import check_model

    folder = save_text_model("Qwen2", tmp_path / "model")
    before = check_model(folder).identity
    move(folder / "model.safetensors", jump)
    assert check_model(folder).identity != before


def key(number: int) -> EmbeddingKey:
    return EmbeddingKey(f"{number:032x}", (1, 4, 4), "bicubic", "model", "main", "float32")


@JUMPS
def test_the_disk_cache_stays_within_its_bounds_and_right(
    jump: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kept(number: int) -> ImageEmbedding:
        return ImageEmbedding(torch.full((2, 4, 8), float(number)), (1, 4, 4), 1.0)

    tier = DiskTier(tmp_path)
    tier.put(key(0), kept(0))
    tier.limit = 3 * tier.nbytes + 100
    for number in range(1, 3):
        tier.put(key(number), kept(number))
    for entry in tmp_path.iterdir():
        move(entry, -jump)  # seen from a clock that has jumped
    for number in range(3, 12):
        assert tier.put(key(number), kept(number))
        assert tier.nbytes <= tier.limit
        found = tier.get(key(number))
        assert found is not None
        assert torch.equal(found.packed, kept(number).packed)


@JUMPS
def test_prompts_and_their_history_keep_their_order(
    jump: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = PromptLibrary(tmp_path)
    library.save("cat", SavedPrompt("old"))
    revision = library.load("cat").revision
    library.record(Run("cat", "first", "", 1))
    jump_to(monkeypatch, jump)
    library.record(Run("cat", "second", "", 2))
    library.save("cat", SavedPrompt("new"), revision=revision)
    move(tmp_path / "cat.json", -2 * jump)
    library.record(Run("cat", "third", "", 3))
    assert [run.positive for run in library.history()] == ["first", "second", "third"]
    assert library.load("cat") == SavedPrompt("new")


@JUMPS
def test_a_lock_waits_by_the_clock_that_does_not_jump(
    jump: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process holds the library for a moment; the clock is set meanwhile."""
    import threading

    from filelock import FileLock

    library = PromptLibrary(tmp_path)
    library.save("cat", SavedPrompt("old"))
    other = FileLock(tmp_path / ".lock", thread_local=False)
    other.acquire()
    jump_to(monkeypatch, jump)
    release = threading.Timer(0.3, other.release)
    release.start()
    library.save("cat", SavedPrompt("new"))
    release.join()
    assert library.load("cat") == SavedPrompt("new")


@JUMPS
def test_comfyui_runs_nodes_anew_when_a_file_has_another_time(
    jump: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, comfyui: Any
) -> None:
    from vivace.nodes import lora_files

    path = tmp_path / "a.safetensors"
    path.write_bytes(b"x" * 100)
    monkeypatch.setattr(lora_files, "lora_path", lambda name: path)
    before = lora_files.file_identity("a")
    assert lora_files.file_identity("a") == before
    move(path, jump)
    assert lora_files.file_identity("a") != before

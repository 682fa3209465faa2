"""Loading: files are opened and read once, kept in a cache, and seen to have changed."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path

import pytest
import torch
from support.lora_samples import (
    FAMILIES,
    QWEN,
    TINY,
    Z_IMAGE,
    close,
    load,
    lora,
    named,
    random,
    total,
    write,
)
from vivace.byte_lru import ByteLru
from vivace.lora import examine, loader
from vivace.lora.composer import Composer
from vivace.lora.errors import LoraFileError
from vivace.lora.examine import inspect
from vivace.lora.files.open_file import LoraFile
from vivace.lora.loader import Lora, load_lora
from vivace.lora.lora_set import LoraSet

GOOD = "transformer_blocks.0.attn.to_k"
OTHER = "transformer_blocks.0.attn.to_q"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[LoraFile]:
    """Every LoraFile that is opened."""
    found: list[LoraFile] = []

    class Recorded(LoraFile):
        def __init__(self, path: str | os.PathLike[str]) -> None:
            found.append(self)
            super().__init__(path)

    monkeypatch.setattr(loader, "LoraFile", Recorded)
    monkeypatch.setattr(examine, "LoraFile", Recorded)
    return found


def test_one_open_one_read_and_nothing_unmapped(tmp_path: Path, opened: list[LoraFile]) -> None:
    tensors = named(GOOD, lora(32, 32, torch.float32))
    stray = {"lora_te_x.lora_up.weight": random(50, 50), "mystery": random(50, 50)}
    label = {"modelspec.architecture": "Qwen-Image/lora"}
    path = write(tmp_path / "a.safetensors", {**tensors, **stray}, label)
    cache: ByteLru[Lora] = ByteLru(2**20)
    first = load(path, cache=cache)
    (only,) = opened
    assert (only.opens, only.tensors_read) == (1, 3)
    assert only.bytes_read == sum(t.nbytes for t in tensors.values())
    assert load(path, cache=cache) is first
    assert first.report.names("unmatched") == ["mystery"]
    assert first.report.names("ignored") == ["lora_te_x.lora_up.weight"]
    assert len(opened) == 1
    assert (cache.hits, cache.misses) == (1, 1)


def test_unused_alpha_of_a_whole_lokr_may_be_anything(
    tmp_path: Path, opened: list[LoraFile]
) -> None:
    sample = FAMILIES["lokr whole, whole, sentinel alpha"](32, 32, torch.float32)
    tensors = {**named(GOOD, sample), f"{GOOD}.alpha": torch.tensor(float("inf"))}
    found = load(write(tmp_path / "a.safetensors", tensors))
    assert close(total(found, GOOD, (32, 32)), sample.change)
    assert opened[0].tensors_read == 2


def test_changed_file_is_read_again(tmp_path: Path, opened: list[LoraFile]) -> None:
    cache: ByteLru[Lora] = ByteLru(2**20)
    path = tmp_path / "a.safetensors"
    keys = set()
    for alpha in (1.0, 2.0):
        sample = lora(32, 32, torch.float32, alpha=alpha)
        write(path, named(GOOD, sample))
        os.utime(path, ns=(0, int(alpha) * 10**9))
        found = load(path, cache=cache)
        assert close(total(found, GOOD, (32, 32)), sample.change)
        keys.add(found.key)
    assert len(opened) == len(keys) == 2


def test_file_that_changes_while_being_read_is_not_cached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache: ByteLru[Lora] = ByteLru(2**20)
    path = write(tmp_path / "a.safetensors", named(GOOD, lora(32, 32, torch.float32)))
    read = LoraFile.read

    def slow(self: LoraFile, *args: object, **kwargs: object) -> dict[str, torch.Tensor]:
        found = read(self, *args, **kwargs)  # type: ignore[arg-type]
        os.utime(path, ns=(5, 5))
        return found

    with monkeypatch.context() as patch:
        patch.setattr(LoraFile, "read", slow)
        with pytest.raises(LoraFileError, match="changed while"):
            load(path, cache=cache)
    assert len(cache) == 0
    assert set(load(path, cache=cache).deltas) == {GOOD}


def test_deleted_file_is_an_error_even_if_cached(tmp_path: Path) -> None:
    cache: ByteLru[Lora] = ByteLru(2**20)
    path = write(tmp_path / "a.safetensors", named(GOOD, lora(32, 32, torch.float32)))
    load(path, cache=cache)
    path.unlink()
    with pytest.raises(LoraFileError, match="no such file"):
        load(path, cache=cache)


def test_concurrent_requests_read_once(tmp_path: Path, opened: list[LoraFile]) -> None:
    cache: ByteLru[Lora] = ByteLru(2**20)
    path = write(tmp_path / "a.safetensors", named(GOOD, lora(32, 32, torch.float32)))
    barrier, found = threading.Barrier(8), []

    def ask() -> None:
        barrier.wait()
        found.append(load(path, cache=cache))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 1
    assert len(found) == 8
    assert len(set(map(id, found))) == 1


def test_loading_is_logged_on_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / "a.safetensors", named(GOOD, lora(32, 32, torch.float32)))
    with caplog.at_level(logging.DEBUG, logger="vivace.lora.loader"):
        load(path)
    (record,) = caplog.records
    assert "qwen_image LoRA rank 4; 1 of 1 modules" in record.getMessage()
    assert record.getMessage().endswith(" ms")


def test_pickled_lora_is_the_same(tmp_path: Path) -> None:
    sample = lora(32, 32, torch.float32)
    torch.save(named(GOOD, sample), tmp_path / "a.pt")
    found = load(tmp_path / "a.pt")
    assert close(total(found, GOOD, (32, 32)), sample.change)


def test_tiny_models_share_names_only() -> None:
    assert [a.name for a in TINY] == ["qwen_image", "z_image"]
    assert QWEN.hidden == Z_IMAGE.hidden == 32


def test_inspection_after_inspection_or_loading_opens_nothing(
    tmp_path: Path, opened: list[LoraFile]
) -> None:
    tensors = {
        **named(GOOD, lora(32, 32, torch.float32)),
        **named(OTHER, lora(32, 32, torch.float32)),
    }
    tensors[f"{OTHER}.lora_up.weight"][3, 2] = torch.nan
    path = write(tmp_path / "a.safetensors", tensors)
    first = inspect(path, TINY)
    assert inspect(path, TINY) == first
    assert (len(opened), first.faults) == (1, ())
    found = load(path)
    assert len(opened) == 2
    assert inspect(path, TINY) == found.report
    assert len(found.report.faults) == 1
    assert len(opened) == 2
    os.utime(path, ns=(0, 0))
    inspect(path, TINY)
    assert len(opened) == 3


@pytest.mark.parametrize("replaced", [True, False])
def test_a_changed_file_of_the_same_size_and_time_is_read_again(
    replaced: bool, tmp_path: Path
) -> None:
    cache: ByteLru[Lora] = ByteLru(2**20)
    path = write(tmp_path / "a.safetensors", named(GOOD, lora(32, 32, torch.float32)))
    before, first = path.stat(), load(path, cache=cache)
    changed = named(GOOD, lora(32, 32, torch.float32, alpha=6.0))
    other = write(tmp_path / "b.safetensors", changed)
    if replaced:
        other.replace(path)
    else:
        path.write_bytes(other.read_bytes())
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    second = load(path, cache=cache)
    assert close(total(second, GOOD, (32, 32)), total(first, GOOD, (32, 32)) * 2)
    assert inspect(path, TINY).architecture == "qwen_image"


def test_only_the_latest_reports_are_kept(tmp_path: Path) -> None:
    for i in range(examine.REMEMBERED + 5):
        inspect(
            write(tmp_path / f"{i}.safetensors", named(GOOD, lora(32, 32, torch.float32))), TINY
        )
    assert len(examine.SEEN) == examine.REMEMBERED


def test_file_replaced_before_it_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.safetensors", named(GOOD, lora(32, 32, torch.float32)))
    cache: ByteLru[Lora] = ByteLru(2**20)
    examine_ = loader.examine

    def late(file: LoraFile, *args: object) -> object:
        object.__setattr__(file, "stamp", file.stamp._replace(mtime_ns=1))
        return examine_(file, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(loader, "examine", late)
    with pytest.raises(LoraFileError, match="changed while"):
        load(path, cache=cache)
    assert len(cache) == 0


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_device(device: str, tmp_path: Path) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    one, kron = lora(32, 32, torch.bfloat16), FAMILIES["lokr whole, low"](32, 32, torch.bfloat16)
    tensors = named(GOOD, one) | named(OTHER, kron) | {f"{GOOD}.diff_b": random(32)}
    path = write(tmp_path / "a.safetensors", tensors)
    found = load_lora(path, device, TINY, ByteLru(2**20))
    branches = Composer(QWEN).compose(LoraSet([(found, 0.5)]))
    for stem, change in ((GOOD, one.change), (OTHER, kron.change)):
        matrix = branches[stem].matrix()
        assert matrix.device.type == device
        assert close(matrix.cpu(), change * 0.5)
        x = torch.ones(2, 32, device=device)
        assert branches[stem].apply(x).device.type == device

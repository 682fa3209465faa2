"""Pickled LoRAs: tensors are read, and no code runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.lora_samples import random, write
from support.refused_files import raw_file, refused
from vivace.lora.errors import LoraFormatError
from vivace.lora.files.open_file import LoraFile


class Attack:
    """Runs code when it is unpickled by an unrestricted unpickler."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("suffix", [".pt", ".bin", ".ckpt", ".pth"])
@pytest.mark.parametrize("nested", [False, True])
def test_pickled_tensors(suffix: str, nested: bool, tmp_path: Path) -> None:
    tensors = {"a": random(3, 4), "b": random(1, seed=2)}
    path = tmp_path / f"a{suffix}"
    torch.save({"state_dict": tensors, "epoch": 3} if nested else tensors, path)
    with LoraFile(path) as opened:
        assert opened.header.tensors["a"].shape == (3, 4)
        found = opened.read(["a"])
        assert (opened.opens, opened.tensors_read, opened.bytes_read) == (1, 1, 48)
    assert torch.equal(found["a"], tensors["a"])


@pytest.mark.parametrize("new_format", [False, True])
def test_pickle_with_code_does_not_run_it(new_format: bool, tmp_path: Path) -> None:
    path, marker = tmp_path / "a.pt", tmp_path / "ran"
    torch.save(
        {"a": random(2), "x": Attack(marker)}, path, _use_new_zipfile_serialization=new_format
    )
    assert "could run code" in refused(path)
    assert not marker.exists()


@pytest.mark.parametrize("content", [b"PK\x03\x04garbage", b"\x80\x02garbage", b"\x80\x02."])
def test_broken_pickle(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(LoraFormatError):
        LoraFile(raw_file(tmp_path / "a.pt", content))


def test_pickle_of_something_else(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "a.pt")
    assert "no table of tensors" in refused(tmp_path / "a.pt")


def test_pickle_named_safetensors_is_not_unpickled(tmp_path: Path) -> None:
    torch.save({"a": random(2)}, tmp_path / "a.safetensors")
    assert "holds a pickle" in refused(tmp_path / "a.safetensors")


def test_safetensors_named_pt(tmp_path: Path) -> None:
    with LoraFile(write(tmp_path / "a.pt", {"a": random(2)})) as opened:
        assert set(opened.read(["a"])) == {"a"}

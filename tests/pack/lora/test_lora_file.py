"""Reading files: what is counted, what is refused, and how the refusal reads."""

from __future__ import annotations

import errno
import os
import pickle
import stat
from io import FileIO
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.lora_samples import DTYPES, random, write, write_raw
from support.refused_files import refused, tensor
from vivace.lora.errors import LoraFileError
from vivace.lora.files import tensor_run
from vivace.lora.files.open_file import LoraFile


@pytest.mark.parametrize("dtype", DTYPES)
def test_reads_what_safetensors_reads(dtype: str, tmp_path: Path) -> None:
    tensors = {
        f"t{i}": random(*shape, seed=i).to(DTYPES[dtype])
        for i, shape in enumerate([(3, 5), (1,), (2, 3, 1, 1), (7,), (0, 4), (129, 63)])
    }
    tensors["scalar"] = torch.tensor(2.5).to(DTYPES[dtype])
    path = write(tmp_path / "a.safetensors", tensors, {"note": "x"})
    with LoraFile(path) as opened:
        assert opened.header.metadata == {"note": "x"}
        found = opened.read(tensors)
    expected = load_file(path)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        assert found[name].shape == value.shape
        assert torch.equal(found[name].float(), value.float())


def test_one_open_and_only_the_bytes_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors = {f"t{i}": random(10, 10, seed=i) for i in range(6)}
    path = write(tmp_path / "a.safetensors", tensors)
    reads: list[tuple[int, int]] = []

    class Recorded(FileIO):
        def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
            reads.append((self.tell(), len(buffer)))
            return super().readinto(buffer)

    opened_paths: list[Path] = []

    def recorded(self: Path, mode: str, **_: object) -> Recorded:
        opened_paths.append(self)
        return Recorded(self, mode)

    monkeypatch.setattr(Path, "open", recorded)
    with LoraFile(path) as opened:
        wanted = ["t1", "t2", "t4"]
        opened.read(wanted)
        assert (opened.opens, opened.tensors_read, opened.bytes_read) == (1, 3, 1200)
        start = opened.header.data_start
        infos = opened.header.tensors
    assert opened_paths == [path]
    spans = [(start + infos[name].begin, 400) for name in wanted]
    assert reads[1:] == spans, "each wanted tensor once, nothing of t0, t3 and t5"
    assert reads[0][0] == 8


def test_long_runs_are_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensor_run, "RUN_BYTES", 1000)
    tensors = {f"t{i}": random(10, 10, seed=i) for i in range(6)}
    path = write(tmp_path / "a.safetensors", tensors)
    with LoraFile(path) as opened:
        found = opened.read(tensors)
    assert all(torch.equal(found[name], value) for name, value in tensors.items())
    assert len({value.untyped_storage().data_ptr() for value in found.values()}) == 3


def test_misaligned_tensors(tmp_path: Path) -> None:
    header = {
        "a": tensor([3], 0, 3, "U8"),
        "b": tensor([2], 3, 11),
        "c": tensor([1], 11, 13, "F16"),
    }
    values = torch.tensor([1.5, -2.0])
    half = torch.tensor([0.25], dtype=torch.float16)
    data = bytes([1, 2, 3]) + values.numpy().tobytes() + half.numpy().tobytes()
    with LoraFile(write_raw(tmp_path / "a.safetensors", header, data)) as opened:
        found = opened.read(["a", "b", "c"])
    assert torch.equal(found["b"], values)
    assert torch.equal(found["c"], half)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    assert refused(tmp_path / "none.safetensors") == "no such file"
    assert "folder" in refused(tmp_path)
    assert refused(tmp_path / ".." / "none" / "x.safetensors") == "no such file"
    write_raw(tmp_path / "plain", {})
    assert "cannot be accessed" in refused(tmp_path / "plain" / "x.safetensors")
    assert "cannot be accessed" in refused(tmp_path / "nul\0.safetensors")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_refused_without_blocking(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.safetensors")
    assert refused(tmp_path / "pipe.safetensors") == "is not a regular file"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read all")
def test_unreadable_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.safetensors", {"a": random(2)})
    path.chmod(stat.S_IWUSR)
    assert "cannot be opened" in refused(path)


def test_denied_and_failing_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.safetensors", {"a": random(2)})
    start = path.read_bytes()[:64]

    def denied(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", denied)
        assert refused(path) == "cannot be opened (Permission denied)"

    class Broken:
        def __init__(self, failing: str) -> None:
            self.failing = failing
            self.closed = 0

        def read(self, _: int) -> bytes:
            if self.failing == "read":
                raise OSError(errno.EIO, "Input/output error")
            return start

        def seek(self, _: int) -> None:
            raise OSError(errno.EIO, "Input/output error")

        def close(self) -> None:
            self.closed += 1

    for failing in ("read", "seek"):
        handle = Broken(failing)
        with monkeypatch.context() as patch:
            patch.setattr(Path, "open", lambda *_, handle=handle, **__: handle)
            assert refused(path) == "cannot be read (Input/output error)"
        assert handle.closed == 1, "the handle does not leak"


def test_unknown_name_is_a_programming_error(tmp_path: Path) -> None:
    path = write(tmp_path / "a.safetensors", {"a": random(2)})
    with LoraFile(path) as opened, pytest.raises(KeyError):
        opened.read(["b"])


def test_errors_survive_pickling() -> None:
    error = pickle.loads(pickle.dumps(LoraFileError("x", "gone", "Look")))  # noqa: S301
    assert (type(error), str(error)) == (LoraFileError, "x: gone. Look")

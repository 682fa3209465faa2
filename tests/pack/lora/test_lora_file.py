"""Reading files: what is counted, what is refused, and how the refusal reads."""

from __future__ import annotations

import errno
import os
import pickle
import stat
from collections.abc import Callable
from io import FileIO
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.lora_samples import DTYPES, lora, named, random, write, write_raw
from vivace.lora.errors import LoraError, LoraFileError, LoraFormatError
from vivace.lora.files import open_file as file_module
from vivace.lora.files.header import MAX_HEADER_BYTES
from vivace.lora.files.open_file import LoraFile


def tensor(shape: list[int], begin: int, end: int, dtype: str = "F32") -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def refused(path: Path) -> str:
    """The message with which the file is refused; it names the file and offers a remedy."""
    with pytest.raises(LoraError) as caught:
        LoraFile(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert message.endswith(f". {caught.value.remedy}")
    assert caught.value.remedy
    return caught.value.problem


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
    monkeypatch.setattr(file_module, "RUN_BYTES", 1000)
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


F32 = b"\0" * 4
GOOD = {"a": tensor([1], 0, 4)}
HOSTILE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "empty": (lambda p: _bytes(p, b""), "empty"),
    "three bytes": (lambda p: _bytes(p, b"abc"), "only 3 bytes"),
    "garbage": (lambda p: _bytes(p, bytes(range(200, 256)) * 9), "impossible header length"),
    "huge length": (lambda p: write_raw(p, GOOD, F32, length=2**63), "impossible header length"),
    "length over the bound": (
        lambda p: write_raw(p, GOOD, F32, length=MAX_HEADER_BYTES + 1),
        "impossible header length",
    ),
    "length over the file": (lambda p: write_raw(p, GOOD, F32, length=500), "header of 500 bytes"),
    "zero length": (lambda p: write_raw(p, b"", F32), "impossible header length 0"),
    "bad JSON": (lambda p: write_raw(p, b'{"a": '), "not valid JSON"),
    "bad UTF-8": (lambda p: write_raw(p, b'{"\xff": 1}'), "not valid JSON"),
    "deep JSON": (lambda p: write_raw(p, b"[" * 200_000 + b"]" * 200_000), "nested too deeply"),
    "endless number": (lambda p: write_raw(p, b'{"a": ' + b"9" * 9000 + b"}"), "not valid JSON"),
    "JSON list": (lambda p: write_raw(p, [1, 2]), "not a JSON object"),
    "duplicate names": (
        lambda p: write_raw(p, b'{"a": %b, "a": %b}' % (ENTRY, ENTRY), F32),
        "names a tensor twice",
    ),
    "duplicate fields": (
        lambda p: write_raw(p, b'{"a": {"dtype": "F32", "dtype": "F32"}}'),
        "twice",
    ),
    "entry is a number": (lambda p: write_raw(p, {"a": 3}), "not an object"),
    "unknown dtype": (
        lambda p: write_raw(p, {"a": tensor([1], 0, 4, "F31")}, F32),
        "unknown dtype",
    ),
    "dtype is a list": (
        lambda p: write_raw(p, {"a": {**GOOD["a"], "dtype": ["F32"]}}, F32),
        "unknown dtype",
    ),
    "no shape": (
        lambda p: write_raw(p, {"a": {"dtype": "F32", "data_offsets": [0, 4]}}, F32),
        "shape",
    ),
    "negative shape": (lambda p: write_raw(p, {"a": tensor([-1, -1], 0, 4)}, F32), "invalid shape"),
    "boolean shape": (
        lambda p: write_raw(p, b'{"a":{"dtype":"F32","shape":[true],"data_offsets":[0,4]}}', F32),
        "shape",
    ),
    "float shape": (
        lambda p: write_raw(p, b'{"a":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}}', F32),
        "shape",
    ),
    "many dimensions": (
        lambda p: write_raw(p, {"a": tensor([1] * 99, 0, 4)}, F32),
        "invalid shape",
    ),
    "overflowing shape": (
        lambda p: write_raw(p, {"a": tensor([2**62, 2**62], 0, 4)}, F32),
        "an invalid shape",
    ),
    "metadata of no kind": (
        lambda p: write_raw(p, {"__metadata__": False}),
        "__metadata__ is not a table",
    ),
    "no JSON number": (
        lambda p: write_raw(p, {"a": {**tensor([1], 0, 4), "x": float("inf")}}, F32),
        "Infinity is no JSON number",
    ),
    "half a character": (
        lambda p: write_raw(p, {"\ud800": tensor([1], 0, 4)}, F32),
        "surrogates not allowed",
    ),
    "shape over range": (lambda p: write_raw(p, {"a": tensor([2], 0, 4)}, F32), "of 8 bytes"),
    "range backwards": (lambda p: write_raw(p, {"a": tensor([0], 4, 0)}, F32), "range 4:0"),
    "three offsets": (
        lambda p: write_raw(p, {"a": {**GOOD["a"], "data_offsets": [0, 4, 4]}}, F32),
        "data_offsets",
    ),
    "one offset": (
        lambda p: write_raw(p, {"a": {**GOOD["a"], "data_offsets": [4]}}, F32),
        "data_offsets",
    ),
    "overlap": (
        lambda p: write_raw(p, {"a": tensor([2], 0, 8), "b": tensor([1], 4, 8)}, F32 * 2),
        "overlap",
    ),
    "same range twice": (
        lambda p: write_raw(p, {"a": tensor([1], 0, 4), "b": tensor([1], 0, 4)}, F32),
        "overlap",
    ),
    "hole": (lambda p: write_raw(p, {"a": tensor([1], 4, 8)}, F32 * 2), "hole"),
    "out of range": (lambda p: write_raw(p, {"a": tensor([2], 0, 8)}, F32), "truncated: 4 of 8"),
    "far out of range": (
        lambda p: write_raw(p, {"a": tensor([2**40], 0, 2**42)}, F32),
        "truncated",
    ),
    "trailing bytes": (lambda p: write_raw(p, GOOD, F32 * 3), "8 bytes after"),
    "metadata is a list": (lambda p: write_raw(p, {"__metadata__": [1]}), "__metadata__"),
    "metadata of numbers": (lambda p: write_raw(p, {"__metadata__": {"a": 1}}), "__metadata__"),
    "web page": (lambda p: _bytes(p, b"<!DOCTYPE html><html>404</html>"), "web page"),
    "LFS pointer": (
        lambda p: _bytes(p, b"version https://git-lfs.github.com/spec/v1\n"),
        "Git LFS",
    ),
    "GGUF": (lambda p: _bytes(p, b"GGUF\x03\0\0\0" + b"\0" * 99), "GGUF"),
    "pickle": (lambda p: _bytes(p, pickle.dumps({"a": 1}, protocol=2)), "pickle"),
}
ENTRY = b'{"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}'


def _bytes(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_file(case: str, tmp_path: Path) -> None:
    make, problem = HOSTILE[case]
    assert problem in refused(make(tmp_path / "a.safetensors"))


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    whole = write(tmp_path / "a.safetensors", named("x", lora(8, 8, torch.float32))).read_bytes()
    for size in range(len(whole)):
        refused(_bytes(tmp_path / "b.safetensors", whole[:size]))


@pytest.mark.parametrize("start", [b"<", b"PK\x03", b"\x80\x02", b" <"])
def test_lengths_that_look_like_other_formats(start: bytes, tmp_path: Path) -> None:
    length = int.from_bytes(start, "little")
    text = b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}'
    header = text.ljust(length if length >= len(text) else length + 256)
    with LoraFile(write_raw(tmp_path / "a.pt", header, F32)) as opened:
        assert set(opened.header.tensors) == {"a"}


def test_file_that_shrinks_while_open(tmp_path: Path) -> None:
    path = write(tmp_path / "a.safetensors", {"a": random(100, 100)})
    with LoraFile(path) as opened:
        os.truncate(path, 20_000)
        with pytest.raises(LoraFileError, match="ends early"):
            opened.read(["a"])
        with pytest.raises(LoraFileError, match="changed"):
            opened.check_unchanged(opened.stamp)


def test_unknown_name_is_a_programming_error(tmp_path: Path) -> None:
    path = write(tmp_path / "a.safetensors", {"a": random(2)})
    with LoraFile(path) as opened, pytest.raises(KeyError):
        opened.read(["b"])


# Pickles


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
        LoraFile(_bytes(tmp_path / "a.pt", content))


def test_pickle_of_something_else(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "a.pt")
    assert "no table of tensors" in refused(tmp_path / "a.pt")


def test_pickle_named_safetensors_is_not_unpickled(tmp_path: Path) -> None:
    torch.save({"a": random(2)}, tmp_path / "a.safetensors")
    assert "holds a pickle" in refused(tmp_path / "a.safetensors")


def test_safetensors_named_pt(tmp_path: Path) -> None:
    with LoraFile(write(tmp_path / "a.pt", {"a": random(2)})) as opened:
        assert set(opened.read(["a"])) == {"a"}


def test_errors_survive_pickling() -> None:
    error = pickle.loads(pickle.dumps(LoraFileError("x", "gone", "Look")))  # noqa: S301
    assert (type(error), str(error)) == (LoraFileError, "x: gone. Look")

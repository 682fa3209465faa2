"""Files that are damaged, or made to do harm, are refused by their header."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support.lora_samples import lora, named, random, write, write_raw
from support.refused_files import raw_file, refused, tensor
from vivace.lora.errors import LoraFileError
from vivace.lora.files.header import MAX_HEADER_BYTES
from vivace.lora.files.open_file import LoraFile

F32 = b"\0" * 4
GOOD = {"a": tensor([1], 0, 4)}
HOSTILE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "empty": (lambda p: raw_file(p, b""), "empty"),
    "three bytes": (lambda p: raw_file(p, b"abc"), "only 3 bytes"),
    "garbage": (lambda p: raw_file(p, bytes(range(200, 256)) * 9), "impossible header length"),
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
    "web page": (lambda p: raw_file(p, b"<!DOCTYPE html><html>404</html>"), "web page"),
    "LFS pointer": (
        lambda p: raw_file(p, b"version https://git-lfs.github.com/spec/v1\n"),
        "Git LFS",
    ),
    "GGUF": (lambda p: raw_file(p, b"GGUF\x03\0\0\0" + b"\0" * 99), "GGUF"),
    "pickle": (lambda p: raw_file(p, pickle.dumps({"a": 1}, protocol=2)), "pickle"),
}
ENTRY = b'{"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}'


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_file(case: str, tmp_path: Path) -> None:
    make, problem = HOSTILE[case]
    assert problem in refused(make(tmp_path / "a.safetensors"))


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    whole = write(tmp_path / "a.safetensors", named("x", lora(8, 8, torch.float32))).read_bytes()
    for size in range(len(whole)):
        refused(raw_file(tmp_path / "b.safetensors", whole[:size]))


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

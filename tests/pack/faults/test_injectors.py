"""The injectors themselves: they see every place, and code that leaks does not pass."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support.faults import Interrupted, allocations, each_kind, each_point, interrupt, out_of_memory
from support.file_faults import disk_full, reads, writes


class Counter:
    """A cache that says how many bytes it has."""

    def __init__(self) -> None:
        self.entries: list[torch.Tensor] = []
        self.nbytes = 0

    def add(self, careful: bool) -> None:
        """Take something in; who is not careful counts it before it is there."""
        if careful:
            entry = torch.ones(100).sin()
            self.nbytes += entry.nbytes
        else:
            self.nbytes += 400
            entry = torch.ones(100).sin()
        self.entries.append(entry)

    def check(self) -> None:
        assert self.nbytes == sum(entry.nbytes for entry in self.entries)


def test_each_allocation_fails_once() -> None:
    cache, raised = Counter(), list[str]()

    def after(error: BaseException | None) -> None:
        raised.append(str(error))
        cache.check()

    points = each_point(allocations, out_of_memory, lambda: cache.add(careful=True), after)
    assert points == ["aten.ones.default", "aten.sin.default"]
    assert raised == [f"CUDA out of memory: {point}" for point in points]


@pytest.mark.parametrize("lasting", [False, True])
def test_a_cache_that_counts_too_early_is_found(lasting: bool) -> None:
    cache = Counter()
    with pytest.raises(AssertionError, match=r"at point 0, aten\.ones"):
        each_point(
            allocations,
            out_of_memory,
            lambda: cache.add(careful=False),
            lambda _: cache.check(),
            lasting=lasting,
        )


def test_views_and_work_in_place_allocate_nothing() -> None:
    values = torch.ones(100)

    def work() -> None:
        values.view(10, 10)[2:].mul_(2)
        torch.sin(values, out=values)

    assert each_point(allocations, out_of_memory, work, lambda _: None) == []


def test_quantized_weights_allocate_inside() -> None:
    class Doubled(torch.Tensor):
        @classmethod
        def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
            inner = (getattr(a, "inner", a) for a in args)
            return func(*(a.mul(2) if isinstance(a, torch.Tensor) else a for a in inner))

    weight = torch.Tensor._make_wrapper_subclass(Doubled, (100,))
    weight.inner = torch.ones(100)  # pyright: ignore[reportAttributeAccessIssue]
    points = each_point(allocations, out_of_memory, lambda: weight + 1, lambda _: None)
    assert points == ["aten.mul.Tensor", "aten.add.Tensor"]


@pytest.mark.parametrize("least", [1, 401])
def test_small_tensors_are_left_out(least: int) -> None:
    found = each_point(
        lambda points: allocations(points, least),
        out_of_memory,
        lambda: torch.ones(100),
        lambda _: None,
    )
    assert len(found) == (1 if least == 1 else 0)


def test_the_pack_s_own_lines_are_named_and_chosen_by() -> None:
    from vivace.lora.factors.delta import LowRank

    delta, tried = LowRank(torch.ones(9, 9), torch.ones(9, 9)), list[str]()

    def work() -> None:
        for _ in range(5):
            delta.matrix()

    def fail(name: str) -> None:
        tried.append(name)

    points = each_point(allocations, fail, work, lambda _: None, chosen=each_kind)
    assert all(" at lora/factors/delta.py:" in point for point in points)
    assert len(points) >= 5
    assert tried == [point for point in dict.fromkeys(points) for _ in range(2)]


def in_place(path: Path, text: str) -> None:
    with path.open("w") as file:
        file.write(text)


def leaving(path: Path, text: str) -> None:
    unfinished = path.with_suffix(".tmp")
    in_place(unfinished, text)
    unfinished.replace(path)


def whole(path: Path, text: str) -> None:
    try:
        leaving(path, text)
    finally:
        path.with_suffix(".tmp").unlink(missing_ok=True)


def write_with_faults(write: Callable[[Path, str], None], folder: Path) -> list[str]:
    path = folder / "file.txt"
    path.write_text("old content")

    def after(error: BaseException | None) -> None:
        assert [entry.name for entry in folder.iterdir()] == ["file.txt"], "something was left"
        assert path.read_text() in ("old content", "new content"), "half of it was written"
        assert isinstance(error, OSError) or path.read_text() == "new content"

    return each_point(
        lambda points: writes(points, folder),
        disk_full,
        lambda: write(path, "new content"),
        after,
        before=lambda: path.write_text("old content"),
    )


def test_a_write_fails_at_each_step(tmp_path: Path) -> None:
    assert write_with_faults(whole, tmp_path) == [
        *("make file.tmp", "write file.tmp", "close file.tmp", "replace file.tmp"),
        "unlink file.tmp",
    ]


@pytest.mark.parametrize(("write", "found"), [(in_place, "half of it"), (leaving, "was left")])
def test_careless_writers_are_found(
    write: Callable[[Path, str], None], found: str, tmp_path: Path
) -> None:
    with pytest.raises(AssertionError, match=found):
        write_with_faults(write, tmp_path)


def test_the_ways_to_write_are_all_seen(tmp_path: Path) -> None:
    import tempfile

    def write() -> None:
        (tmp_path / "a").mkdir()
        handle, name = tempfile.mkstemp(dir=tmp_path / "a")
        with os.fdopen(handle, "wb") as file:
            file.write(b"1234")
            file.flush()
            os.fsync(file.fileno())
        os.rename(name, tmp_path / "b")  # noqa: PTH104
        (tmp_path / "a").rmdir()
        with open(tmp_path / "b", "ab") as file:  # noqa: PTH123
            file.write(b"5")
        (tmp_path / "b").unlink()

    found = each_point(
        lambda points: writes(points, tmp_path), lambda _: None, write, lambda _: None
    )
    kinds = [point.split()[0] for point in found]
    assert kinds == [
        *("mkdir", "make", "write", "flush", "fsync", "close", "rename"),
        *("make", "write", "close", "unlink"),
    ]


def test_a_reader_that_does_not_look_again_is_found(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"

    def read_twice() -> None:
        with path.open("rb", buffering=0) as file:
            seen.append(file.read(4) + file.read(4))

    def change(_: str) -> None:
        path.write_bytes(b"newerone")

    def after(_: BaseException | None) -> None:
        assert seen[-1] in (b"older123", b"newerone"), "a mixture"

    seen: list[bytes] = []
    with pytest.raises(AssertionError, match="a mixture"):
        each_point(
            lambda points: reads(points, tmp_path),
            change,
            read_twice,
            after,
            before=lambda: path.write_bytes(b"older123"),
        )
    with pytest.raises(AssertionError, match=r"point . was "):
        each_point(
            lambda points: reads(points, tmp_path),
            lambda _: None,
            lambda: path.read_bytes() if len(seen) % 2 else path.stat(),
            lambda _: None,
            before=lambda: seen.append(b""),
        )


def test_an_interrupt_is_no_ordinary_error() -> None:
    with pytest.raises(Interrupted), contextlib.suppress(Exception):
        interrupt("now")

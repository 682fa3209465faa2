"""Curves of the LoRA engine: size of the file, number of LoRAs, number of modules."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...lora.examine import inspect
from ...lora.files.cache import default_limit
from ...lora.loader import CACHE
from ...wrappers.lora.apply import apply_loras
from ...wrappers.lora.branch_set import install, remove
from ...wrappers.lora.running_model import RUNNING
from .contender import Engine, forget_everything
from .curves import CONSTANT, LINEAR, Curve, often
from .files import KINDS, write_stack
from .harness import Timings
from .models import whole

RANKS = (1, 2, 4, 8, 16, 32, 48)
STACKS = (1, 2, 5, 10, 20, 50)
BLOCKS = (1, 2, 5, 10, 20, 40, 60)
STACK_RANK = 4
ROOM = 2**33  # bytes of the cache of files, which holds the largest stack
QWEN, Z_IMAGE = KINDS


def file_size(folder: Path, device: str, quick: bool) -> Curve:
    """Files of one model, all with the same names: of rank 1 to rank 48."""
    paths: dict[float, Path] = {}
    for rank in RANKS[:3] if quick else RANKS:
        (path,) = write_stack(folder, QWEN, rank, 1)
        paths[round(path.stat().st_size / 1e6)] = path

    def step(size: float, timings: Timings) -> None:
        path = paths[size]
        forget_everything()
        timings.time("inspect, first time", lambda: inspect(path))
        often(timings, "inspect again", lambda: inspect(path), 20)
        engine = Engine(QWEN, device)
        lora = timings.time("load", lambda: engine.load(path))
        often(timings, "load again", lambda: engine.load(path), 20)
        timings.time("compose", lambda: engine.compose([(lora, 0.8)]), fresh=False)
        strengths = iter(range(1, 6))
        change = lambda: engine.compose([(lora, 0.8 + next(strengths) / 16)])  # noqa: E731
        often(timings, "change of strength", change, 5)

    bounds = {
        "inspect, first time": CONSTANT,
        "inspect again": CONSTANT,
        "load": LINEAR,
        "load again": CONSTANT,
        "compose": CONSTANT,
        "change of strength": CONSTANT,
    }
    return Curve("size of a LoRA file", "MB", tuple(paths), bounds, step)


_ON_A_MODEL = {
    "first apply": LINEAR,
    "change of one strength": LINEAR,
    "change of all strengths": LINEAR,
    "one off": LINEAR,
    "one on again": LINEAR,
    "onto the modules and off": LINEAR,
}


def stack(folder: Path, device: str, quick: bool) -> Curve:
    """A stack on a whole Z-Image, as the nodes apply it, by branches."""
    counts = STACKS[:3] if quick else STACKS
    paths = write_stack(folder, Z_IMAGE, STACK_RANK, max(counts))
    model = whole(Z_IMAGE.name)

    def step(size: float, timings: Timings) -> None:
        _on_a_model(model, paths[: int(size)], timings)

    return Curve("LoRAs in a stack", "", counts, _ON_A_MODEL, step)


def modules(folder: Path, device: str, quick: bool) -> Curve:
    """One LoRA of rank 1 on every linear layer of the blocks of a Qwen-Image of that depth."""
    models: dict[float, tuple[Any, list[Path]]] = {}
    for blocks in BLOCKS[:3] if quick else BLOCKS:
        place = folder / str(blocks)
        place.mkdir()
        paths = write_stack(place, QWEN, 1, 1, blocks)
        models[len(QWEN.shapes(blocks))] = whole(QWEN.name, blocks), paths

    def step(size: float, timings: Timings) -> None:
        _on_a_model(*models[size], timings)

    bounds = {name: bound for name, bound in _ON_A_MODEL.items() if "one " not in name}
    return Curve("modules of a LoRA", "", tuple(models), bounds, step)


def _on_a_model(model: Any, paths: Sequence[Path], timings: Timings) -> None:
    """Apply a stack for the first time in a process, and change it."""
    rows = [(path, 0.8) for path in paths]
    forget_everything()
    RUNNING.clear()
    CACHE.resize(ROOM)

    def apply(changed: Sequence[tuple[Path, float]]) -> Any:
        return apply_loras(model, changed, "branch")[0]

    patched = timings.time("first apply", lambda: apply(rows))

    def switch() -> None:
        install(patched)
        remove(patched)

    often(timings, "onto the modules and off", switch, 3)
    strengths = iter(range(1, 11))
    one = lambda: apply([(paths[0], 0.8 + next(strengths) / 16), *rows[1:]])  # noqa: E731
    often(timings, "change of one strength", one, 3)
    every = lambda s: apply([(path, s) for path in paths])  # noqa: E731
    often(timings, "change of all strengths", lambda: every(1.5 + next(strengths) / 16), 3)
    if len(rows) > 1:
        timings.time("one off", lambda: apply(rows[:-1]), fresh=False)
        timings.time("one on again", lambda: apply(rows), fresh=False)
    forget_everything()
    RUNNING.clear()
    CACHE.resize(default_limit)

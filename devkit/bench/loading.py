"""First apply, second LoRA, and changes of a stack, for one model, rank and number of files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ...lora.factors.finite import FiniteCheck
from ...lora.files.open_file import LoraFile
from ...wrappers.lora.apply import apply_loras
from ...wrappers.lora.running_model import RUNNING
from .baselines import Files, comfyui_loader, comfyui_loader_and_pages, read_tensors
from .contender import Engine, forget_everything
from .files import Kind
from .harness import Result, Target, Timings, spread
from .naive import compose

REPEATS = 5
READ = "read with safetensors"
FIRST = "first apply"
NODE = "first run of the node"
CHECKED = "read and checked for NaN and infinity"
_AT_MOST = "at most"

# Numerator, denominator, label, target.
_MEASURES = (
    (FIRST, READ, "first apply / read with safetensors", Target(_AT_MOST, 1.3)),
    ("first load", READ, "first apply without composing / read", None),
    (NODE, READ, "first run of the node, branch / read", None),
    ("comfyui", FIRST, "ComfyUI's loader / first apply", None),
    ("naive", FIRST, "naive pipeline / first apply", None),
    ("second", "read one", "second LoRA of the kind / read", Target(_AT_MOST, 1.3)),
    (FIRST, "strength", "first apply / strength change", Target("at least", 100)),
    (NODE, "node strength", "first run / strength change, node, branch", None),
    # Its loader alone: before the next picture ComfyUI merges all weights anew besides.
    ("comfyui", "node strength", "ComfyUI's loader without merging / strength change", None),
    ("naive", "strength", "naive pipeline / strength change", None),
    (FIRST, "toggle off", "first apply / toggle one off", None),
    (FIRST, "toggle on", "first apply / toggle one on", None),
    (FIRST, "add", "first apply of ten / add one to nine", None),
    ("naive", "add", "naive pipeline / add one to nine", None),
)


def measure(
    kind: Kind, rank: int, paths: list[Path], model: Any, device: str, rounds: int
) -> tuple[list[Result], dict[str, object]]:
    """Time everything `rounds` times by turns; for one file, check the results first."""
    timings = Timings(device)
    files = [(path, 0.8) for path in paths]
    size = sum(path.stat().st_size for path in paths)
    if len(files) == 1:
        _check(kind, files, model, device)
    for _ in range(rounds):
        _baselines(timings, files, model, device)
        _changes(timings, kind, files, device)
        _node(timings, model, files)
        if len(files) == 1:
            timings.seconds["read one"] = timings.seconds[READ]
    parts = _parts(paths[0], device, rounds)
    case = f"{kind.name} r{rank} x{len(paths)}"
    results = [
        Result(case, label, spread(ratios), target)
        for numerator, denominator, label, target in _MEASURES
        if (ratios := timings.ratios(numerator, denominator))
    ]
    timings.seconds.pop("read one", None)
    return [_explained(result, timings, parts) for result in results], {
        "case": case,
        "file_bytes": size,
        "milliseconds": timings.summary(),
        "parts_of_reading_one_file": parts,
    }


def _baselines(timings: Timings, files: Files, model: Any, device: str) -> None:
    timings.time(READ, lambda: read_tensors(files, device))
    timings.time("comfyui", lambda: comfyui_loader_and_pages(model, files))
    timings.time("naive", lambda: compose(files, torch.bfloat16, device))


def _changes(timings: Timings, kind: Kind, files: Files, device: str) -> None:
    forget_everything()
    engine = Engine(kind, device)
    loras = timings.time("first load", lambda: [(engine.load(path), s) for path, s in files])
    timings.time("first compose", lambda: engine.compose(loras), fresh=False)
    first = timings.seconds["first load"][-1] + timings.seconds["first compose"][-1]
    timings.seconds.setdefault(FIRST, []).append(first)
    _strengths(timings, "strength", lambda s: engine.apply([(path, s) for path, _ in files]))
    engine.apply(files)
    if len(files) == 1:
        other = Engine(kind, device)
        timings.time("second", lambda: other.apply(files))
        return
    timings.time("toggle off", lambda: engine.apply(files[:-1]))
    timings.time("toggle on", lambda: engine.apply(files))
    if len(files) == 10:
        engine.apply(files[:-1])
        nine = [engine.load(path) for path, _ in files[:-1]]
        engine.cache.clear()
        del loras
        rows = [(lora, 0.8) for lora in nine]
        timings.time("add", lambda: engine.compose([*rows, (engine.load(files[-1][0]), 0.8)]))


def _node(timings: Timings, model: Any, files: Files) -> None:
    """What the nodes call, with the model's own composer and the default cache."""
    forget_everything()
    RUNNING.clear()
    kept: list[object] = []  # as ComfyUI keeps what a node gave, until the node has run again

    def run(strength: float) -> None:
        kept[:] = [apply_loras(model, [(path, strength) for path, _ in files], "branch")]

    timings.time(NODE, lambda: run(files[0][1]))
    _strengths(timings, "node strength", run)
    kept.clear()
    forget_everything()
    RUNNING.clear()


def _strengths(timings: Timings, name: str, change: Callable[[float], object]) -> None:
    """Time several changes of all strengths, and keep the median as the value of this round."""
    single = Timings("cpu")
    for i in range(REPEATS):
        single.time(name, lambda i=i: change(0.5 + i / 16), fresh=False)
    timings.seconds.setdefault(name, []).append(sorted(single.seconds[name])[REPEATS // 2])


def _parts(path: Path, device: str, rounds: int) -> dict[str, float]:
    """Medians of the parts of reading one file, as multiples of reading it with `safetensors`."""
    timings = Timings(device)
    for _ in range(rounds):
        timings.time(READ, lambda: read_tensors([(path, 1.0)], device))
        with LoraFile(path) as file:
            timings.time("read", lambda: file.read(file.header.tensors, device))
        timings.time(CHECKED, lambda: _read_and_check(path, device))
    names = ("read", CHECKED)
    return {name: spread(timings.ratios(name, READ))["median"] for name in names}


def _read_and_check(path: Path, device: str) -> dict[str, torch.Tensor]:
    check = FiniteCheck()
    with LoraFile(path) as file:
        tensors = file.read(file.header.tensors, device, watch=check.watch)
    check.non_finite(tensors)
    return tensors


def _explained(result: Result, timings: Timings, parts: dict[str, float]) -> Result:
    if result.hit is not False:
        return result
    if result.measure.endswith("strength change"):
        reason = "the change costs the same for every rank, and a small file is read quickly"
    else:
        ratio = spread(timings.ratios("first compose", READ))["median"]
        reason = (
            f"in units of the plain read: reading {parts['read']:.2f}, and {parts[CHECKED]:.2f}"
            f" with the check for NaN and infinity; composing {ratio:.2f}"
        )
    return replace(result, reason=reason)


def _check(kind: Kind, files: Files, model: Any, device: str) -> None:
    """See that all contenders do the same work.

    Raises:
        RuntimeError: one of them changes other modules, or changes one differently.
    """
    branches = Engine(kind, device).apply(files)
    patched = comfyui_loader(model, files)
    naive = compose(files, torch.bfloat16, device)
    modules = len(kind.shapes())
    patches = sum(map(len, patched.patches.values()))
    if patches != modules * len(files) or not naive.keys() - branches.keys() <= _fused(naive):
        raise RuntimeError(f"{kind.name}: {patches} patches, {len(branches)} branches")
    target = next(name for name in naive if name in branches and name not in _fused(naive))
    a, b = naive[target]
    ours = branches[target].matrix()
    difference = (b.float() @ a.float() - ours).norm() / ours.norm()
    if difference > 0.01:
        raise RuntimeError(f"{target}: the naive change differs by {difference:.1%}")


def _fused(names: dict[str, Any]) -> set[str]:
    return {name for name in names if name.endswith(("qkv", "add_qkv_proj", "w13"))}

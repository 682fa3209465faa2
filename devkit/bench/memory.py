"""Peak host memory of loading one file, each measured in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from .files import Kind, write_stack
from .harness import Result, Target, spread

LOADERS = ("vivace", "safetensors", "naive")
_WHY_MORE = (
    "the file itself is held once; a fused projection (Q, K and V of Z-Image) needs its A joined"
    " and its B block-diagonal, at three times the rank, beside the factors in the cache"
)


def measure(
    folder: Path, kind: Kind, rank: int, path: Path, rounds: int
) -> tuple[list[Result], dict[str, object]]:
    """Run each loader on a file in new processes; peaks are multiples of the file's size."""
    case = f"{kind.name} r{rank} x1"
    if sys.platform == "win32":
        return [], {"case": case, "skipped": "the system does not tell a process its peak memory"}
    small = write_stack(folder, kind, 1, 1, blocks=1)[0]
    size = path.stat().st_size
    peaks: dict[str, list[float]] = {loader: [] for loader in LOADERS}
    for _ in range(rounds):
        for loader in LOADERS:
            peaks[loader].append(_peak(loader, kind, small, path) / size)
    results = [
        Result(
            case,
            f"peak host memory / file size, {loader}",
            spread(peaks[loader]),
            Target("at most", 1.1) if loader == "vivace" else None,
        )
        for loader in LOADERS
    ]
    results = [r if r.hit is not False else replace(r, reason=_WHY_MORE) for r in results]
    return results, {"case": case, "file_bytes": size}


def _peak(loader: str, kind: Kind, small: Path, path: Path) -> int:
    module = f"{__package__}.memory"
    command = [sys.executable, "-m", module, loader, kind.name, str(small), str(path)]
    finished = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(finished.stdout)["peak_bytes"]


def _main(loader: str, name: str, small: str, path: str) -> None:
    """Load the small file, so that libraries are ready, then the other; write the added peak."""
    load = _loader(loader, name)
    load(Path(small))
    before = resident()
    kept = load(Path(path))
    json.dump({"peak_bytes": high_water() - before, "kept": len(kept)}, sys.stdout)  # pyright: ignore


def _loader(loader: str, name: str) -> Callable[[Path], object]:
    import torch

    torch.set_num_threads(2)
    if loader == "vivace":
        from .contender import Engine
        from .files import KINDS

        engine = Engine(next(kind for kind in KINDS if kind.name == name), "cpu")
        return lambda path: engine.apply([(path, 1.0)])
    if loader == "naive":
        from .naive import compose

        return lambda path: compose([(path, 1.0)], torch.bfloat16)
    from .baselines import read_tensors

    return lambda path: read_tensors([(path, 1.0)], "cpu")


def high_water() -> int:
    """The most bytes that this process has had resident.

    On Linux not from `getrusage`: its peak survives `exec`, so it is at least the parent's size.
    """
    if found := _status("VmHWM"):
        return found
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def resident() -> int:
    """Bytes resident now, where the system tells; otherwise the most so far."""
    return _status("VmRSS") or high_water()


def _status(name: str) -> int | None:
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(name)), None)


if __name__ == "__main__":
    _main(*sys.argv[1:])

"""`python -m vivace.devkit.bench.startup`: what the pack costs at start-up, beside other ways.

A real ComfyUI on the CPU, a new process each time, with one pack: a pack without nodes; this one;
the same nodes imported with the pack; and these with everything that they import when they run, as
a pack has it whose imports all stand at the top of its files. Each process imports the pack,
answers the first `/object_info`, as for the editor, and runs a first prompt with a node of the
pack.
"""

from __future__ import annotations

import compileall
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...cli.startup.measure import OUR_PROMPT, OURS, run_probe, sort_modules
from .command import Bench, Measured
from .eager_packs import every_import, every_node, no_nodes
from .files import scratch
from .harness import Result, Target, Timings, spread
from .models import comfyui_folder
from .plot import Panel

NONE, OUR, NODES, ALL = "no nodes", "Vivace", "every node", "every import"
IMPORT, EDITOR, PROMPT, WHOLE = "import", "/object_info", "first prompt", "all three"
ROUNDS, QUICK_ROUNDS = 5, 1
_PROMPT_WITHOUT_NODES = {
    "blank": {
        "class_type": "EmptyImage",
        "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 32896},
    },
    "show": {"class_type": "PreviewImage", "inputs": {"images": ["blank", 0]}},
}
_BUDGET = Target("at most", 50)  # ComfyUI's own "Import times" shows it as 0.0 seconds
_NO_MODULE = Target("at most", 0)
NOTES = (
    "Ratios are taken within a round, in which every pack runs once, the order turned around each"
    " time; median (min .. max).",
    "Byte code is there, and all files are in the page cache, as after the first use.",
    "import: by ComfyUI's loader of node packs, timed around it. all three: import, the first"
    " /object_info with all of ComfyUI's own nodes, and a prompt that makes a blank image and saves"
    " it, up to its entry in the history, which is asked for every 50 ms.",
    "What ComfyUI has imported by itself, such as torch, costs no pack anything.",
)
PANELS = (
    Panel("Import of the pack, ms (less is better)", (f"milliseconds, {IMPORT}",)),
    Panel("First /object_info, ms (less is better)", (f"milliseconds, {EDITOR}",)),
    Panel("First prompt, ms (less is better)", (f"milliseconds, {PROMPT}",)),
    Panel("Other packs' times as multiples of ours (more is better for us)", ("over Vivace",)),
)


class Run:
    """All rounds: seconds by pack and stage, and the modules of the last round."""

    def __init__(self, packs: Mapping[str, Path], work: Path) -> None:
        self.packs = packs
        self.timings = Timings("cpu")
        self.modules: dict[str, dict[str, Any]] = {}
        self._work = work
        self._comfyui = comfyui_folder().resolve()

    def round(self, count: int) -> None:
        """Start every pack once."""
        names = list(self.packs)
        for name in names if count % 2 == 0 else reversed(names):
            self.start(name)

    def start(self, name: str, counts: bool = True) -> None:
        """Start a ComfyUI with one pack, and keep its times if they count.

        Raises:
            RuntimeError: the pack was not imported, or the prompt failed.
        """
        pack = self.packs[name]
        prompt = _PROMPT_WITHOUT_NODES if name == NONE else OUR_PROMPT
        python = Path(sys.executable)
        raw, log = run_probe(python, self._comfyui, pack, self._work, prompt, trace=False)
        folder = raw["folders"].get(os.path.realpath(pack))
        if folder is None or not folder["loaded"] or "error" in raw:
            raise RuntimeError(f"{name}: {raw.get('error')}\n{log[-3000:]}")
        if not counts:
            return
        stages = (folder["seconds"], raw["object_info"]["seconds"], raw["execution"]["seconds"])
        for stage, seconds in zip((IMPORT, EDITOR, PROMPT), stages, strict=True):
            self._keep(name, stage, seconds)
        self._keep(name, WHOLE, sum(stages))
        self.modules[name] = {
            IMPORT: self._sorted(folder["modules"], pack),
            EDITOR: self._sorted(raw["object_info"]["modules"], pack),
            PROMPT: self._sorted(raw["execution"]["modules"], pack),
        }

    def _keep(self, name: str, stage: str, seconds: float) -> None:
        self.timings.seconds.setdefault(f"{name}, {stage}", []).append(seconds)

    def _sorted(self, modules: dict[str, str | None], pack: Path) -> dict[str, list[str]]:
        found = sort_modules(modules, pack, self._comfyui)
        return {key: found[key] for key in ("own", "third_party", "third_party_packages")}

    def results(self) -> list[Result]:
        """Milliseconds, ratios to ours, and counts of modules."""
        found = []
        for stage in (IMPORT, EDITOR, PROMPT, WHOLE):
            for name in self.packs:
                values = [1000 * value for value in self.timings.seconds[f"{name}, {stage}"]]
                target = _BUDGET if (name, stage) == (OUR, IMPORT) else None
                found.append(Result(name, f"milliseconds, {stage}", spread(values), target))
        for name in (NODES, ALL):
            for stage in (IMPORT, WHOLE):
                ratios = self.timings.ratios(f"{name}, {stage}", f"{OUR}, {stage}")
                found.append(Result(name, f"over Vivace, {stage}", spread(ratios)))
        for name in self.packs:
            for kind, title in (("own", "its own"), ("third_party", "of other packages")):
                number = len(self.modules[name][IMPORT][kind])
                target = _NO_MODULE if name == OUR and kind == "third_party" else None
                found.append(Result(name, f"modules {title}", spread([number]), target))
        return found

    def details(self) -> list[dict[str, Any]]:
        """Milliseconds, and how many modules each stage imported."""
        counts = {
            name: {
                stage: {kind: len(modules) for kind, modules in kinds.items()}
                for stage, kinds in stages.items()
            }
            for name, stages in self.modules.items()
        }
        packages = {
            name: stages[IMPORT]["third_party_packages"] for name, stages in self.modules.items()
        }
        return [
            {"milliseconds": self.timings.summary()},
            {"modules": counts, "packages_imported_with_the_pack": packages},
        ]


def main() -> None:
    """Measure, print, and write JSON and plot."""
    Bench("startup", "Start-up", NOTES, PANELS).main(__doc__, _run)


def _run(device: str, quick: bool) -> Measured:
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with scratch() as folder:
        packs = {
            NONE: no_nodes(folder / "none" / "no-nodes"),
            OUR: OURS,
            NODES: every_node(folder / "nodes" / "every-node"),
            ALL: every_import(folder / "all" / "every-import"),
        }
        for pack in packs.values():
            _compile(pack)
        run = Run(packs, folder)
        run.start(ALL, counts=False)  # which reads all files
        for count in range(QUICK_ROUNDS if quick else ROUNDS):
            run.round(count)
            last = {name: seconds[-1] for name, seconds in run.timings.seconds.items()}
            print(f"round {count + 1}: {last}", flush=True)
    results = run.results()
    for result in results:
        print(result.line())
    return results, run.details()


def _compile(pack: Path) -> None:
    """Leave byte code, as the first use does."""
    compileall.compile_dir(pack, maxlevels=0, quiet=2)
    for package in pack.glob("*/__init__.py"):
        compileall.compile_dir(package.parent, quiet=2)


if __name__ == "__main__":
    main()

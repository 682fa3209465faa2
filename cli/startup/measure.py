"""What a node pack costs when ComfyUI starts, by stage and module, against budgets.

Three stages: the import of the pack, the first `/object_info` (the editor opening), and the first
execution of a node. Modules are told apart by where their file lies: the pack's own, ComfyUI's, and
third-party ones, which are the ones that cost seconds.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .probe import MARK
from .server import ProfilerError, arguments, check_folders, environment, free_port

OURS = Path(__file__).resolve().parents[2]

# A pack that keeps to these is not felt at start-up. Counts, except for the one figure that
# ComfyUI itself prints with one decimal.
BUDGETS = {
    "import_seconds_as_printed": 0.0,
    "import_own_modules": 3,
    "import_third_party_modules": 0,
    "object_info_heavy_modules": 0,
}
# fmt: off
HEAVY = frozenset((
    "PIL", "accelerate", "bitsandbytes", "cv2", "diffusers", "httpx", "huggingface_hub", "librosa",
    "llama_cpp", "numba", "nunchaku", "onnxruntime", "openai", "pandas", "peft", "requests",
    "safetensors", "scipy", "sklearn", "tensorflow", "torchaudio", "torchvision", "transformers",
))
# fmt: on
OUR_PROMPT = {
    "blank": {
        "class_type": "VivaceBlankImage",
        "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": "teal"},
    },
    "show": {"class_type": "PreviewImage", "inputs": {"images": ["blank", 0]}},
}
_IMPORT_TIME = re.compile(r"import time:\s+(\d+) \|\s+(\d+) \|(\s+)(\S+)")


def measure(python: Path, comfyui: Path, pack: Path, work: Path) -> dict[str, Any]:
    """Start a real ComfyUI with the pack, and import the pack in a bare interpreter.

    Args:
        python: the environment's Python.
        comfyui: the ComfyUI folder.
        pack: the custom node folder to measure, without links in its path.
        work: a folder for what the server writes, and for its log.

    Returns:
        The report, ready for JSON; `broken_budgets` lists what is over budget.

    Raises:
        ProfilerError: a folder is not what it should be, ComfyUI did not start, or it never loaded
            the pack.
    """
    check_folders(comfyui, pack)
    ours = pack == OURS
    raw, log = run_probe(python, comfyui, pack, work, OUR_PROMPT if ours else None)
    folder = raw["folders"].get(os.path.realpath(pack))
    if folder is None or "error" in raw:
        reason = raw.get("error") or "ComfyUI did not load it."
        raise ProfilerError(
            f"{pack} could not be measured: {reason}", "The end of the log:\n" + log[-3000:]
        )
    loaded = set(folder["modules"])
    report: dict[str, Any] = {
        "pack": str(pack),
        "loaded": folder["loaded"],
        "import": {
            "seconds": round(folder["seconds"], 4),
            "cpu_seconds": round(folder["cpu_seconds"], 4),
            "seconds_as_printed": _printed_seconds(log, pack),
            **sort_modules(folder["modules"], pack, comfyui),
            "heaviest": _heaviest(log, loaded),
        },
        "bare_interpreter": _bare_import(python, pack, work),
    }
    for name in ("object_info", "execution"):
        if name in raw:
            modules = sort_modules(raw[name]["modules"], pack, comfyui)
            report[name] = {"seconds": round(raw[name]["seconds"], 4), **modules}
    # Other packs may have as many files as they like; what counts for them is the rest.
    report["budgets"] = {k: v for k, v in BUDGETS.items() if ours or k != "import_own_modules"}
    report["broken_budgets"] = _broken(report)
    return report


def as_text(report: dict[str, Any]) -> str:
    """The report for people."""
    lines = [f"Start-up of {report['pack']}" + ("" if report["loaded"] else "   IMPORT FAILED"), ""]
    titles = {"import": "import", "object_info": "/object_info", "execution": "first execution"}
    for name, title in titles.items():
        if name not in report:
            continue
        part = report[name]
        lines.append(
            f"  {title:<16} {part['seconds']:8.3f} s   own modules {len(part['own']):3d}"
            f"   third-party {len(part['third_party']):4d}   ComfyUI's {len(part['comfyui']):4d}"
        )
        if part["third_party"]:
            lines.append(f"                   {_shortened(part['third_party_packages'])}")
    bare = report["bare_interpreter"]
    lines.append(
        f"  {'bare interpreter':<16} {bare['seconds']:8.3f} s   modules {bare['modules']}"
        if "seconds" in bare
        else f"  bare interpreter cannot import it: {bare['error']}"
    )
    if report["import"]["heaviest"]:
        lines += ["", "  Heaviest imports (ms with what they import, ms alone):"]
        lines += [
            f"  {item['cumulative_ms']:9.1f} {item['self_ms']:9.1f}  {item['module']}"
            for item in report["import"]["heaviest"]
        ]
    lines.append("")
    lines += [f"  OVER BUDGET: {text}" for text in report["broken_budgets"]]
    return "\n".join(lines + ([] if report["broken_budgets"] else ["  Within every budget."]))


def run_probe(
    python: Path,
    comfyui: Path,
    pack: Path,
    work: Path,
    prompt: Mapping[str, Any] | None,
    trace: bool = True,
) -> tuple[dict[str, Any], str]:
    """Start a ComfyUI with the pack, ask for `/object_info`, run the prompt, and end it.

    Args:
        trace: have Python tell the time of every import in the log, which takes time itself.

    Returns:
        What `probe.py` has written, and the log.

    Raises:
        ProfilerError: ComfyUI did not start.
    """
    port = free_port()
    server_arguments = arguments(comfyui, pack, work, port)
    result = work / "result.json"
    result.unlink(missing_ok=True)
    request = work / "request.json"
    request.write_text(
        json.dumps({"url": f"http://127.0.0.1:{port}", "prompt": prompt, "result": str(result)})
    )
    probe = Path(__file__).with_name("probe.py")
    traced = ["-X", "importtime"] if trace else []
    command = [str(python), *traced, str(probe), str(request), *server_arguments]
    log = work / "probe.log"
    with log.open("wb") as output:
        subprocess.run(
            command, cwd=comfyui, env=environment(), stdout=output, stderr=output, check=False
        )
    text = log.read_text(errors="replace")
    if not result.exists():
        raise ProfilerError("ComfyUI did not start", "The end of its log:\n" + text[-3000:])
    return json.loads(result.read_text()), text


def sort_modules(modules: dict[str, str | None], pack: Path, comfyui: Path) -> dict[str, Any]:
    """Split modules by whose they are. Modules without a file are namespaces or built in."""
    own, theirs, third_party = [], [], []
    here = os.path.realpath(pack)
    for name, file in modules.items():
        if file is None:
            continue
        path = Path(file)
        if path.is_relative_to(here) and ".dev" not in path.relative_to(here).parts:
            own.append(name)
        elif path.is_relative_to(os.path.realpath(comfyui)):
            theirs.append(name)
        elif "site-packages" in path.parts or "dist-packages" in path.parts:
            third_party.append(name)
    packages = sorted({name.partition(".")[0] for name in third_party})
    return {
        "own": own,
        "comfyui": theirs,
        "third_party": third_party,
        "third_party_packages": packages,
        "heavy": sorted(HEAVY.intersection(packages)),
    }


def _heaviest(log: str, modules: set[str], count: int = 15) -> list[dict[str, Any]]:
    """The imports that happened while the pack was loaded, heaviest first."""
    found, inside = [], False
    for line in log.splitlines():
        if line.startswith(MARK):
            inside = " begin " in line
        match = _IMPORT_TIME.match(line) if inside else None
        if match and match[4] in modules:
            own, cumulative = int(match[1]) / 1000, int(match[2]) / 1000
            found.append({"module": match[4], "self_ms": own, "cumulative_ms": cumulative})
    return sorted(found, key=lambda item: -item["cumulative_ms"])[:count]


def _printed_seconds(log: str, pack: Path) -> float | None:
    """The figure of ComfyUI's own "Import times for custom nodes", which has one decimal."""
    for seconds, path in re.findall(r"([\d.]+) seconds(?: \(IMPORT FAILED\))?: (\S.*)", log):
        if os.path.realpath(path.strip()) == os.path.realpath(pack):
            return float(seconds)
    return None


def _bare_import(python: Path, pack: Path, work: Path) -> dict[str, Any]:
    """Import the pack's `__init__.py` without ComfyUI, as its tools and tests do."""
    code = (
        "import importlib.util, json, sys, time\n"
        "spec = importlib.util.spec_from_file_location('pack', sys.argv[1],"
        " submodule_search_locations=[sys.argv[2]])\n"
        "module = sys.modules['pack'] = importlib.util.module_from_spec(spec)\n"
        "before, start = set(sys.modules), time.perf_counter()\n"
        "spec.loader.exec_module(module)\n"
        "print(json.dumps({'seconds': round(time.perf_counter() - start, 4),"
        " 'modules': len(set(sys.modules) - before) + 1}))\n"
    )
    command = [str(python), "-c", code, str(pack / "__init__.py"), str(pack)]
    finished = subprocess.run(
        command, cwd=work, env=environment(), capture_output=True, text=True, check=False
    )
    if finished.returncode != 0:
        return {"error": finished.stderr.strip().splitlines()[-1]}
    return json.loads(finished.stdout.splitlines()[-1])


def _broken(report: dict[str, Any]) -> list[str]:
    figures = {
        "import_seconds_as_printed": report["import"]["seconds_as_printed"],
        "import_own_modules": len(report["import"]["own"]),
        "import_third_party_modules": len(report["import"]["third_party"]),
        "object_info_heavy_modules": len(report["object_info"]["heavy"]),
    }
    broken = [] if report["loaded"] else ["the pack could not be imported"]
    for name, budget in report["budgets"].items():
        if figures[name] is None or figures[name] > budget:
            broken.append(f"{name} is {figures[name]}, budget {budget}")
    return broken


def _shortened(names: list[str], most: int = 12) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")

"""``python -m vivace.devkit.bench.benchmarks``: writes ``BENCHMARKS.md`` from ``results/``.

Each section is of one command: its method, as its own documentation has it, the machine, and what
was measured. Targets that were missed stand beside those that were hit, with the reason.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..rig.layout import ROOT
from .fuzz_section import fuzz_section
from .soak_section import soak_section

FOLDER = Path(__file__).parent
PAGE = ROOT / "BENCHMARKS.md"
TITLES = {
    "cli": "Command line",
    "lora": "LoRAs on dense models",
    "svdquant": "LoRAs on 4-bit models, and loading them",
    "vlm": "QwenVL",
    "picker": "LoRA picker with 10,000 names",
    "startup": "Start-up of ComfyUI",
    "growth": "Growth",
}
_HEAD = """# Measurements

Written by `python3 dev.py bench` from the JSON files in `devkit/bench/results/`, which have every
figure, the rounds and the versions: `python3 dev.py bench NAME` measures again, without a name all
of it, and `--page-only` nothing. Figures are medians, in brackets the least and the greatest of all
rounds; a ratio is taken within a round, in which all contenders ran by turns on the same machine.
"""


def page() -> str:
    """The text of ``BENCHMARKS.md``."""
    parts = [_HEAD]
    for name, title in TITLES.items():
        paths = sorted((FOLDER / "results").glob(f"{name}*.json"))
        for path in paths:
            report = json.loads(path.read_text(encoding="utf-8"))
            parts.append("\n".join(_section(name, title, path, report)))
        if not paths:
            parts.append(f"## {title}\n\n`python3 dev.py bench {name}` has not been run yet.\n")
    soak = FOLDER / "results" / "soak.json"
    if soak.exists():
        report = json.loads(soak.read_text(encoding="utf-8"))
        parts.append("\n".join(soak_section(report, _machine(report))))
    fuzzed = FOLDER / "results" / "fuzz.json"
    if fuzzed.exists():
        parts.append("\n".join(fuzz_section(json.loads(fuzzed.read_text(encoding="utf-8")))))
    return "\n".join(parts)


def _section(name: str, title: str, path: Path, report: Mapping[str, Any]) -> Iterator[str]:
    yield f"## {title}\n"
    yield f"`python3 dev.py bench {name}`, {_machine(report)}, {report['date']}.\n"
    yield _method(name) + "\n"
    yield from (f"- {note}" for note in report["notes"])
    plot = path.with_suffix(".png")
    if plot.exists():
        yield f"\n![{title}](devkit/bench/results/{plot.name})"
    results = report["results"]
    yield from _browser(results) if isinstance(results, dict) else _ratios(results)
    for detail in report.get("details", ()):
        if "curve" in detail:
            yield from _curve(detail)


def _machine(report: Mapping[str, Any]) -> str:
    if "browser" in report:
        return str(report["browser"])
    hardware, versions = report["hardware"], report["versions"]
    device = hardware["gpu"] if report["device"] == "cuda" else hardware["cpu"]
    cores = f"{hardware['cores']} cores, {hardware['ram_gib']} GiB"
    names = ", ".join(f"{name} {version}" for name, version in versions.items())
    return f"{device}, {cores}; {names}"


def _method(name: str) -> str:
    doc = ast.get_docstring(ast.parse((FOLDER / f"{name}.py").read_text(encoding="utf-8"))) or ""
    return " ".join(doc.partition("\n\n")[2].split())


def _ratios(results: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    aimed = [result for result in results if "target" in result]
    hits = sum(result["hit"] for result in aimed)
    yield f"\n{hits} of {len(aimed)} targets are hit.\n"
    yield "| case | measure | result | target | |\n|---|---|---:|---:|---|"
    yield from (_row(result) for result in sorted(aimed, key=lambda one: one["hit"]))
    rest = [result for result in results if "target" not in result]
    if rest:
        yield "\n<details><summary>Without a target</summary>\n"
        yield "| case | measure | result |\n|---|---|---:|"
        yield from (f"| {r['case']} | {r['measure']} | {_figure(r)} |" for r in rest)
        yield "\n</details>"
    yield ""


def _row(result: Mapping[str, Any]) -> str:
    bound = f"{result['target']['bound']} {result['target']['value']:g}"
    reason = result.get("reason", "no reason is known")
    verdict = "hit" if result["hit"] else f"missed: {reason}"
    return f"| {result['case']} | {result['measure']} | {_figure(result)} | {bound} | {verdict} |"


def _figure(result: Mapping[str, Any]) -> str:
    return _spread(result["ratio"])


def _spread(found: Mapping[str, float]) -> str:
    return f"{found['median']:g} ({found['min']:g} .. {found['max']:g})"


def _curve(curve: Mapping[str, Any]) -> Iterator[str]:
    """Milliseconds by operation and size, and the exponents."""
    sizes, unit = curve["sizes"], curve["unit"] and f" {curve['unit']}"
    end = sizes[-curve["sizes_at_the_end"] :]
    yield f"<details><summary>Milliseconds by {curve['curve']}</summary>\n"
    heads = [*(f"{size:g}{unit}" for size in sizes), "exponent", f"from {end[0]:g}{unit}"]
    yield f"| operation | {' | '.join(heads)} |\n|---|{'---:|' * len(heads)}"
    for line in curve["operations"]:
        cells = ["" if found is None else _spread(found) for found in line["milliseconds"]]
        cells += [_spread(line["exponent"]), f"{line['exponent_at_the_end']['median']:g}"]
        yield f"| {line['operation']} | {' | '.join(cells)} |"
    yield "\n</details>\n"


def _browser(results: Mapping[str, Any]) -> Iterator[str]:
    yield "\n| what | measure | median | 95 % | most | times |\n|---|---|---:|---:|---:|---:|"
    for what, measures in results.items():
        for measure, found in measures.items():
            figures = " | ".join(f"{found[key]:g}" for key in ("median", "p95", "max", "count"))
            yield f"| {what} | {measure} | {figures} |"
    yield ""


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"Written: {PAGE.name}.")

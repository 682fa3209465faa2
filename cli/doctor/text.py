"""The report of `vivace doctor` for people."""

from __future__ import annotations

from typing import Any

from ..output import Table
from .finding import BROKEN, LEVELS, NOTE, WARNING, Finding
from .versions import SHOWN


def as_text(data: dict[str, Any], findings: list[Finding]) -> list[str | Table]:
    """Tables and lines: what there is, then what is wrong, the worst first."""
    text: list[str | Table] = [_versions(data), ""]
    text += _models(data["models"])
    text += [*_gpu(data["gpu"]), *_server(data["server"])]
    names = [f"{one['name']} {one['version'] or ''}".rstrip() for one in data["packs"]]
    if names:
        text.append(f"custom nodes: {', '.join(names)}")
    text.append("")
    for level in LEVELS:
        for one in findings:
            if one.level == level:
                text += [f"{level}: {one.problem}.", f"  {one.remedy}."]
    return [*text, _summary(findings)]


def _versions(data: dict[str, Any]) -> Table:
    rows = [
        ("vivace", data["vivace"], ""),
        ("ComfyUI", data["comfyui"] or "unknown", data["folder"] or ""),
        ("Python", data["python"]["version"] or "unknown", data["python"]["program"]),
    ]
    packages = data["packages"]
    rows += [(name, packages.get(name, "not installed"), "") for name in SHOWN]
    if "nunchaku" in packages:
        rows.append(("nunchaku", packages["nunchaku"], ""))
    return Table(("program", "version", "where"), rows)


def _models(kinds: dict[str, Any]) -> list[str | Table]:
    if not any(one["folders"] for one in kinds.values()):
        return ["models: not looked at, since no folder is known"]
    rows: list[tuple[str, str, str]] = []
    for kind, one in kinds.items():
        there = [folder["path"] for folder in one["folders"] if folder["exists"]]
        first, *others = there or ["no folder"]
        rows.append((kind, str(one["count"]), first))
        rows += [("", "", path) for path in others]
    return [Table(("models", "count", "folders"), rows, right=("count",)), ""]


def _gpu(devices: list[dict[str, Any]] | None) -> list[str]:
    if devices is None:
        return ["GPU: not asked; --gpu starts torch to see it"]
    return [f"GPU: {_device(one)}" for one in devices] or ["GPU: none"]


def _device(one: dict[str, Any]) -> str:
    total, free = one["vram_total"], one["vram_free"]
    if not total:
        return one["name"]
    return f"{one['name']}, {total / 2**30:.1f} GiB, {free / 2**30:.1f} free"


def _server(server: dict[str, Any]) -> list[str]:
    if not server["reachable"]:
        return [f"server {server['url']}: not reached, see below"]
    nodes = server["nodes"].values()
    return [
        f"server {server['url']}: ComfyUI {server['comfyui']}, Python {server['python']},"
        f" torch {server['torch']}, {sum(nodes)} of our {len(nodes)} nodes"
    ]


def _summary(findings: list[Finding]) -> str:
    counts = {level: sum(one.level == level for one in findings) for level in LEVELS}
    if not counts[BROKEN] and not counts[WARNING]:
        return "Nothing is wrong."
    return f"broken: {counts[BROKEN]}, warnings: {counts[WARNING]}, notes: {counts[NOTE]}"

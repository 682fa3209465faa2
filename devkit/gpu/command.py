"""``python -m vivace.devkit.gpu.command``: measures the claims, prints and stores a table.

`dev.py gpu` starts it in the environment with ComfyUI. Torch is imported only after ComfyUI has
chosen its allocator, and with it all that measures.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from ..rig.layout import ROOT, DevError
from . import table
from .claims import Claim, Outcome, Row
from .session import LIMIT, GpuSession
from .start import start

if TYPE_CHECKING:
    from .card import Card

_GRACE = 5.0  # seconds for a claim that ends just when the time is up


def main() -> int:
    """Measure; exit status 1 if a claim fails, 3 if the last one had to be broken off."""
    options = _options()
    logging.disable(logging.INFO)
    try:
        dynamic = start(options.comfyui, options.device)
    except DevError as error:
        sys.exit(f"dev.py gpu: {error}.")
    machine = _machine(options.device, options.comfyui, dynamic)
    folder = options.output or (None if options.device == "cpu" else ROOT / "docs")
    if options.device == "cpu":
        print("A dry run on the CPU, with tiny models.", file=sys.stderr, flush=True)
    with TemporaryDirectory(prefix="vivace-gpu-") as scratch:
        card = _card(dynamic, Path(scratch))
        rows = _measured(_chosen(options.only), card, options.seconds, machine, folder)
    _report(machine, rows, folder)
    return 1 if any(row.outcome is Outcome.FAILS for row in rows) else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="dev.py gpu", description=__doc__)
    parser.add_argument("--comfyui", type=Path, required=True, help="its folder")
    parser.add_argument("--device", choices=("cpu", "cuda"), required=True)
    parser.add_argument("--output", type=Path, help="folder (default: docs, on a card)")
    parser.add_argument("--only", nargs="+", default=[], metavar="ID", help="of the claims")
    parser.add_argument("--seconds", type=float, default=LIMIT, help="for all claims")
    return parser.parse_args()


def _chosen(ids: Sequence[str]) -> Sequence[Claim]:
    from .every_claim import CLAIMS

    if unknown := set(ids) - {claim.id for claim in CLAIMS}:
        known = ", ".join(claim.id for claim in CLAIMS)
        sys.exit(f"There is no claim {', '.join(sorted(unknown))}; choose of {known}.")
    return [claim for claim in CLAIMS if claim.id in ids or not ids]


def _card(dynamic: bool, folder: Path) -> Card:
    import comfy.model_management as management

    from .card import Card

    return Card(management.get_torch_device(), folder, dynamic)


def _machine(device: str, comfyui: Path, dynamic: bool) -> dict[str, Any]:
    from ..rig.machine import environment

    text = (comfyui / "comfyui_version.py").read_text(encoding="utf-8")
    version = text.rpartition("=")[2].strip().strip("\"'")
    return {**environment(device, version), "dynamic_vram": dynamic}


def _measured(
    claims: Sequence[Claim], card: Card, limit: float, machine: dict[str, Any], folder: Path | None
) -> list[Row]:
    """Measure in inference mode, as ComfyUI runs nodes; what hangs is broken off and told."""
    import torch

    session = GpuSession(claims, card, limit)

    def break_off() -> None:
        _report(machine, session.rows(), folder)
        os._exit(3)  # what hangs in a kernel or a compiler hears of nothing else

    watchdog = threading.Timer(limit + _GRACE, break_off)
    watchdog.daemon = True
    watchdog.start()
    with torch.inference_mode():
        for row in session.run():
            done = f"{row.outcome.value:20} {row.claim.id:16} {row.seconds:6.1f} s  {row.text}"
            print(done, file=sys.stderr, flush=True)
    watchdog.cancel()
    return session.rows()


def _report(machine: dict[str, Any], rows: Sequence[Row], folder: Path | None) -> None:
    print(table.as_markdown(machine, rows), flush=True)
    if folder is not None:
        table.write(folder, machine, rows)
        print(f"Written: {table.PAGE} and {table.RESULTS} in {folder.name}.", flush=True)


if __name__ == "__main__":
    sys.exit(main())

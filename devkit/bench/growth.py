"""`python -m vivace.devkit.bench.growth`: how time grows with files, models, images, caches.

Every round goes through all sizes of a curve, in another order each time, and times every operation
at each size. The exponent is the slope of a line through the times of a round with both axes
logarithmic, by least squares over the whole range: 0 does not depend on the size, 1 is in
proportion to it, 2 grows with its square.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .command import Bench, Measured
from .curve_plot import draw_curves
from .curves import Curve, measure
from .files import scratch
from .harness import Result

NOTES = (
    "Targets: 0.15 where the size should not matter, 1.15 where every item has to be touched, 1.3"
    " where items are sorted. What an operation costs at any size makes the exponent of the whole"
    " range smaller; that of the three largest sizes tells where it is going.",
    "Size of a LoRA file: Qwen-Image, 2160 names, bf16, rank 1 to 48, in the page cache. The first"
    " inspection includes the tables of names that a process makes once.",
    "LoRAs in a stack: on a whole Z-Image by branches, as the node applies them, with the report;"
    " files of rank 4. Modules of a LoRA: a Qwen-Image of 1 to 60 blocks, rank 1, all 12 linear"
    " layers of each block. The models are on the meta device: nothing is merged or run. One off:"
    " one less remains to be joined, which makes the exponent larger.",
    "Images: 1024 x 1024 pixels at fast, one layer of the tower of Qwen3-VL-4B; found ones are"
    " hashed, too.",
    "Entries of a cache: embeddings of 128 bytes, so that the number counts and not the bytes. The"
    " first write of a process reads the folder.",
    "Installed LoRAs: empty files in 60 folders. Both lists are ComfyUI's own function, which our"
    " nodes ask each time. The picker's functions run in Node.js, without a browser.",
)


def main() -> None:
    """Measure, print, and write JSON and plot."""
    logging.disable(logging.WARNING)
    warnings.filterwarnings("ignore")
    Bench("growth", "Growth", NOTES, (), draw_curves).main(__doc__, _run)


def _run(device: str, quick: bool) -> Measured:
    from . import growth_installed, growth_loras, growth_vlm  # ComfyUI has to be importable first

    makers: dict[Callable[[Path, str, bool], Curve], int] = {
        growth_loras.file_size: 5,
        growth_loras.stack: 5,
        growth_loras.modules: 7,
        growth_vlm.images: 3,
        growth_vlm.cache_entries: 7,
        growth_installed.installed: 5,
    }
    results: list[Result] = []
    details: list[dict[str, Any]] = []
    for maker, rounds in makers.items():
        with scratch() as folder:
            curve = maker(folder, device, quick)
            found, detail = measure(curve, 2 if quick else rounds, device)
        for result in found:
            print(result.line(), flush=True)
        results += found
        details.append(detail)
    return results, details


if __name__ == "__main__":
    main()

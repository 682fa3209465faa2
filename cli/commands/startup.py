"""``vivace startup``: what node packs cost when ComfyUI starts."""

from __future__ import annotations

from ..errors import FAILED, OK, UsageError
from ..settings import option
from ..spec import Argument, Command, Values, folder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..output import Output

COMMAND = Command(
    "Starts ComfyUI on the CPU with one pack at a time, opens the editor's list of nodes, and tells"
    " what was imported, whose it is, and what took long. Nothing is written into ComfyUI's"
    " folder. Without --comfyui it is the ComfyUI that this pack lies in.",
    [
        Argument(
            "packs", folder(), "folders of node packs, installed or not (else this one)", count="*"
        )
    ],
    [option("comfyui"), option("python")],
    [("vivace startup --comfyui ~/ComfyUI ~/ComfyUI/custom_nodes/some-pack", "measure a pack")],
    status="a pack is over a budget, could not be imported, or could not be measured.",
)


def run(values: Values, out: Output) -> int:
    """Measure the packs, one after the other."""
    import os
    import shutil
    import sys
    import tempfile
    from pathlib import Path

    from ..startup.measure import OURS, as_text, measure
    from ..startup.server import comfyui_around, find_python

    found = values.comfyui or comfyui_around(Path(__file__).absolute().parents[2])
    if found is None:
        raise UsageError(
            "It is not known where ComfyUI is",
            "Give --comfyui, set VIVACE_COMFYUI, or write 'comfyui:' into the configuration file",
        )
    comfyui = found.absolute()
    python = str(values.python or find_python(comfyui) or sys.executable)
    # Not resolved: the Python of an environment is a link, and known by where it lies.
    python = Path(os.path.abspath(shutil.which(python) or python))  # noqa: PTH100
    reports = []
    for pack in values.packs or [OURS]:
        out.note(f"Starting ComfyUI with {pack} ...")
        with tempfile.TemporaryDirectory(prefix="vivace-") as work:
            reports.append(measure(python, comfyui, pack.resolve(), Path(work).resolve()))
    out.result(reports, [as_text(report) for report in reports])
    return FAILED if any(report["broken_budgets"] for report in reports) else OK

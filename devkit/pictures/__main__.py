"""`python -m vivace.devkit.pictures`: shoot all pictures, or those that are named, anew."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

from ..doubles.demo_models import ensure_models
from ..rig.browser import FLAGS, browser_program, open_editor
from ..rig.client import ComfyClient
from ..rig.layout import MODELS, OUT, PACK_NAME, ROOT, DevError, say
from ..rig.server import ComfyServer
from .at_work import NAME as AT_WORK
from .at_work import shoot_at_work
from .node_pictures import our_nodes, shoot_node
from .stand_ins import make_stand_ins
from .thumbnails import shoot_workflow

PICTURES = ROOT / "web" / "docs" / "images"
WORKFLOWS = ROOT / "example_workflows"
WINDOW = (1900, 1300)
# The canvas and what lies in nodes, without the menus around.
_STYLE = """
    body * { visibility: hidden; }
    #graph-canvas, .dom-widget, .dom-widget * { visibility: visible; }
"""
_SETTINGS = {
    "Comfy.Graph.CanvasInfo": False,
    "Comfy.NodeBadge.NodeSourceBadgeMode": "None",
    "LiteGraph.Canvas.MinFontSizeForLOD": 0,  # text, not boxes, at any zoom
}


def main() -> int:
    """Shoot; the exit status."""
    parser = argparse.ArgumentParser(prog="pictures", description=__doc__)
    parser.add_argument("--comfyui", type=Path, required=True, help="the folder of ComfyUI")
    parser.add_argument(
        "names", nargs="*", help="ids of nodes, names of example workflows, at_work; none means all"
    )
    arguments = parser.parse_args()
    try:
        _shoot(arguments.comfyui, arguments.names)
    except (DevError, ValueError) as error:
        print(f"pictures: {error}", file=sys.stderr)
        return 1
    return 0


def _shoot(comfyui: Path, names: list[str]) -> None:
    program = browser_program()
    if not program:
        raise DevError("No Chromium: install it, or name its program in VIVACE_BROWSER.")
    ensure_models(MODELS, comfyui)
    work = OUT / "pictures"
    server = ComfyServer(
        Path(sys.executable),
        comfyui,
        work,
        model_dirs=make_stand_ins(work),
        log=work / "server.log",
    )
    with server, sync_playwright() as playwright:
        server.wait_until_ready()
        client = ComfyClient(server.url)
        client.post("/settings", _SETTINGS)
        workflows = {path.stem: path for path in sorted(WORKFLOWS.glob("*.json"))}
        nodes = our_nodes(client.get_json("/object_info"), PACK_NAME)
        unknown = set(names) - {*workflows, *nodes, AT_WORK}
        if unknown:
            raise DevError(
                f"There is no node, example or `{AT_WORK}` named {', '.join(sorted(unknown))}."
            )
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        page = open_editor(browser, server.url, size=WINDOW)
        page.add_style_tag(content=_STYLE)
        for node_id in nodes:
            if not names or node_id in names:
                _say(node_id, shoot_node(page, node_id, PICTURES / f"{node_id}.png"))
        for name, path in workflows.items():
            if not names or name in names:
                _say(name, shoot_workflow(page, path))
        if not names or AT_WORK in names:
            _say(AT_WORK, shoot_at_work(page, client))
        browser.close()


def _say(name: str, size: int) -> None:
    say(f"{name:32} {size:6} bytes")


if __name__ == "__main__":
    sys.exit(main())

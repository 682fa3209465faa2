"""``python -m vivace.devkit.bench.picker``: how fast the LoRA picker is in a real browser.

Times are measured in the page: from the event to the end of its handlers, and to the frame that
shows the result.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from datetime import date
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from playwright.sync_api import Page, Route, sync_playwright

from ..rig.client import ComfyClient
from ..rig.layout import DEV, NEWEST
from ..rig.server import ComfyServer

COUNT = 10_000
FOLDERS = 60
RESULTS = Path(__file__).parent / "results" / "picker.json"
QUERIES = ("ink drawing 12", "set 7 portrait", "zzz")

SHOW_STACK = """() => {
    app.graph.clear();
    const node = LiteGraph.createNode("VivaceLoraStack");
    app.graph.add(node);
    node.pos = [40, 40];
    app.canvas.ds.scale = 1;
    app.canvas.ds.offset = [100, 80];
    app.canvas.setDirty(true, true);
}"""

MEASURE = """async ([queries, repeats]) => {
    const frame = () => new Promise(done => requestAnimationFrame(() => {
        const { port1, port2 } = new MessageChannel();
        port1.onmessage = done; // after the frame has been laid out and painted
        port2.postMessage(0);
    }));
    const timed = async action => {
        await frame();
        const start = performance.now();
        action();
        const handled = performance.now() - start;
        await frame();
        return [handled, performance.now() - start];
    };
    const search = () => document.querySelector(".vivace-picker-search");
    const press = key =>
        search().dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
    const times = { open: [], keystroke: [], page_down: [] };
    for (let i = 0; i < repeats; i++) {
        times.open.push(await timed(() => document.querySelector(".vivace-rows-add").click()));
        for (const query of queries) {
            for (let end = 1; end <= query.length; end++) {
                times.keystroke.push(await timed(() => {
                    search().value = query.slice(0, end);
                    search().dispatchEvent(new Event("input", { bubbles: true }));
                }));
            }
        }
        search().value = "set"; // which every name has
        search().dispatchEvent(new Event("input", { bubbles: true }));
        for (let j = 0; j < 20; j++) times.page_down.push(await timed(() => press("PageDown")));
        press("Escape");
    }
    return times;
}"""


def file_names(count: int) -> list[str]:
    """Names like those of a large collection, in folders."""
    subjects = ("ink drawing", "portrait", "city at night", "watercolour", "clay")
    return [
        f"set {i % FOLDERS}/{subjects[i % len(subjects)]} {i}.safetensors" for i in range(count)
    ]


def open_editor(page: Page, url: str) -> None:
    """The editor with a LoRA Stack, in place of whose files there are `COUNT` names."""
    loras = [{"name": n, "preview": False, "modified": 1.7e9} for n in file_names(COUNT)]
    body = json.dumps({"loras": loras})

    def answer(route: Route) -> None:
        route.fulfill(body=body, content_type="application/json")

    page.route("**/api/vivace/loras", answer)
    page.goto(url)
    page.wait_for_function(
        "() => window.app?.graph?.nodes.length > 0"
        " && !!window.LiteGraph?.registered_node_types.VivaceLoraStack",
        timeout=90_000,
    )
    with page.expect_response("**/api/vivace/loras"):
        page.evaluate(SHOW_STACK)
    page.locator(".vivace-rows").wait_for()
    page.wait_for_timeout(1000)


def summary(times: list[list[float]], column: int) -> dict[str, float]:
    """Median, 95th percentile and maximum, in milliseconds."""
    values = sorted(pair[column] for pair in times)
    return {
        "median": round(median(values), 2),
        "p95": round(values[int(0.95 * (len(values) - 1))], 2),
        "max": round(values[-1], 2),
        "count": len(values),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m vivace.devkit.bench.picker", description=__doc__
    )
    parser.add_argument("--browser", default="chromium", help="its program: a name or a path")
    parser.add_argument("--repeats", type=int, default=10)
    options = parser.parse_args()
    program = shutil.which(options.browser) or options.browser
    with TemporaryDirectory() as folder, sync_playwright() as playwright:
        work = Path(folder)
        comfyui = DEV / f"comfyui-{NEWEST.version}"
        server = ComfyServer(Path(sys.executable), comfyui, work, log=work / "server.log")
        with server:
            server.wait_until_ready()
            ComfyClient(server.url).post("/settings", {"Comfy.TutorialCompleted": True})
            browser = playwright.chromium.launch(
                executable_path=program,
                args=["--no-sandbox", "--disable-gpu"],
            )
            page = browser.new_page(viewport={"width": 1500, "height": 900})
            open_editor(page, server.url)
            times = page.evaluate(MEASURE, [QUERIES, options.repeats])
            version = browser.version
            browser.close()
    results: dict[str, Any] = {
        name: {"handlers_ms": summary(pairs, 0), "to_frame_ms": summary(pairs, 1)}
        for name, pairs in times.items()
    }
    report = {
        "date": date.today().isoformat(),
        "browser": f"Chromium {version}, without a GPU",
        "names": COUNT,
        "notes": [
            "open: click on Add LoRA. keystroke: one more letter of a query. page_down: in a list"
            " of all names.",
            "handlers_ms: until the event's handlers have ended. to_frame_ms: until the frame with"
            " the result is painted; a 60 Hz display shows one every 16.7 ms.",
        ],
        "results": results,
    }
    RESULTS.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    for name, one in results.items():
        print(name, one)


if __name__ == "__main__":
    main()

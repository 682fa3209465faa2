"""Runs a real ComfyUI in this process and records what one custom node folder costs it.

Started by `measure.py` as `python -X importtime probe.py REQUEST.json COMFYUI_ARGUMENTS...` in the
ComfyUI folder. It is ComfyUI's own `main.py` with two additions: the loading of node folders is
timed, and a thread asks the finished server for `/object_info`, and runs a prompt, over HTTP. What
each stage added to `sys.modules` goes into the request's `result` file.

Import times come on stderr from `-X importtime`, between marks that say which folder is loading.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import os
import sys
import threading
import time
import traceback
import urllib.request
from pathlib import Path
from typing import Any

MARK = "vivace-probe:"


def main() -> None:
    request = json.loads(Path(sys.argv[1]).read_text())
    sys.argv = ["main.py", *sys.argv[2:]]
    sys.path[0] = os.getcwd()  # noqa: PTH109 - as running main.py there would have it
    # ComfyUI's own top-level modules, not those of the same name in this repository.
    comfyui_main = importlib.import_module("main")
    nodes = importlib.import_module("nodes")

    folders: dict[str, dict[str, Any]] = {}
    load = nodes.load_custom_node

    async def timed_load(module_path: str, *args: Any, **kwargs: Any) -> bool:
        before, wall, cpu = set(sys.modules), time.perf_counter(), time.process_time()
        print(MARK, "begin", module_path, file=sys.stderr, flush=True)
        loaded = await load(module_path, *args, **kwargs)
        print(MARK, "end", file=sys.stderr, flush=True)
        folders[os.path.realpath(module_path)] = {
            "loaded": loaded,
            "seconds": time.perf_counter() - wall,
            "cpu_seconds": time.process_time() - cpu,
            "modules": describe(set(sys.modules) - before),
        }
        return loaded

    vars(nodes)["load_custom_node"] = timed_load
    loop, _, start_all = comfyui_main.start_comfyui()
    stages = threading.Thread(target=run_stages, args=(request, folders), daemon=True)
    stages.start()
    asyncio.set_event_loop(loop)
    with contextlib.suppress(SystemExit):
        loop.run_until_complete(start_all())


def run_stages(request: dict[str, Any], folders: dict[str, dict[str, Any]]) -> None:
    """Ask the server for the later stages, write the result, and end the process."""
    result: dict[str, Any] = {"folders": folders}
    try:
        wait_for(f"{request['url']}/system_stats")
        result["object_info"] = stage(lambda: fetch(f"{request['url']}/object_info"))
        if request["prompt"]:
            result["execution"] = stage(lambda: execute(request["url"], request["prompt"]))
    except Exception:  # noqa: BLE001 - whatever happened belongs into the report
        result["error"] = traceback.format_exc()
    Path(request["result"]).write_text(json.dumps(result))
    os._exit(0)


def stage(action: Any) -> dict[str, Any]:
    before, wall = set(sys.modules), time.perf_counter()
    action()
    seconds = time.perf_counter() - wall
    return {"seconds": seconds, "modules": describe(set(sys.modules) - before)}


def describe(names: set[str]) -> dict[str, str | None]:
    """Module name -> file, for modules that are there now."""
    files = {}
    for name in sorted(names):
        file = getattr(sys.modules.get(name), "__file__", None)
        files[name] = os.path.realpath(file) if file else None
    return files


def execute(url: str, prompt: dict[str, Any]) -> None:
    body = json.dumps({"prompt": prompt}).encode()
    prompt_id = json.loads(fetch(f"{url}/prompt", body))["prompt_id"]
    while True:
        entry = json.loads(fetch(f"{url}/history/{prompt_id}")).get(prompt_id)
        if entry:
            if entry["status"]["status_str"] != "success":
                raise RuntimeError(f"the prompt failed: {entry['status']['messages'][-1]}")
            return
        time.sleep(0.05)


def wait_for(url: str) -> None:
    deadline = time.monotonic() + 120
    while True:
        try:
            fetch(url)
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def fetch(url: str, body: bytes | None = None) -> bytes:
    with urllib.request.urlopen(url, body, timeout=120) as response:  # noqa: S310 - our own server
        return response.read()


if __name__ == "__main__":
    main()

"""ComfyUI servers for a soak, with the small models and small caches."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..rig.client import ComfyClient
from ..rig.server import ComfyServer
from .jobs import node

NODES = Path(__file__).parent / "custom_nodes"
LORA_MB, IMAGE_MB = 4, 1
# ComfyUI's default keeps every result until main memory is short, which is growth that is meant.
RESULTS_KEPT = 200


@contextmanager
def running_server(
    comfyui: Path, files: Path, work: Path
) -> Iterator[tuple[ComfyServer, ComfyClient]]:
    """A fresh server and a client of it.

    Args:
        files: the folder that `ensure_files` filled.
        work: emptied; for what the server writes.
    """
    shutil.rmtree(work, ignore_errors=True)
    server = ComfyServer(
        Path(sys.executable),
        comfyui,
        work,
        arguments=["--disable-dynamic-vram", "--cache-lru", str(RESULTS_KEPT)],
        test_nodes=True,
        model_dirs={
            "custom_nodes": [NODES],
            "loras": [files / "loras"],
            "LLM": [files / "LLM"],
            "soak_svdquant": [files / "svdquant"],
        },
        variables={"VIVACE_LORA_CACHE_MB": str(LORA_MB)},
        log=work / "server.log",
    )
    with server:
        server.wait_until_ready()
        client = ComfyClient(server.url)
        size = {"size": "change", "size.memory_mb": IMAGE_MB}
        client.run({"cache": node("VivaceQwenVLCache", action="show", **size)})
        yield server, client


def forget(client: ComfyClient) -> None:
    """Have the server drop models, results, and encoded images, as if it was new."""
    client.run({"cache": node("VivaceQwenVLCache", action="clear memory")})
    free(client)
    # The server looks at the flags once it has run what it finds in the queue.
    client.run({"cache": node("VivaceQwenVLCache", action="show")})


def free(client: ComfyClient) -> None:
    """Ask the server to drop models and results before its next prompt."""
    client.post("/free", {"unload_models": True, "free_memory": True})

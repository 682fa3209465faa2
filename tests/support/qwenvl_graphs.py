"""Graphs with the QwenVL nodes, and what comes out of them."""

from __future__ import annotations

import re
from typing import Any

from support.graphs import node
from vivace.devkit.rig.client import ComfyClient, Prompt

SMALL = "small-qwen3_vl"
GREEDY = {"sampling": "greedy"}


def local(model: str = SMALL, **inputs: Any) -> dict[str, Any]:
    """The inputs of an engine that is a model on this machine."""
    found = {"engine": "local", "engine.model": model, "engine.dtype": "float32"}
    return found | {f"engine.{name}": value for name, value in inputs.items()}


def picture(color: int, width: int = 96, height: int = 64) -> dict[str, Any]:
    """A node that makes an image of one colour."""
    return node("EmptyImage", width=width, height=height, batch_size=1, color=color)


def ask(prompt: str = "What is it?", **inputs: Any) -> dict[str, Any]:
    """The node QwenVL, which writes a few tokens."""
    values = {"prompt": prompt, "max_tokens": 8, "preset": "None (my prompt only)", **GREEDY}
    return node("VivaceQwenVL", **(values | (inputs if "engine" in inputs else local() | inputs)))


def graph(color: int = 0xFF0000, **inputs: Any) -> Prompt:
    """A question about an image."""
    return {
        "image": picture(color),
        "ask": ask(**{"images.image0": ["image", 0]}, **inputs),
        "text": node("PreviewAny", source=["ask", 0]),
    }


def figures(report: str) -> tuple[int, int]:
    """Images from the cache, and encoded."""
    found = re.search(r"(\d+) from the cache, (\d+) encoded", report)
    assert found, report
    return int(found[1]), int(found[2])


def run(client: ComfyClient, prompt: Prompt, name: str = "ask") -> dict[str, Any]:
    """Run a graph, and return the first of each output of a node."""
    return {key: value[0] for key, value in client.run(prompt)[name].items() if value}

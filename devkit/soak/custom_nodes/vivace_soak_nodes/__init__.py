"""Nodes for a soak: small models of ComfyUI's own classes, and a look at what is alive.

ComfyUI recognizes files of Qwen-Image and Z-Image at their full width only, at which a run takes
seconds on a CPU.
"""

from __future__ import annotations

import json

from comfy_api.latest import io

from .models import SMALL, load
from .probe import probe


class SoakModel(io.ComfyNode):
    """A small model with random weights."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="VivaceSoakModel",
            category="Vivace/Test",
            inputs=[io.Combo.Input("name", options=list(SMALL))],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, name):
        return io.NodeOutput(load(name))


class SoakProbe(io.ComfyNode):
    """Counts of what is alive in the server, as JSON."""

    @classmethod
    def define_schema(cls):
        return io.Schema(node_id="VivaceSoakProbe", category="Vivace/Test", is_output_node=True)

    @classmethod
    def fingerprint_inputs(cls, **_):
        return float("nan")

    @classmethod
    def execute(cls):
        return io.NodeOutput(ui={"counts": [json.dumps(probe())]})


NODE_CLASS_MAPPINGS = {"VivaceSoakModel": SoakModel, "VivaceSoakProbe": SoakProbe}

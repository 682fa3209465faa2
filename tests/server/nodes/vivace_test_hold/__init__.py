"""Holds a server in the middle of a write, so that it can be killed there."""

import os
import time
from pathlib import Path

from comfy_api.latest import io


class TestHold(io.ComfyNode):
    """From now on, files of this name are written beside their place and never put there."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="VivaceTestHold",
            category="Vivace/Test",
            inputs=[io.String.Input("name")],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, name):
        replace = os.replace

        def hold(source, target, **options):
            if Path(target).name == name:
                time.sleep(3600)
            replace(source, target, **options)

        os.replace = hold
        return io.NodeOutput()


NODE_CLASS_MAPPINGS = {"VivaceTestHold": TestHold}

"""QwenVL Download."""

from __future__ import annotations

from pathlib import Path

import folder_paths
from comfy_api.latest import io

from ..defaults import DEFAULTS
from . import vlm_inputs as inputs

_DEFAULTS = DEFAULTS["VivaceQwenVLDownload"]


class QwenVLDownload(io.ComfyNode):
    """A model from the hub, into models/LLM."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VivaceQwenVLDownload",
            display_name="QwenVL Download",
            category=inputs.CATEGORY,
            description=(
                "Downloads a model from the Hugging Face hub into models/LLM, all files of one"
                " commit, checked. What an interrupted download fetched is kept for the next try."
            ),
            search_aliases=["download model", "hugging face", "vivace"],
            inputs=[
                io.String.Input(
                    "repository",
                    default=_DEFAULTS["repository"],
                    tooltip="Owner and name, such as Qwen/Qwen3-VL-8B-Thinking.",
                ),
                io.String.Input(
                    "revision",
                    default=_DEFAULTS["revision"],
                    optional=True,
                    advanced=True,
                    tooltip="A branch, tag or commit.",
                ),
            ],
            outputs=[io.String.Output(display_name="model", tooltip="Its name in QwenVL.")],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, repository: str, revision: str = _DEFAULTS["revision"]) -> io.NodeOutput:
        from ..wrappers.vlm.vlm_download import download

        root = Path(folder_paths.models_dir) / "LLM"
        name, line = download(repository.strip(), revision.strip() or "main", root)
        return io.NodeOutput(name, ui={"text": (line,)})

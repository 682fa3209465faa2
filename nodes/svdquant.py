"""Load SVDQuant Model."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import folder_paths
from comfy_api.latest import io

from ..defaults import DEFAULTS

CATEGORY = "Vivace/Loaders"
FOLDER = "diffusion_models"
_DEFAULTS = DEFAULTS["VivaceLoadSvdquantModel"]


class LoadSvdquantModel(io.ComfyNode):
    """A Nunchaku checkpoint as a model of ComfyUI's own."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VivaceLoadSvdquantModel",
            display_name="Load SVDQuant Model",
            category=CATEGORY,
            description=(
                "Loads an int4 SVDQuant checkpoint of Qwen-Image or Z-Image, as Nunchaku publishes"
                " them, without the nunchaku package: on any GPU that ComfyUI's own kernels run on,"
                " and on the CPU. Use Vivace's LoRA nodes with it; merging and saving need bf16."
            ),
            search_aliases=["nunchaku", "svdq", "int4", "4-bit", "unet loader", "vivace"],
            inputs=[
                io.Combo.Input(
                    "model_name",
                    options=checkpoints(),
                    tooltip="An svdq-int4_r... file in a diffusion_models folder.",
                ),
                io.Boolean.Input(
                    "keep_converted",
                    default=_DEFAULTS["keep_converted"],
                    optional=True,
                    advanced=True,
                    tooltip=(
                        "Writes the converted form beside the file (as large again), so that it is"
                        " only read the next time."
                    ),
                ),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="The model, in 4 bits.")],
        )

    @classmethod
    def validate_inputs(cls, model_name: Any = None) -> bool | str:
        return _missing(str(model_name)) or True

    @classmethod
    def fingerprint_inputs(cls, model_name: str, **_: Any) -> Any:
        status = _path(model_name).stat()
        return model_name, status.st_size, status.st_mtime_ns

    @classmethod
    def execute(
        cls, model_name: str, keep_converted: bool = _DEFAULTS["keep_converted"]
    ) -> io.NodeOutput:
        from comfy.model_management import throw_exception_if_processing_interrupted
        from comfy.utils import ProgressBar

        from ..wrappers.svdquant.svdquant_model import load_svdquant

        bar = ProgressBar(1)

        def progress(done: int, total: int) -> None:
            throw_exception_if_processing_interrupted()
            bar.update_absolute(done, total)

        return io.NodeOutput(load_svdquant(_path(model_name), keep_converted, progress))


def checkpoints() -> list[str]:
    """Names of the files to choose from, without the converted copies of others."""
    names = folder_paths.get_filename_list(FOLDER)
    copies = {f"{name.removesuffix('.safetensors')}.kitchen.safetensors" for name in names}
    return [name for name in names if name.endswith(".safetensors") and name not in copies]


def _path(name: str) -> Path:
    if problem := _missing(name):
        raise ValueError(problem)
    return Path(folder_paths.get_full_path_or_raise(FOLDER, name))


def _missing(name: str) -> str | None:
    listed = folder_paths.get_filename_list(FOLDER)
    if name in listed:
        return None
    near = difflib.get_close_matches(name, listed, n=3, cutoff=0.4)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    return f"The model '{name}' is not in ComfyUI's {FOLDER} folders.{hint} Put the file there."

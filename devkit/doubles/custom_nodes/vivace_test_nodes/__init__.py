"""Helper nodes for the demo and the tests; never part of the product.

They stand in for an 8-GB text encoder, and let a client see a model's weights as they are when the
model runs.
"""

from __future__ import annotations

import gc
from collections import Counter
from pathlib import Path
from typing import ClassVar

import comfy.model_management
import comfy.utils
import folder_paths
import torch
from comfy_api.latest import io
from safetensors.torch import save_file


class TestConditioning(io.ComfyNode):
    """A random text embedding, the same for the same seed."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="VivaceTestConditioning",
            category="Vivace/Test",
            inputs=[
                io.Int.Input("seed", default=0),
                io.Int.Input("tokens", default=12, min=1),
                io.Int.Input("width", default=3584, min=1),
                io.String.Input("text", default="", optional=True),
            ],
            outputs=[io.Conditioning.Output()],
        )

    @classmethod
    def execute(cls, seed, tokens, width, text=""):
        embedding = torch.randn(1, tokens, width, generator=torch.Generator().manual_seed(seed))
        return io.NodeOutput([[embedding, {}]])


class TestSaveWeights(io.ComfyNode):
    """Loads a model as a sampler would and saves the first rows of the named parameters."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="VivaceTestSaveWeights",
            category="Vivace/Test",
            is_output_node=True,
            inputs=[
                io.Model.Input("model"),
                io.String.Input("names", multiline=True),
                io.Int.Input("rows", default=128, min=1),
            ],
        )

    @classmethod
    def execute(cls, model, names, rows):
        comfy.model_management.load_models_gpu([model], force_full_load=True)
        diffusion_model = model.model.diffusion_model
        weights = {
            name: comfy.utils.get_attr(diffusion_model, name)[:rows].detach().cpu().clone()
            for name in names.split()
        }
        files = []
        if weights:
            folder, filename, counter, subfolder, _ = folder_paths.get_save_image_path(
                "weights", folder_paths.get_output_directory()
            )
            name = f"{filename}_{counter:05}_.safetensors"
            save_file(weights, Path(folder) / name)
            files.append({"filename": name, "subfolder": subfolder, "type": "output"})
        return io.NodeOutput(ui={"files": files, "patched": [len(model.patches)]})


class TestLoraStack(io.ComfyNode):
    """A LORA_STACK of one row, as other packs make it."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="VivaceTestLoraStack",
            category="Vivace/Test",
            inputs=[io.String.Input("name"), io.Float.Input("strength", default=1.0, min=-10)],
            outputs=[io.Custom("LORA_STACK").Output()],
        )

    @classmethod
    def execute(cls, name, strength):
        return io.NodeOutput([(name, strength, strength)])


class TestClip(io.ComfyNode):
    """A small text encoder."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="VivaceTestClip", category="Vivace/Test", outputs=[io.Clip.Output()]
        )

    @classmethod
    def execute(cls):
        from .small_clip import small_clip

        return io.NodeOutput(small_clip())


class TestAudio(io.ComfyNode):
    """A sine, or audio that no node can use."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="VivaceTestAudio",
            category="Vivace/Test",
            inputs=[
                io.Float.Input("seconds", default=0.5, min=0.0),
                io.Int.Input("channels", default=1, min=1, max=6),
                io.Int.Input("sample_rate", default=8000, min=1),
                io.Boolean.Input("nan", default=False, optional=True),
            ],
            outputs=[io.Audio.Output()],
        )

    @classmethod
    def execute(cls, seconds, channels, sample_rate, nan=False):
        time = torch.arange(round(seconds * sample_rate)) / sample_rate
        waveform = (0.4 * (2 * torch.pi * 220 * time).sin()).expand(1, channels, -1).clone()
        if nan:
            waveform[..., 0] = torch.nan
        return io.NodeOutput({"waveform": waveform, "sample_rate": sample_rate})


class TestMemory(io.ComfyNode):
    """What ComfyUI has loaded, and how many models of transformers are alive."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="VivaceTestMemory",
            category="Vivace/Test",
            is_output_node=True,
            inputs=[
                io.AnyType.Input("after", optional=True),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, **_):
        return float("nan")

    @classmethod
    def execute(cls, after=None):
        gc.collect()
        loaded = [
            type(loaded.model).__name__ for loaded in comfy.model_management.current_loaded_models
        ]
        alive = [
            type(item).__name__
            for item in gc.get_objects()
            if isinstance(item, torch.nn.Module)
            and type(item).__name__.endswith("ForConditionalGeneration")
        ]
        return io.NodeOutput(ui={"loaded": loaded, "alive": alive})


_MANAGEMENT = ("get_torch_device", "get_free_memory", "minimum_inference_memory")
_KEPT = {name: getattr(comfy.model_management, name) for name in _MANAGEMENT}


class TestSmallDevice(io.ComfyNode):
    """Lets ComfyUI load models to a device of so many bytes, as if it were a GPU; 0 undoes it.

    Loading to "cpu" evicts nothing; "cpu:0" is the same place, and to ComfyUI a device like others.
    """

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="VivaceTestSmallDevice",
            category="Vivace/Test",
            is_output_node=True,
            inputs=[io.Int.Input("nbytes", default=0, max=2**40)],
        )

    @classmethod
    def fingerprint_inputs(cls, **_):
        return float("nan")

    @classmethod
    def execute(cls, nbytes):
        management = comfy.model_management

        def free(device=None, torch_free_too=False):
            loaded = sum(m.model_loaded_memory() for m in management.current_loaded_models)
            return (nbytes - loaded, 0) if torch_free_too else nbytes - loaded

        small = (lambda: torch.device("cpu:0"), free, lambda: 0)
        for name, function in zip(_MANAGEMENT, small if nbytes else _KEPT.values(), strict=True):
            setattr(management, name, function)
        return io.NodeOutput()


class TestCount(io.ComfyNode):
    """Hands an image on and tells how often it was computed."""

    runs: ClassVar[Counter[str]] = Counter()

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="VivaceTestCount",
            category="Vivace/Test",
            inputs=[io.Image.Input("image"), io.String.Input("name")],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(cls, image, name):
        TestCount.runs[name] += 1
        return io.NodeOutput(image, ui={"runs": [TestCount.runs[name]]})


NODE_CLASS_MAPPINGS = {
    "VivaceTestCount": TestCount,
    "VivaceTestSmallDevice": TestSmallDevice,
    "VivaceTestClip": TestClip,
    "VivaceTestAudio": TestAudio,
    "VivaceTestMemory": TestMemory,
    "VivaceTestLoraStack": TestLoraStack,
    "VivaceTestConditioning": TestConditioning,
    "VivaceTestSaveWeights": TestSaveWeights,
}

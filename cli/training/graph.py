"""The prompt of a training: ComfyUI's own nodes, and pictures with what they made."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import CliError, UsageError
from ..workflow.build import Builder, named_lora
from ..workflow.families import Files, choose_files, template
from ..workflow.size import parse_size
from .config import INPUTS, Config

if TYPE_CHECKING:
    from ..server.made_model import MadeModel

TRAIN = "TrainLoraNode"
NONE = "[None]"
_LOADERS = ("model", "clip", "vae")
_SHARED = ("sampling", "negative", "size")
_PER_SAMPLE = ("positive", "sampler", "decode", "save")


@dataclass(frozen=True)
class TrainingPlan:
    """A checked training.

    Attributes:
        builder: the prompt, without the data set's folder and the name of the result.
        steps: of the LoRA when it is done, those before it was resumed included.
    """

    builder: Builder
    files: Files
    steps: int

    def finish(self, folder: str, made: MadeModel) -> dict[str, dict[str, Any]]:
        """The prompt for a data set on the server, saving to `made`."""
        prompt = self.builder.prompt
        prompt["images"]["inputs"]["folder"] = folder
        prompt["lora"]["inputs"]["prefix"] = made.prefix
        return prompt


def plan(object_info: dict[str, Any], config: Config) -> TrainingPlan:
    """Check a configuration against the server, before anything is uploaded.

    Raises:
        UsageError: a value does not fit the server's nodes.
        CliError: the server lacks a node or a file.
    """
    files = choose_files(Builder(object_info), config, prefix="")
    if files.quantized:
        problem = f"model: {files.model} is in 4 bits, which cannot be trained"
        raise CliError(problem, "Name the bf16 or fp8 model that it was made of")
    whole = template(object_info, files, loras=False)
    builder = Builder(object_info, {id_: whole.prompt[id_] for id_ in _LOADERS})
    builder.add("images", "LoadImageTextDataSetFromFolder", folder="")
    source = "images"
    if config.longest_edge is not None:
        builder.add("resized", "ResizeImagesByLongerEdge", images=["images", 0])
        builder.set("resized", "longer_edge", config.longest_edge, "longest_edge")
        source = "resized"
    builder.add(
        "dataset",
        "MakeTrainingDataset",
        images=[source, 0],
        vae=["vae", 0],
        clip=["clip", 0],
        texts=["images", 1],
    )
    before = _add_training(builder, config)
    builder.add("lora", "SaveLoRA", lora=["train", 0], prefix="")
    # Not ComfyUI's own picture of them: its node fails where all are equal or one is NaN, and the
    # prompt with it, after all the training.
    builder.add("losses", "PreviewAny", source=["train", 1])
    steps = int(builder.prompt["train"]["inputs"]["steps"]) + before
    if config.samples:
        _add_samples(builder, whole, config, f"{config.name}_{steps}_steps-sample")
    return TrainingPlan(builder, files, steps)


def _add_training(builder: Builder, config: Config) -> int:
    """Add the training node; the steps that the LoRA to go on with has behind it."""
    links = {"model": ["model", 0], "latents": ["dataset", 0], "positive": ["dataset", 1]}
    builder.add("train", TRAIN, existing_lora=NONE, **links)
    for key, name in INPUTS.items():
        builder.set("train", name, config.training.get(key), key)
    if config.resume is None:
        return 0
    offered = [one for one in builder.choices(TRAIN, "existing_lora") if one != NONE]
    lora = named_lora(config.resume, offered, "resume")
    builder.prompt["train"]["inputs"]["existing_lora"] = lora
    # As the server's node reads it out of the name.
    count = lora.split("_steps_")[0].split("_")[-1]
    if not count.isdecimal():
        problem = f"resume: the name of {lora} does not say how long it was trained"
        raise UsageError(problem, "Name it as NAME_100_steps_.safetensors")
    return int(count)


def _add_samples(builder: Builder, whole: Builder, config: Config, name: str) -> None:
    """A picture for each prompt, with the LoRA as it was trained."""
    samples = config.samples
    whole.set("sampler", "steps", samples.get("steps"), "samples.steps")
    whole.set("sampler", "cfg", samples.get("cfg"), "samples.cfg")
    whole.set("sampler", "seed", samples.get("seed"), "samples.seed")
    if samples.get("size") is not None:
        lengths = parse_size(str(samples["size"]), "samples.size")
        for side, length in zip(("width", "height"), lengths, strict=True):
            whole.set("size", side, length, "samples.size")
    builder.add("trained", "LoraModelLoader", model=["model", 0], lora=["train", 0])
    for id_ in _SHARED:
        builder.prompt[id_] = copy.deepcopy(whole.prompt[id_])
    builder.prompt["sampling"]["inputs"]["model"] = ["trained", 0]
    for number, text in enumerate(samples["prompts"], 1):
        for id_ in _PER_SAMPLE:
            node = copy.deepcopy(whole.prompt[id_])
            node["_meta"]["title"] = f"Sample {number}: {node['_meta']['title']}"
            for key, value in node["inputs"].items():
                if isinstance(value, list) and value[0] in _PER_SAMPLE:
                    node["inputs"][key] = [f"{value[0]}{number}", value[1]]
            builder.prompt[f"{id_}{number}"] = node
        builder.prompt[f"positive{number}"]["inputs"]["text"] = text
        builder.prompt[f"save{number}"]["inputs"]["filename_prefix"] = f"{name}{number}"

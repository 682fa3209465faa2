"""The demo's graph in ComfyUI's API format."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..rig.client import Prompt

SEED = 20
STEPS = 2
SIZE = 256
ROWS = 128
"""Rows of each weight that are saved: enough to check, quick to send."""


@dataclass(frozen=True)
class Run:
    """One queued prompt: its label, and the rows and mode of its LoRA Stack."""

    label: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    mode: str = "auto"

    @property
    def slug(self) -> str:
        """The label as part of a file name."""
        return "".join(c if c.isalnum() else "-" for c in self.label)


def build(run: Run, model: str, vae: str | None, text_width: int, weights: list[str]) -> Prompt:
    """The prompt of one run.

    Args:
        run: label, rows and mode.
        model: name of the diffusion model, as ComfyUI lists it.
        vae: name of the VAE; None leaves out decoding and saving an image.
        text_width: features of the text embedding that the model expects.
        weights: parameter names whose patched values are saved.
    """

    def node(class_type: str, **inputs: Any) -> dict[str, Any]:
        return {"class_type": class_type, "inputs": inputs, "_meta": {"title": class_type}}

    prompt = {
        "model": node("UNETLoader", unet_name=model, weight_dtype="default"),
        "stack": node("VivaceLoraStack", model=["model", 0], rows=run.rows, mode=run.mode),
        "text": node("VivaceTestConditioning", seed=3, tokens=12, width=text_width),
        "latent": node("EmptySD3LatentImage", width=SIZE, height=SIZE, batch_size=1),
        "sample": node(
            "KSampler",
            model=["stack", 0],
            seed=SEED,
            steps=STEPS,
            cfg=1.0,
            sampler_name="euler",
            scheduler="simple",
            positive=["text", 0],
            negative=["text", 0],
            latent_image=["latent", 0],
            denoise=1.0,
        ),
        "latent_file": node("SaveLatent", samples=["sample", 0], filename_prefix=run.slug),
        "report": node("PreviewAny", source=["stack", 1]),
        "weights": node(
            "VivaceTestSaveWeights", model=["stack", 0], names="\n".join(weights), rows=ROWS
        ),
    }
    if vae is not None:
        prompt["vae"] = node("VAELoader", vae_name=vae)
        prompt["decode"] = node("VAEDecode", samples=["sample", 0], vae=["vae", 0])
        prompt["image"] = node("SaveImage", images=["decode", 0], filename_prefix=run.slug)
    return prompt

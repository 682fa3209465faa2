"""What a soak asks of ComfyUI: pictures, captions, and looks into the cache, as prompts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..doubles.demo_models import MODEL_FILE, VAE_FILE
from ..rig.client import Prompt
from .files import QUANTIZED_FILE

SIZE = 64
# Width of the text embedding that each model takes, by the model's name here.
SMALL = {
    "Qwen-Image": 48,
    "Qwen-Image fp8": 48,
    "Qwen-Image SVDQuant": 48,
    "Z-Image": 48,
    "Z-Image SVDQuant": 48,
}
DEMO, QUANTIZED = "Qwen-Image file", "SVDQuant file"
TEXT_WIDTHS = {**SMALL, DEMO: 3584, QUANTIZED: 3584}


@dataclass(frozen=True)
class Picture:
    """A latent, and the image of it if `decoded`, by a model with LoRAs."""

    model: str
    rows: tuple[tuple[str, float], ...] = ()
    mode: str = "auto"
    seed: int = 0
    steps: int = 1
    decoded: bool = False

    @property
    def kind(self) -> str:
        return f"picture: {self.model}"

    def prompt(self, nonce: int) -> Prompt:
        """The graph; another `nonce` has ComfyUI sample again, with the same result."""
        rows = [{"on": True, "lora": name, "strength": strength} for name, strength in self.rows]
        found = {
            "model": _loader(self.model),
            "stack": node("VivaceLoraStack", model=["model", 0], rows=rows, mode=self.mode),
            "text": node(
                "VivaceTestConditioning",
                **{"seed": 3, "tokens": 12, "width": TEXT_WIDTHS[self.model], "text": str(nonce)},
            ),
            "latent": node("EmptySD3LatentImage", width=SIZE, height=SIZE, batch_size=1),
            "sample": node(
                "KSampler",
                model=["stack", 0],
                seed=self.seed,
                steps=self.steps,
                cfg=1.0,
                sampler_name="euler",
                scheduler="simple",
                positive=["text", 0],
                negative=["text", 0],
                latent_image=["latent", 0],
                denoise=1.0,
            ),
            "latent_file": node("SaveLatent", samples=["sample", 0], filename_prefix="soak"),
        }
        if self.decoded:
            found["vae"] = node("VAELoader", vae_name=VAE_FILE)
            found["decode"] = node("VAEDecode", samples=["sample", 0], vae=["vae", 0])
            found["image"] = node("SaveImage", images=["decode", 0], filename_prefix="soak")
        return found


@dataclass(frozen=True)
class Caption:
    """Words about images, each of which is a color, a width and a height.

    `seed` None writes greedily. `cached` is the node's switch for its image cache.
    """

    family: str
    images: tuple[tuple[int, int, int], ...]
    text: str
    tokens: int = 8
    seed: int | None = None
    cached: bool = True

    @property
    def kind(self) -> str:
        return f"caption: {self.family}"

    def prompt(self, nonce: int) -> Prompt:
        """The graph; when it writes greedily, another `nonce` has ComfyUI write again."""
        ask: dict[str, Any] = {
            "prompt": self.text,
            "preset": "None (my prompt only)",
            "max_tokens": self.tokens,
            "sampling": "greedy" if self.seed is None else "custom",
            "seed": nonce if self.seed is None else self.seed,
            "enable_image_cache": self.cached,
            "engine": "local",
            "engine.model": f"soak-{self.family}",
            "engine.dtype": "float32",
        }
        found: Prompt = {}
        for number, (color, width, height) in enumerate(self.images):
            name = f"image{number}"
            found[name] = node("EmptyImage", width=width, height=height, batch_size=1, color=color)
            ask[f"images.{name}"] = [name, 0]
        return {**found, "ask": node("VivaceQwenVL", **ask)}


@dataclass(frozen=True)
class Cache:
    """A run of QwenVL Cache."""

    action: str

    @property
    def kind(self) -> str:
        return "QwenVL Cache"

    def prompt(self, nonce: int) -> Prompt:
        """The graph."""
        return {"cache": node("VivaceQwenVLCache", action=self.action)}


Job = Picture | Caption | Cache


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    """One node of a prompt."""
    return {"class_type": class_type, "inputs": inputs}


def _loader(model: str) -> dict[str, Any]:
    if model == DEMO:
        return node("UNETLoader", unet_name=MODEL_FILE, weight_dtype="default")
    if model == QUANTIZED:
        return node("VivaceLoadSvdquantModel", model_name=QUANTIZED_FILE)
    return node("VivaceSoakModel", name=model)

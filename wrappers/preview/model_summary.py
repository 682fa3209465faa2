"""What there is to say of a model, a text encoder, a VAE or a video of ComfyUI."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP, VAE
from comfy_api.latest import Input

from ...toolkit.summary import Summary, count, summarize
from ..lora.applied_loras import applied_loras
from ..lora.merge import DeltaAdapter

if TYPE_CHECKING:
    from comfy_api.latest._input import VideoInput

_SHOWN = 20
_Figures = list[tuple[str, str]]


def summarize_any(value: Any) -> Summary:
    """As `toolkit.summary.summarize`, which knows nothing of ComfyUI's own classes."""
    for kind, summary in _KINDS:
        if isinstance(value, kind):
            try:
                return summary(value)
            except Exception as error:  # noqa: BLE001 - of models and files of any making
                problem = f"cannot be examined: {type(error).__name__}: {error}"
                return Summary("object", f"{type(value).__name__}, {problem}")
    return summarize(value)


def _model(model: ModelPatcher) -> Summary:
    inner: Any = model.model
    network = getattr(inner, "diffusion_model", None)
    figures: _Figures = []
    if isinstance(network, torch.nn.Module):
        figures.append(("network", type(network).__name__))
    prediction = getattr(getattr(inner, "model_type", None), "name", None)
    if isinstance(prediction, str):
        figures.append(("prediction", prediction))
    latent = getattr(inner, "latent_format", None)
    if latent is not None:
        figures.append(("latent format", type(latent).__name__))
    figures += [*_patcher(model), *_changed(model)]
    return Summary("model", f"Model: {type(inner).__name__}, {_size(model)}", tuple(figures))


def _clip(clip: CLIP) -> Summary:
    name = type(clip.cond_stage_model).__name__
    figures: _Figures = [("tokenizer", type(clip.tokenizer).__name__)]
    if clip.layer_idx is not None:
        figures.append(("stops at layer", str(clip.layer_idx)))
    figures += _patcher(clip.patcher)
    return Summary("clip", f"Text encoder: {name}, {_size(clip.patcher)}", tuple(figures))


def _vae(vae: VAE) -> Summary:
    name = type(vae.first_stage_model).__name__
    figures: _Figures = [("latent channels", str(vae.latent_channels))]
    scale = vae.downscale_ratio
    if isinstance(scale, int):
        figures.append(("pixels per latent", f"{scale} x {scale}"))
    figures += [("computes in", _dtype(vae.vae_dtype)), ("device", str(vae.device))]
    figures += _weights(vae.first_stage_model)
    return Summary("vae", f"VAE: {name}, {_size(vae.patcher)}", tuple(figures))


def _video(video: VideoInput) -> Summary:
    width, height = video.get_dimensions()
    seconds, frames = video.get_duration(), video.get_frame_count()
    title = f"Video: {seconds:.2f} s of {width} x {height} pixels"
    figures = (
        ("frames", str(frames)),
        ("frames per second", f"{float(video.get_frame_rate()):.6g}"),
        ("container", video.get_container_format()),
    )
    return Summary("video", title, figures)


def _patcher(model: ModelPatcher) -> _Figures:
    """Weights, devices and LoRAs: what a model and a text encoder have in common."""
    figures = _weights(model.model)
    figures.append(("computes on", str(model.load_device)))
    if model.offload_device != model.load_device:
        figures.append(("waits on", str(model.offload_device)))
    loras = applied_loras(model)
    figures += [
        ("LoRA", f"{lora.name}, strength {lora.strength:g}, {count(lora.modules, 'module')}")
        for lora in loras
    ]
    others = [key for key, patches in model.patches.items() if _of_others(patches)]
    # A text encoder gets its LoRAs as ComfyUI's own patches, which do not tell who made them.
    if others:
        figures.append(("ComfyUI's patches", f"on {count(len(others), 'weight')}"))
    if not loras and not others:
        figures.append(("LoRA", "none"))
    return figures


def _of_others(patches: Iterable[tuple[Any, ...]]) -> bool:
    return any(not isinstance(patch[1], DeltaAdapter) for patch in patches)


def _changed(model: ModelPatcher) -> _Figures:
    """Parts of the model that nodes have exchanged, such as its sampling."""
    names = sorted(map(str, model.object_patches))
    options = model.model_options.get("transformer_options", {})
    names += sorted(str(name) for name, item in options.items() if item)
    if not names:
        return []
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return [("exchanged or added", ", ".join(names[:_SHOWN]) + more)]


def _weights(network: object) -> _Figures:
    if not isinstance(network, torch.nn.Module):
        return []
    kinds: Counter[str] = Counter()
    number = 0
    for weight in network.parameters():
        number += weight.numel()
        kinds[_dtype(weight.dtype)] += weight.numel()
    shares = [f"{kind} ({part / number:.0%})" for kind, part in kinds.most_common(3) if part]
    stored = ", ".join(shares) if len(shares) > 1 else next(iter(kinds), "nothing")
    return [("parameters", f"{number:,}"), ("stored as", stored)]


def _size(model: ModelPatcher) -> str:
    return f"{model.model_size() / 2**20:.1f} MiB"


def _dtype(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


_KINDS: tuple[tuple[type, Callable[[Any], Summary]], ...] = (
    (ModelPatcher, _model),
    (CLIP, _clip),
    (VAE, _vae),
    (Input.Video, _video),
)

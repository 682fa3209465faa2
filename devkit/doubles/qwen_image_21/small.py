"""ComfyUI's classes around the double: what its loader would make of a checkpoint."""

from __future__ import annotations

from typing import Any, ClassVar, cast

import comfy.conds
import comfy.latent_formats
import comfy.model_base
import comfy.supported_models_base

from .network import QwenImage21Double


class Latents21(comfy.latent_formats.LatentFormat):
    """64 channels of the picture at a sixteenth of its size."""

    latent_channels = 64
    spacial_downscale_ratio = 16


class Config21(comfy.supported_models_base.BASE):
    """What the loader knows of the model."""

    unet_config: ClassVar[dict[str, Any]] = {"image_model": "qwen_image21"}
    sampling_settings: ClassVar[dict[str, Any]] = {"multiplier": 1.0, "shift": 0.69}
    unet_extra_config: ClassVar[dict[str, Any]] = {}
    memory_usage_factor = 6.0
    latent_format = Latents21


class Model21(comfy.model_base.QwenImage):
    """The model that a patcher holds. Keys and values are kept from the moment when a run sets its
    patcher, and only where no hook may patch weights in the run; the next patcher, or none, ends
    that (`comfy/model_base.py`, commit 094c74c1b7f9).
    """

    def __init__(self, model_config: Any, device: Any = None) -> None:
        # Past the class above, which cannot be given another network in an older ComfyUI.
        base = comfy.model_base.BaseModel
        kind, network = comfy.model_base.ModelType.FLUX, cast(Any, QwenImage21Double)
        base.__init__(self, model_config, kind, device=device, unet_model=network)
        self.memory_usage_factor_conds = ("ref_latents",)

    @property
    def current_patcher(self) -> Any:
        """The patcher that samples now."""
        return self._patcher

    @current_patcher.setter
    def current_patcher(self, patcher: Any) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        self._patcher = patcher
        network = getattr(self, "diffusion_model", None)
        if network is not None:
            network.reset_prefix_cache(patcher is not None and not patcher.hook_patches)

    def extra_conds(self, **kwargs: Any) -> dict[str, Any]:
        """The conditions, with the places of references in the text."""
        found = super().extra_conds(**kwargs)
        if kwargs.get("image_slots") is not None:
            found["image_slots"] = comfy.conds.CONDConstant(kwargs["image_slots"])
        return found

"""Starts ComfyUI in this process as it starts itself, dynamic VRAM included.

The order matters: the allocator is chosen before torch is imported, and comfy-aimdo hooks into it
before ComfyUI asks for the card. So nothing here imports torch before.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from ..doubles.demo_models import import_comfy
from ..rig.layout import DevError


def start(comfyui: Path, device: str) -> bool:
    """Make ComfyUI importable for ``"cpu"`` or ``"cuda"``; returns whether VRAM is dynamic.

    Raises:
        DevError: torch is imported already, or sees no CUDA device.
    """
    import_comfy(comfyui)
    from comfy.cli_args import args, enables_dynamic_vram

    args.cpu = device == "cpu"
    if args.cpu:
        # As on a card: what ComfyUI computes attention with on the CPU breaks compiled graphs.
        args.use_pytorch_cross_attention = True
        return False
    if "torch" in sys.modules:
        raise DevError("torch was imported before its allocator was chosen")
    if enables_dynamic_vram():
        import comfy_aimdo.control

        comfy_aimdo.control.init()
    import cuda_malloc  # noqa: F401 - chooses the allocator when it is imported
    import torch

    if not torch.cuda.is_available():
        raise DevError("torch sees no CUDA device here")
    return enables_dynamic_vram() and _dynamic()


def _dynamic() -> bool:
    """Switch ComfyUI to dynamic VRAM, where it would do so itself and comfy-aimdo works."""
    import comfy.memory_management as memory
    import comfy.model_management as management
    import comfy.model_patcher as patchers

    if not management.is_nvidia() or management.is_wsl():
        return False
    import comfy_aimdo.control

    devices = [device.index for device in management.get_all_torch_devices()]
    if not comfy_aimdo.control.init_devices(devices):
        logging.getLogger(__name__).warning("comfy-aimdo does not work here")
        return False
    patchers.CoreModelPatcher = patchers.ModelPatcherDynamic
    memory.aimdo_enabled = True
    return True

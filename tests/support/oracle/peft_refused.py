"""Adapters of peft that are not computed, as peft itself saves them, and words of the reason."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from support.oracle.libraries import library
from support.oracle.peft_models import adapted
from support.oracle.tiny import tiny


class Refused(NamedTuple):
    """A method: peft's configuration, and words of the reason with and without a configuration."""

    config: str
    arguments: Mapping[str, Any] = {}
    beside: str = "is {} of peft"
    alone: str = "{}"


# By the name that the tensors give the method. Values that end in "Config" are classes of peft.
METHODS: dict[str, Refused] = {
    "BEFT": Refused("BeftConfig"),
    "BOFT": Refused("BOFTConfig", {"boft_block_size": 4}),
    "C3A": Refused("C3AConfig", {"block_size": 8}),
    "DEFT": Refused("DeftConfig", {"r": 4}),
    "DeLoRA": Refused("DeloraConfig", {"r": 4}),
    "FourierFT": Refused("FourierFTConfig", {"n_frequency": 20}),
    "FRoD": Refused("FrodConfig"),
    "GLoRA": Refused("GloraConfig", {"r": 4}),
    "GraLoRA": Refused("GraloraConfig", {"r": 4, "gralora_k": 2}),
    "HiRA": Refused("HiraConfig", {"r": 4}),
    "HRA": Refused("HRAConfig", {"r": 4}),
    "Lily": Refused("LilyConfig", {"r": 4}),
    "LN tuning": Refused("LNTuningConfig", beside="is LN_TUNING of peft"),
    "MiSS": Refused("MissConfig", {"r": 4}),
    "MiSS bat": Refused("MissConfig", {"r": 4, "init_weights": "bat"}, "is MISS", "is MiSS"),
    "MiSS mini": Refused(
        "MissConfig", {"r": 4, "mini_r": 2, "init_weights": "mini"}, "is MISS", "is MiSS"
    ),
    "OFT constrained": Refused(
        "OFTConfig",
        {"oft_block_size": 4, "coft": True},
        "is constrained OFT",
        "is OFT whose rotation depends",
    ),
    "OSF": Refused("OSFConfig"),
    "PEANuT": Refused("PeanutConfig", {"r": 4}),
    "Poly": Refused("PolyConfig", {"r": 4}),
    "PSOFT": Refused("PsoftConfig", {"r": 4}),
    "PVeRA": Refused("PveraConfig", {"r": 4}),
    "RandLoRA": Refused("RandLoraConfig", {"r": 4}),
    "RoAd": Refused("RoadConfig", {"group_size": 8}),
    "SHiRA": Refused("ShiraConfig", {"r": 4}),
    "SuperTuning": Refused("SupertuningConfig"),
    "TinyLoRA": Refused("TinyLoraConfig", {"r": 2}),
    "UniLoRA": Refused("UniLoraConfig", {"r": 4}),
    "VB-LoRA": Refused(
        "VBLoRAConfig", {"r": 4, "num_vectors": 8, "vector_length": 8}, "is VBLORA of peft"
    ),
    "VeRA": Refused("VeraConfig", {"r": 4}),
    "WaveFT": Refused("WaveFTConfig", {"n_frequency": 20}),
    "KaSA": Refused("LoraConfig", {"r": 4, "kasa_config": "KasaConfig"}, "has kasa_config"),
    "VeLoRA": Refused("LoraConfig", {"r": 4, "velora_config": "VeloraConfig"}, "is VeLoRA"),
    "MonteCLoRA": Refused(
        "LoraConfig", {"r": 4, "monteclora_config": "MontecloraConfig"}, "is MonteCLoRA"
    ),
    "BD-LoRA": Refused(
        "LoraConfig", {"r": 4, "use_bdlora": "BdLoraConfig"}, "has use_bdlora", "is for a"
    ),
}
# Variants of LoRA whose tensors are those of a plain one: only a configuration tells.
TOLD = {
    "aLoRA": ({"alora_invocation_tokens": [1, 2]}, "has alora_invocation_tokens"),
    "QALoRA": ({"use_qalora": True}, "has use_qalora"),
    "target_parameters": (
        {"target_modules": [], "target_parameters": ["{0}.weight"]},
        "has target_parameters",
    ),
}

_OF_CONFIGS = {
    "BdLoraConfig": {"target_modules_bd_a": ["to_q"], "nblocks": 2, "match_strict": False},
}


def save(model: str, config: str, arguments: Mapping[str, Any], folder: Path) -> Path:
    """Save an adapter of peft for one projection in two blocks of a model."""
    peft = library("peft")
    paths = [path for path in tiny(model).linears if path.endswith(".to_q")][-2:]
    given = {
        name: getattr(peft, value)(**_OF_CONFIGS.get(value, {}))
        if isinstance(value, str) and value.endswith("Config")
        else [item.format(paths[0]) if isinstance(item, str) else item for item in value]
        if isinstance(value, list)
        else value
        for name, value in arguments.items()
    }
    chosen: list[str] = ["norm_q"] if config == "LNTuningConfig" else paths
    full = getattr(peft, config)(**{"target_modules": chosen, **given})
    adapter = adapted(tiny(model), full, torch.float32).float()
    for parameter in adapter.parameters():
        if parameter.requires_grad and parameter.is_floating_point():
            parameter.data.copy_(torch.randn(parameter.shape) * 0.1)
    adapter.save_pretrained(str(folder))
    return folder / "adapter_model.safetensors"

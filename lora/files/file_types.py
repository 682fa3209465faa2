"""Which files are LoRAs by their names: the one list of endings."""

from __future__ import annotations

SAFETENSORS = (".safetensors", ".sft")
PICKLES = (".pt", ".pth", ".bin", ".ckpt")
ENDINGS = (*SAFETENSORS, *PICKLES)


def is_lora_file(name: str) -> bool:
    """Whether a file's name ends as that of a LoRA."""
    return name.lower().endswith(ENDINGS)


def without_ending(name: str) -> str:
    """Return a name without the ending of a LoRA file, as it is if it has none."""
    lower = name.lower()
    return next((name[: -len(e)] for e in ENDINGS if lower.endswith(e)), name)

"""Names of LoRA files: the one list of endings, and names with either kind of slash."""

from __future__ import annotations

from collections.abc import Iterable

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


def by_slashes(listed: Iterable[str]) -> dict[str, str]:
    """Names as they are listed, by the same name with forward slashes; Windows lists others."""
    return {name.replace("\\", "/"): name for name in listed}

"""From the stem of a tensor name to the module it means: prefixes are stripped, then one look-up.

A name is a prefix (how the trainer addressed the model), a module (dotted, or flattened with ``_``)
and a suffix (see `suffixes`). Flattened names are generated from real paths, so they need no
guessing where a dot was.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from functools import lru_cache
from typing import NamedTuple

from .architecture import Architecture, Target

# Leading components by which trainers and pipelines wrap the model, in any order and number.
_LEADING = frozenset(
    {
        "_inner_dit",
        "base_model",
        "denoiser",
        "diffusion_model",
        "dit",
        "inner",
        "lora",
        "lora_transformer",
        "lora_unet",
        "lycoris",
        "model",
        "net",
        "pipe",
        "pipeline",
        "student",
        "transformer",
        "unet",
    }
)
# Components that training leaves anywhere in a name: torch's compiler, FSDP, checkpointing and DDP,
# and what peft and diffusers put between a module and its adapter.
_INNER = frozenset(
    {
        "_checkpoint_wrapped_module",
        "_forward_module",
        "_fsdp_wrapped_module",
        "_orig_mod",
        "base_layer",
        "default",
        "lora_layer",
        "module",
        "modules_to_save",
        "processor",
    }
)
_AROUND = _LEADING | _INNER
_FLAT_PREFIXES = ("lora_unet_", "lora_transformer_", "lycoris_", "lora_")
_FLAT_LEADING = (
    "inner_dit_",
    "diffusion_model_",
    "transformer_",
    "model_",
    "module_",
    "dit_",
    "unet_",
)
_FLAT_INNER = (
    "_orig_mod",
    "_fsdp_wrapped_module",
    "_checkpoint_wrapped_module",
)


class Ignored(str, Enum):
    """Why a tensor is knowingly left alone, in words for people."""

    TEXT_ENCODER = "text encoder: only the diffusion model is patched"
    EMBEDDING = "bundled text embedding: only the diffusion model is patched"
    FP8_MARK = "the mark that a file is in ComfyUI's scaled fp8: each factor has its own scale"

    __str__ = str.__str__


_IGNORED_FLAT = {
    "lora_te": Ignored.TEXT_ENCODER,
    "lycoris_text_encoder": Ignored.TEXT_ENCODER,
}
_IGNORED = {
    "text_encoder": Ignored.TEXT_ENCODER,
    "text_encoder_2": Ignored.TEXT_ENCODER,
    "text_encoders": Ignored.TEXT_ENCODER,
    "text_model": Ignored.TEXT_ENCODER,
    "conditioner": Ignored.TEXT_ENCODER,
    "bundle_emb": Ignored.EMBEDDING,
    "scaled_fp8": Ignored.FP8_MARK,
}


def ignored_stem(stem: str) -> Ignored | None:
    """Return why a stem is knowingly left alone (a text encoder, say), or None."""
    for prefix, reason in _IGNORED_FLAT.items():
        if stem.startswith(prefix):
            return reason
    parts = stem.split(".")
    head = next((part for part in parts if part not in _LEADING), parts[-1])
    return _IGNORED.get(head)


# Components of a name that are looked at, behind those that wrap the model.
_DEEPEST = 24


class Owner(NamedTuple):
    """A module of an architecture that a spelling means."""

    architecture: Architecture
    target: Target


Owners = tuple[Owner, ...]


@lru_cache(maxsize=16)
def spellings(architectures: tuple[Architecture, ...]) -> dict[str, Owners]:
    """Return every module spelling, dotted and flattened, with whose module it is.

    Models share names, so a spelling may have several owners, one for each architecture at most.
    All spellings of a target share one tuple unless other models share only some of them.
    """
    table: dict[str, Owners] = {}
    joined: dict[Owners, Owners] = {}
    for architecture in architectures:
        for spelling, owner in _own_spellings(architecture).items():
            known = table.get(spelling, ())
            if any(other.architecture is architecture for other in known):
                raise AssertionError(f"{spelling} names two modules")
            owners = (*known, owner)
            table[spelling] = joined.setdefault(owners, owners)
    return table


def _own_spellings(architecture: Architecture) -> dict[str, Owner]:
    table: dict[str, Owner] = {}
    owners: dict[tuple[str, str | None], Owner] = {}
    names = [(name, (name, None)) for name in (*architecture.modules, *architecture.fusions)]
    for spelling, target in (*names, *architecture.aliases.items()):
        owner = owners.get(target)
        if owner is None:
            owner = owners[target] = Owner(architecture, architecture.target(*target))
        for name in (spelling, spelling.replace(".", "_")):
            if table.setdefault(name, owner) is not owner:
                raise AssertionError(f"{name} names two modules")
    return table


def find(stem: str, table: dict[str, Owners]) -> Owners | None:
    """Look a stem up, then without what trainers put around it; None if unknown."""
    owners = table.get(stem)
    if owners is None and stem.startswith("lora_unet_"):
        owners = table.get(stem[len("lora_unet_") :])
    if owners is None:
        first, _, rest = stem.partition(".")
        owners = table.get(rest) if first in _LEADING else None
    if owners is not None:
        return owners
    bare = bare_stem(stem)
    return table.get(bare) or _find_flat(bare, table)


def bare_stem(stem: str) -> str:
    """Return a dotted stem without leading components and wrappers; its last component stays."""
    parts = stem.split(".")
    parts = parts[_leading(parts) :]
    if _INNER.isdisjoint(parts):
        return ".".join(parts)
    return ".".join([part for part in parts if part not in _INNER]) or ".".join(parts)


def may_be_wrapped(stems: Iterable[str]) -> bool:
    """Whether some of many stems may have a wrapper in it, at the cost of a few searches."""
    text = "\n".join(stems)
    return any(word in text for word in _INNER)


def without_wrappers(stem: str) -> str:
    """Return a stem without what training leaves inside of names; its leading components stay."""
    parts = stem.split(".")
    if _INNER.isdisjoint(parts):
        return stem
    return ".".join([part for part in parts if part not in _INNER]) or stem


def _leading(parts: list[str]) -> int:
    """How many components wrap the model; the last one counts for a name always."""
    for count, part in enumerate(parts):
        if part not in _AROUND:
            return count
    return len(parts) - 1


def _find_flat(stem: str, table: dict[str, Owners]) -> Owners | None:
    for word in _FLAT_INNER:
        if word in stem:
            stem = stem.replace(f"{word}_", "").removesuffix(f"_{word}")
    for prefix in _FLAT_PREFIXES:
        if stem.startswith(prefix):
            owners = _without_flat_leading(stem[len(prefix) :].removeprefix("_"), table)
            if owners is not None:
                return owners
    return None


def _without_flat_leading(stem: str, table: dict[str, Owners]) -> Owners | None:
    while True:
        owners = table.get(stem)
        if owners is not None:
            return owners
        word = next((word for word in _FLAT_LEADING if stem.startswith(word)), None)
        if word is None:
            return None
        stem = stem[len(word) :]


def find_inside(name: str, table: dict[str, Owners]) -> tuple[str, Owners] | None:
    """Find the longest beginning of a tensor name, up to a dot, that names a module.

    For names whose suffix is unknown: whatever follows a module belongs to it. Wrappers are left
    out of what is returned.
    """
    parts = without_wrappers(name).split(".")
    first = _leading(parts)
    for count in range(min(len(parts), first + _DEEPEST), first, -1):
        stem = ".".join(parts[:count])
        owners = find(stem, table)
        if owners is not None:
            return stem, owners
    return None

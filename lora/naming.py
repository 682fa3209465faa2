"""From a tensor name to (target, role): a suffix table and one generated dictionary.

Spellings, with the trainers that write them, are listed in the project's format notes. A name is a
prefix (how the trainer addressed the model), a module (dotted, or flattened with ``_``) and a
suffix (the role of the tensor). Prefixes and suffixes are stripped; only modules are tabulated.
Flattened names are generated from real paths, so they need no guessing where a dot was.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from .architecture import Architecture, Target


class Suffix(NamedTuple):
    """What follows the module in a tensor name: the role, and the adapter slot if named."""

    stem: str
    role: str
    slot: str | None = None


# Roles that an adapter here understands, by the suffix that names them.
_ROLES = {
    "alpha": "alpha",
    "lora_alpha": "alpha",
    "dora_scale": "dora_scale",
    "magnitude": "magnitude",
    "lora_magnitude_vector": "magnitude",
    "lora_magnitude_vector.weight": "magnitude",
    "lora_A": "down",
    "lora_B": "up",
    "lora_down": "down",
    "lora_up": "up",
    "lora_A.weight": "down",
    "lora_B.weight": "up",
    "lora_down.weight": "down",
    "lora_up.weight": "up",
    "lora.down.weight": "down",
    "lora.up.weight": "up",
    "lora_linear_layer.down.weight": "down",
    "lora_linear_layer.up.weight": "up",
    "lora_mid.weight": "mid",
    "lora_B.bias": "up_bias",
    "lora_up.bias": "up_bias",
    "diff": "diff",
    "w_norm": "diff",
    "diff_b": "diff_b",
    "b_norm": "diff_b",
    **{f"hada_w{i}_{f}": f"hada_w{i}_{f}" for i in "12" for f in "ab"},
    **{f"lokr_w{i}{f}": f"lokr_w{i}{f}" for i in "12" for f in ("", "_a", "_b")},
}

# Why a tensor of a known module is left alone, by its suffix.
_TUCKER = "Tucker factors belong to convolutions"
_OFT = "OFT and BOFT rotate the base weight, which is not an additive change"
_GLORA = "GLoRA multiplies the base weight, which is not an additive low-rank change"
_IA3 = "IA3 rescales activations, which is not an additive change"
_FULL = "a full weight (of a checkpoint, or IA3), not a change to one"
_DOWN_BIAS = "a bias on the down projection has no place in a weight change"
_REFUSED = {
    "hada_t1": _TUCKER,
    "hada_t2": _TUCKER,
    "lokr_t1": _TUCKER,
    "lokr_t2": _TUCKER,
    "oft_blocks": _OFT,
    "oft_diag": _OFT,
    "oft_R.weight": _OFT,
    "oft_R.scaled_oft": _OFT,
    "rescale": _OFT,
    "a1": _GLORA,
    "a2": _GLORA,
    "b1": _GLORA,
    "b2": _GLORA,
    "bm": _GLORA,
    "a1.weight": _GLORA,
    "a2.weight": _GLORA,
    "b1.weight": _GLORA,
    "b2.weight": _GLORA,
    "bm.weight": _GLORA,
    "on_input": _IA3,
    "ia3_l": _IA3,
    "ia3_l.weight": _IA3,
    "weight": _FULL,
    "bias": _FULL,
    "set_weight": "replaces the weight instead of changing it",
    "reshape_weight": "changes the shape of the weight",
    "lora_A.bias": _DOWN_BIAS,
    "lora_down.bias": _DOWN_BIAS,
}

# Suffixes after which PEFT inserts the name of the adapter: ``.lora_A.<slot>.weight``.
_SLOTTED = {
    "lora_A",
    "lora_B",
    "lora_down",
    "lora_up",
    "lora_magnitude_vector",
    "alpha",
    "lora_alpha",
}

REFUSED = "refused:"
_BY_SUFFIX = {**{suffix: f"{REFUSED}{suffix}" for suffix in _REFUSED}, **_ROLES}
_PUBLIC = {
    **{role: role for role in _ROLES.values()},
    **{f"{REFUSED}{suffix}": "other" for suffix in _REFUSED},
    "magnitude": "dora_scale",
    "up_bias": "other",
    "mid": "other",
}


def refusal(role: str) -> str:
    """Return why tensors with this refused role, of a known module, cannot be applied."""
    return _REFUSED[role.removeprefix(REFUSED)]


def public_role(role: str) -> str:
    """Return the role in the vocabulary of reports."""
    return _PUBLIC[role]


def split_suffix(key: str) -> Suffix | None:
    """Split a tensor name into stem, role and slot; None if the suffix is unknown.

    The longest known suffix wins. The role of a refused adapter starts with `REFUSED`.
    """
    dot1 = key.rfind(".")
    if dot1 < 0:
        return None
    last = key[dot1 + 1 :]
    if last not in ("weight", "bias", "scaled_oft"):
        role = _BY_SUFFIX.get(last)
        if role is not None:
            return Suffix(key[:dot1], role)
    dot2 = key.rfind(".", 0, dot1)
    if dot2 >= 0:
        role = _BY_SUFFIX.get(key[dot2 + 1 :])
        if role is not None:
            return Suffix(key[:dot2], role)
        before = key[dot2 + 1 : dot1]
        if before in _SLOTTED:  # .lora_A.<slot>, .alpha.<slot>
            return Suffix(key[:dot2], _BY_SUFFIX[before], last)
    longer = _split_long_suffix(key, dot1, dot2) if dot2 > 0 else None
    if longer is None and last in ("weight", "bias"):
        return Suffix(key[:dot1], f"{REFUSED}{last}")
    return longer


def _split_long_suffix(key: str, dot1: int, dot2: int) -> Suffix | None:
    dot3 = key.rfind(".", 0, dot2)
    head, middle, last = key[dot3 + 1 : dot2], key[dot2 + 1 : dot1], key[dot1 + 1 :]
    if last == "weight" and middle in ("down", "up") and head.endswith("_lora"):
        return Suffix(key[: dot2 - len("_lora")], middle)
    if dot3 < 0:
        return None
    role = _BY_SUFFIX.get(f"{head}.{middle}.{last}")
    if role is not None:
        return Suffix(key[:dot3], role)
    if head in _SLOTTED:  # .lora_A.<slot>.weight
        role = _BY_SUFFIX.get(f"{head}.{last}")
        if role is not None:
            return Suffix(key[:dot3], role, middle)
    return None


# Leading components by which trainers and pipelines wrap the model, in any order and number.
_WRAPPERS = {
    "_inner_dit",
    "_orig_mod",
    "base_model",
    "diffusion_model",
    "dit",
    "model",
    "module",
    "pipe",
    "transformer",
    "unet",
}
_FLAT_PREFIXES = ("lora_unet_", "lora_transformer_", "lycoris_")
_FLAT_WRAPPERS = ("inner_dit_", "diffusion_model_", "transformer_", "model_", "dit_", "unet_")

TEXT_ENCODER = "text encoder: only the diffusion model is patched"
_IGNORED_FLAT = {"lora_te": TEXT_ENCODER, "lycoris_text_encoder": TEXT_ENCODER}
_IGNORED = {
    "text_encoder": TEXT_ENCODER,
    "text_encoder_2": TEXT_ENCODER,
    "text_encoders": TEXT_ENCODER,
    "text_model": TEXT_ENCODER,
    "conditioner": TEXT_ENCODER,
    "bundle_emb": "bundled text embedding: only the diffusion model is patched",
}


def ignored_stem(stem: str) -> str | None:
    """Return why a stem is knowingly left alone (a text encoder, say), or None."""
    for prefix, reason in _IGNORED_FLAT.items():
        if stem.startswith(prefix):
            return reason
    head, _, rest = stem.partition(".")
    while rest and head in _WRAPPERS:
        head, _, rest = rest.partition(".")
    return _IGNORED.get(head)


Owner = tuple[Architecture, Target]


@lru_cache(maxsize=16)
def spellings(architectures: tuple[Architecture, ...]) -> dict[str, Owner]:
    """Return every module spelling, dotted and flattened, with its architecture and target.

    All spellings of a target share one target object.
    """
    table: dict[str, Owner] = {}
    for architecture in architectures:
        owners: dict[tuple[str, str | None], Owner] = {}
        names = [(name, (name, None)) for name in (*architecture.modules, *architecture.fusions)]
        for spelling, target in (*names, *architecture.aliases.items()):
            owner = owners.get(target)
            if owner is None:
                owner = owners[target] = architecture, architecture.target(*target)
            for name in (spelling, spelling.replace(".", "_")):
                if table.setdefault(name, owner) is not owner:
                    raise AssertionError(f"{name} names two modules")
    return table


def find(stem: str, table: dict[str, Owner]) -> Owner | None:
    """Look a stem up after stripping what trainers put in front of it; None if unknown."""
    owner = table.get(stem)
    if owner is not None:
        return owner
    for prefix in _FLAT_PREFIXES:
        if stem.startswith(prefix):
            return _find_flat(stem[len(prefix) :].removeprefix("_"), table)
    head, _, rest = stem.partition(".")
    while rest and head in _WRAPPERS:
        owner = table.get(rest)
        if owner is not None:
            return owner
        head, _, rest = rest.partition(".")
    return None


def _find_flat(stem: str, table: dict[str, Owner]) -> Owner | None:
    owner = table.get(stem)
    if owner is None:
        for wrapper in _FLAT_WRAPPERS:
            if stem.startswith(wrapper):
                return table.get(stem[len(wrapper) :])
    return owner

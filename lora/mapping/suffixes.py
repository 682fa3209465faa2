"""What follows the module in a tensor's name: the role that the tensor has in its adapter.

Spellings, with the trainers that write them, are listed in the project's format notes. A role here
only says what a tensor is called; whether an adapter can be built from the roles of a module is for
`plan` to decide, which uses every one of them or refuses the module.
"""

from __future__ import annotations

from typing import NamedTuple


class TensorName(NamedTuple):
    """A tensor name, split into the module's spelling, the role, and the adapter slot if named.

    The role is None where what follows the module is not known.
    """

    key: str
    stem: str
    role: str | None
    slot: str | None = None


_DOWN = ("lora_A", "lora_down", "lora.down", "lora.A", "lora_linear_layer.down")
_UP = ("lora_B", "lora_up", "lora.up", "lora.B", "lora_linear_layer.up")
_FACTORS = {**dict.fromkeys(_DOWN, "down"), **dict.fromkeys(_UP, "up"), "lora_mid": "mid"}
# How the scale of a factor of 8 bits is called: ComfyUI's two names for that of a weight, and one
# that stands behind ``.weight``.
_SCALES = ("scale_weight", "weight_scale", "weight.scale")
_ENDS = ("", ".weight")

# What a factor of 8 bits has to be multiplied by, by the role of the factor.
SCALE_OF = {"down": "down_scale", "up": "up_scale", "mid": "mid_scale"}

ROLES: dict[str, str] = {
    "alpha": "alpha",
    "lora_alpha": "alpha",
    "lora_scaling": "scaling",
    "dora_scale": "dora_scale",
    "magnitude": "magnitude",
    **{f"lora_magnitude_vector{end}": "magnitude" for end in _ENDS},
    "lora_A": "down",
    "lora_B": "up",
    "lora_down": "down",
    "lora_up": "up",
    **{f"{name}.weight": role for name, role in _FACTORS.items()},
    **{f"{name}.{s}": SCALE_OF[role] for name, role in _FACTORS.items() for s in _SCALES},
    "lora_B.bias": "up_bias",
    "lora_up.bias": "up_bias",
    "lora_A.bias": "down_bias",
    "lora_down.bias": "down_bias",
    **{f"lora_E{end}": "lora_E" for end in _ENDS},
    "diff": "diff",
    "w_norm": "diff",
    "diff_b": "diff_b",
    "b_norm": "diff_b",
    **{f"hada_{name}": f"hada_{name}" for name in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")},
    **{f"lokr_w{i}{f}": f"lokr_w{i}{f}" for i in "12" for f in ("", "_a", "_b")},
    **{f"lokr_t{i}": f"lokr_t{i}" for i in "12"},
    "weight": "weight",
    "bias": "bias",
    "on_input": "on_input",
    **{f"ia3_l{end}": "ia3_l" for end in _ENDS},
    **{f"{n}{end}": f"glora_{n}" for n in ("a1", "a2", "b1", "b2", "bm") for end in _ENDS},
    "oft_blocks": "oft_blocks",
    "oft_diag": "oft_diag",
    "rescale": "rescale",
    **{f"oft_R{end}": "oft_R" for end in _ENDS},
    "oft_R.scaled_oft": "scaled_oft",
    "oft_r": "oft_r",
    "set_weight": "set_weight",
    "reshape_weight": "reshape_weight",
}

# The last component of every name of several components, which is looked for first.
_LASTS = frozenset(name.rpartition(".")[2] for name in ROLES if "." in name)
# Names after which PEFT inserts that of the adapter: ``.lora_A.<slot>.weight``.
_SLOTTED = frozenset(name.partition(".")[0] for name in ROLES) - {"weight", "bias", "lora"}
# Those of them that are a whole suffix: ``.lora_A.default`` has no ``.weight``.
_SLOTTED_ROLES = _SLOTTED & ROLES.keys()
# kohya's parts of one adapter, by number, where a trainer has torch's ModuleList in its names.
_NUMBERED = frozenset({"lora_down", "lora_up"})
# Wrappers that may stand even between a factor and ``.weight``.
_WRAPPERS = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
_PUBLIC = frozenset(
    {"down", "up", "alpha", "dora_scale", "diff", "diff_b"}
    | {f"hada_w{i}_{f}" for i in "12" for f in "ab"}
    | {f"lokr_w{i}{f}" for i in "12" for f in ("", "_a", "_b")}
)
# Roles in the vocabulary of reports, where all others are "other".
PUBLIC_ROLES: dict[str | None, str] = {**{r: r for r in _PUBLIC}, "magnitude": "dora_scale"}


def split_suffix(key: str) -> TensorName | None:
    """Split a tensor name into stem, role and slot; None if the suffix is unknown.

    The longest known suffix wins.
    """
    dot1 = key.rfind(".")
    if dot1 < 0:
        return None
    dot2 = key.rfind(".", 0, dot1)
    role = ROLES.get(key[dot2 + 1 :])
    if role is not None and dot2 >= 0:
        return TensorName(key, key[:dot2], role)
    last = key[dot1 + 1 :]
    if dot2 >= 0:
        before = key[dot2 + 1 : dot1]
        if last in _LASTS and (found := _split_long(key, dot2, before, last)) is not None:
            return found
        if before in _SLOTTED_ROLES and last.startswith("default"):
            return _slotted(key, key[:dot2], before, last)
        if before in _WRAPPERS:
            parts = key.split(".")[:-1]
            while parts and parts[-1] in _WRAPPERS:
                parts.pop()
            found = split_suffix(".".join((*parts, last)))
            return None if found is None else found._replace(key=key)
    role = ROLES.get(last)
    return None if role is None else TensorName(key, key[:dot1], role)


def _split_long(key: str, dot2: int, middle: str, last: str) -> TensorName | None:
    """Split off a suffix of three or four components, or of two around a slot."""
    dot3 = key.rfind(".", 0, dot2)
    head = key[dot3 + 1 : dot2]
    if dot3 >= 0:
        longer = ROLES.get(key[dot3 + 1 :])
        if longer is not None:
            return TensorName(key, key[:dot3], longer)
        if last == "scale":  # .lora.down.weight.scale
            dot4 = key.rfind(".", 0, dot3)
            if dot4 >= 0 and (longest := ROLES.get(key[dot4 + 1 :])) is not None:
                return TensorName(key, key[:dot4], longest)
        if head in _SLOTTED:  # .lora_A.<slot>.weight
            between = ROLES.get(f"{head}.{last}")
            if between is not None and middle not in _WRAPPERS:
                return _slotted(key, key[:dot3], head, middle, between)
    # diffusers' old names of an attention processor's parts: .to_q_lora.down.weight
    if last == "weight" and middle in ("down", "up") and head.endswith("_lora"):
        return TensorName(key, key[: dot2 - len("_lora")], middle)
    return None


def _slotted(key: str, stem: str, name: str, slot: str, role: str | None = None) -> TensorName:
    role = role or ROLES[name]
    if name in _NUMBERED and slot.isdecimal():
        return TensorName(key, stem, f"{role}.{slot}")
    return TensorName(key, stem, role, slot)

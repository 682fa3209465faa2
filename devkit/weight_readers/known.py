"""The places that were looked at, and why none of them loses a branch.

A row is one place in any version of ComfyUI; a version need not have it. Rows of versions above
0.30.0 are of files that were read: `lumina` of commit 617048a59f17, `qwen_image21` of 08f68f0919d2,
`ops` of 0271a469fe29.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ...wrappers.targets.layered_class import GUARD
from .reached import Library
from .scan import Reader

_OPS, _LUMINA = "comfy/ops.py", "comfy/ldm/lumina/model.py"
_QWEN_21 = "comfy/ldm/qwen_image21/model.py"
_CASTS = "brings the weight of a layer to the device for the layer's own forward"
_NORM = "a norm: a change of one is merged into its weight, and read with it"
_SAVES = "writes a checkpoint, in which a branch has no place"
_MOVES = "moves the weight, and computes nothing"
_KEPT_OFF = "leaves a layer alone whose `_full_precision_mm` is true, as one with a branch says"
_INT8, _INPUT_ACT = "comfy.ldm.lumina.model._int8_convrot_linear", "comfy.ops.linear_input_act"


class Known(NamedTuple):
    """Places that were looked at.

    Attributes:
        file: as in `Reader`.
        where: as there; "" for all of a file.
        what: the expressions; none for all of them.
        why: how it is that nothing is lost.
        guard: the function that has to ask for `_full_precision_mm`, if that is how.
    """

    file: str
    where: str
    what: tuple[str, ...]
    why: str
    guard: str | None = None

    def fits(self, reader: Reader) -> bool:
        """Whether a place is one of these."""
        where = self.where in ("", reader.where)
        return self.file == reader.file and where and (not self.what or reader.what in self.what)


KNOWN = (
    *(
        Known(_OPS, where, (), _CASTS)
        for where in (
            "cast_bias_weight", "cast_bias_weight_with_vbar", "cast_modules_with_vbar",
            "resolve_cast_module_with_vbar", "CastBiasWeightContext.__init__",
            "disable_weight_init.LayerNorm.forward_comfy_cast_weights",
            "disable_weight_init.RMSNorm.forward_comfy_cast_weights",
        )
    ),
    Known(_OPS, "_quantized_weight_state_dict", (), _SAVES),
    Known(
        _OPS, "linear_input_act", (),
        "matters where a model of ours calls it, and such a call is a place of its own",
    ),
    Known("comfy/pinned_memory.py", "pin_memory", ("module.weight",), _MOVES),
    Known(
        _LUMINA, "JointAttention.forward",
        ("cast_bias_weight(self.q_norm)", "cast_bias_weight(self.k_norm)"), _NORM,
    ),
    Known(_LUMINA, "_fused_rms_gated_residual", ("cast_bias_weight(norm)",), _NORM),
    Known(_LUMINA, "_int8_convrot_linear", ("linear.weight",), "asks what the weight is", _INT8),
    Known(
        _LUMINA, "_fused_rms_modulated_linear",
        ("CastBiasWeightContext(norm)", "CastBiasWeightContext(linear)"), _KEPT_OFF, _INT8,
    ),
    *(
        Known(_LUMINA, where, (), _KEPT_OFF, _INT8)
        for where in ("_fused_swiglu_ffn", "_fused_swiglu_ffn_postnorm")
    ),
    Known(
        _LUMINA, "JointTransformerBlock.forward",
        (
            "_fused_rms_modulated_linear(self.attention.qkv)",
            "_fused_swiglu_ffn(self.feed_forward)",
            "_fused_swiglu_ffn_postnorm(self.feed_forward)",
        ),
        _KEPT_OFF, _INT8,
    ),
    Known(
        _QWEN_21, "Attention.forward",
        ("cast_bias_weight(self.norm_q)", "cast_bias_weight(self.norm_k)"), _NORM,
    ),
    Known(
        _QWEN_21, "SwiGLUFeedForward.forward", ("linear_input_act(self.out)",),
        _KEPT_OFF, _INPUT_ACT,
    ),
    Known(
        _QWEN_21, "QwenImage21Transformer2DModel._forward",
        ("make_prefetch_queue(self.transformer_blocks)",), _MOVES,
    ),
)  # fmt: skip
REMEDY = (
    "See whether a layer with a branch is left alone there (wrappers/targets/layered_class.py), or"
    " teach it, and say which in a row of devkit/weight_readers/known.py."
)


def problems(readers: Sequence[Reader], comfyui: Path) -> list[str]:
    """What is wrong with places of a ComfyUI: not known, or without the guard that they need."""
    library = Library({"comfy": comfyui / "comfy"})
    found: list[str] = []
    for reader in readers:
        place = f"{reader.file}:{reader.line}: {reader.where}: `{reader.what}`"
        row = next((known for known in KNOWN if known.fits(reader)), None)
        if row is None:
            found.append(f"{place} takes a layer's weight without calling it. {REMEDY}")
        elif row.guard is not None and not asks(library, row.guard):
            found.append(f"{place}: {row.guard} does not ask for {GUARD!r} here. {REMEDY}")
    return found


def asks(library: Library, function: str) -> bool:
    """Whether the code of a function reads the attribute that keeps it off our layers."""
    target = library.find(function)
    if target is None:
        return False
    source, name = target
    return any(
        (isinstance(node, ast.Attribute) and node.attr == GUARD)
        or (isinstance(node, ast.Constant) and node.value == GUARD)
        for node in ast.walk(source.definitions[name])
    )

"""What the tensors of one module change, once more: in float64, formula by formula.

It shares no code with the engine: neither how names are taken apart, nor what is done with the
values. All that is common is the meaning of the formats. Sources as in
``lora/factors/adapters.py``.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

_FACTORS = {
    "down": ("lora_A", "lora_down", "lora.down", "lora.A", "lora_linear_layer.down"),
    "up": ("lora_B", "lora_up", "lora.up", "lora.B", "lora_linear_layer.up"),
    "mid": ("lora_mid",),
}
_SCALES = ("scale_weight", "weight_scale", "weight.scale")
_OWN = (
    "alpha", "dora_scale", "diff", "diff_b", "on_input", "oft_blocks", "rescale", "magnitude",
    "weight", *(f"hada_w{i}_{f}" for i in "12" for f in "ab"),
    *(f"lokr_w{i}{f}" for i in "12" for f in ("", "_a", "_b")),
)  # fmt: skip
_TAILS: dict[str, str] = {
    **{f"{name}.weight": role for role, names in _FACTORS.items() for name in names},
    **{
        f"{name}.{scale}": f"{role}_scale"
        for role, names in _FACTORS.items()
        for name in names
        for scale in _SCALES
    },
    **dict.fromkeys(("lora_A", "lora_down"), "down"),
    **dict.fromkeys(("lora_B", "lora_up"), "up"),
    **{f"{name}.bias": "down_bias" for name in ("lora_A", "lora_down")},
    **{f"{name}.bias": "up_bias" for name in ("lora_B", "lora_up")},
    **{name: name for name in _OWN},
    **{
        f"{name}{end}": name
        for name in ("a1", "a2", "b1", "b2", "ia3_l", "lora_E")
        for end in ("", ".weight")
    },
    **{f"lora_magnitude_vector{end}": "magnitude" for end in ("", ".weight")},
    "lora_alpha": "alpha", "lora_scaling": "scaling", "w_norm": "diff", "b_norm": "diff_b",
}  # fmt: skip
_WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
_LONGEST = 3


def split(name: str) -> tuple[str, str, str | None] | None:
    """The module as it is spelled, the role and the slot of a tensor; None if it has no role."""
    parts = name.split(".")
    while len(parts) > 2 and parts[-2] in _WRAPPERS:
        del parts[-2]
    for start in range(max(1, len(parts) - _LONGEST - 1), len(parts)):
        stem, tail = ".".join(parts[:start]), parts[start:]
        role = _TAILS.get(".".join(tail))
        if role is not None:
            return stem, role, None
        if stem.endswith("_lora") and ".".join(tail) in ("down.weight", "up.weight"):
            return stem.removesuffix("_lora"), tail[0], None
        role = _TAILS.get(".".join(tail[:1] + tail[2:])) if len(tail) > 1 else None
        if role is not None and tail[0] not in ("lora", "weight", "lora_linear_layer"):
            if tail[0] in ("lora_down", "lora_up") and tail[1].isdecimal():
                return stem, f"{role}.{tail[1]}", None
            return stem, role, tail[1]
    return None


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan


class Stated:
    """What a file says of scales outside of its tensors.

    Args:
        metadata: that of the header.
        config: the text of the ``adapter_config.json`` beside the file, if there is one.
        name: of the module, as peft would call it.
    """

    def __init__(self, metadata: Mapping[str, str], config: str | None, name: str) -> None:
        self._metadata = metadata
        self._text = metadata.get("lora_adapter_metadata", config)
        self._name = name

    @property
    def _fields(self) -> dict[str, Any]:
        if self._text is None:
            alpha, rank = (_number(self._metadata.get(n)) for n in ("lora_alpha", "lora_rank"))
            given = math.isfinite(alpha) and rank >= 1
            return {"lora_alpha": alpha, "r": rank} if given else {}
        found = json.loads(self._text.removeprefix("\ufeff"))
        own = {key[12:]: v for key, v in found.items() if key.startswith("transformer.")}
        return own or found

    def scale(self, rank: int | None) -> float:
        """Alpha over rank; a rank of None is that of a LoKr whose factors are both whole."""
        if rank is None:
            if str(self._fields.get("peft_type")).upper() != "LOKR":
                return 1.0
            rank = int(float(self._of("rank_pattern", "r")))
        alpha = self._of("alpha_pattern", "lora_alpha" if "lora_alpha" in self._fields else "alpha")
        if alpha is None:
            return 1.0
        return float(alpha) / (math.sqrt(rank) if self._fields.get("use_rslora") is True else rank)

    def adaptive(self) -> float:
        """AdaLoRA's scale."""
        alpha, rank = float(self._fields["lora_alpha"]), float(self._fields["init_r"])
        return (alpha if alpha > 0 else rank) / (rank + 1e-5)

    def _of(self, patterns: str, general: str) -> Any:
        for pattern, value in (self._fields.get(patterns) or {}).items():
            if re.match(rf"(.*\.)?({pattern})$", self._name):
                return value
        return self._fields.get(general)


class Module:
    """The tensors of a module by role, of which each has to take part in a formula.

    Args:
        tensors: role -> values.
        weight: the base weight of the module, or of those that are fused to it.
        bias: its base bias, None if it has none.
    """

    def __init__(
        self, tensors: Mapping[str, Tensor], weight: Tensor, bias: Tensor | None, stated: Stated
    ) -> None:
        self._tensors = {role: tensor.double() for role, tensor in tensors.items()}
        self._weight = weight
        self._own_bias = bias
        self._stated = stated
        self._used: set[str] = set()

    @property
    def unused(self) -> set[str]:
        """Roles that no formula has asked for."""
        return self._tensors.keys() - self._used

    def changes(self) -> dict[str, Tensor]:
        """What is added to ``"weight"`` and to ``"bias"``."""
        found: dict[str, Tensor] = {}
        for mark, formula in _FORMULAS.items():
            if mark in self._tensors:
                change = self._normalized(formula(self)) if mark in _MAY_BE_DORA else formula(self)
                found["weight"] = found.get("weight", 0.0) + change
        scaled = self._own_bias is not None and self._scales_rows()
        if scaled or {"diff_b", "up_bias", "down_bias"} & self._tensors.keys():
            found["bias"] = self._bias()
        return found

    def _get(self, role: str) -> Tensor:
        self._used.add(role)
        return self._tensors[role]

    def _matrix(self, role: str) -> Tensor:
        values = self._get(role)
        values = values.flatten(1) if values.dim() > 2 else values
        if f"{role}_scale" in self._tensors:
            values = values * self._get(f"{role}_scale").reshape(-1, 1)
        return values

    def _scale(self, rank: int) -> float:
        if "lora_E" in self._tensors:
            return self._stated.adaptive()
        if "scaling" in self._tensors:
            return float(self._get("scaling"))
        return (
            float(self._get("alpha")) / rank
            if "alpha" in self._tensors
            else self._stated.scale(rank)
        )

    def _inner(self) -> Tensor:
        """What stands before the inner bias: up, by the core and the singular values if any."""
        up = self._matrix("up")
        if "mid" in self._tensors:
            up = up @ self._matrix("mid")
        if "lora_E" in self._tensors:
            up = up * self._get("lora_E").reshape(1, -1)
        return up

    def lora(self) -> Tensor:
        down = self._matrix("down")
        return self._inner() @ down * self._scale(len(down))

    def numbered(self) -> Tensor:
        count = sum(role.startswith("down.") for role in self._tensors)
        downs = [self._matrix(f"down.{i}") for i in range(count)]
        parts = [self._matrix(f"up.{i}") @ down for i, down in enumerate(downs)]
        return torch.cat(parts) * self._scale(len(downs[0]))

    def loha(self) -> Tensor:
        a1, b1, a2, b2 = (self._matrix(f"hada_w{i}_{f}") for i in "12" for f in "ab")
        return (a1 @ b1) * (a2 @ b2) * self._scale(len(b1))

    def lokr(self) -> Tensor:
        rank: int | None = None
        sides = []
        for name in ("lokr_w1", "lokr_w2"):
            if name in self._tensors:
                sides.append(self._matrix(name))
                continue
            b = self._matrix(f"{name}_b")
            rank = len(b)
            sides.append(self._matrix(f"{name}_a") @ b)
        self._used.add("alpha")  # a placeholder where both are whole
        if rank is None and "scaling" not in self._tensors:
            scale = self._stated.scale(None)
        else:
            scale = self._scale(rank or 1)
        return torch.kron(sides[0], sides[1]) * scale

    def glora(self) -> Tensor:
        a1, a2, b1, b2 = (self._matrix(name) for name in ("a1", "a2", "b1", "b2"))
        return (self._weight @ a1 @ a2 + b1 @ b2) * self._scale(len(a2))

    def ia3(self) -> Tensor:
        values = self._get("weight").flatten()
        by_input = bool(self._get("on_input").item())
        return self._weight * (values if by_input else values[:, None])

    def peft_ia3(self) -> Tensor:
        return self._weight * (self._matrix("ia3_l") - 1.0)

    def _scales_rows(self) -> bool:
        return "ia3_l" in self._tensors and self._matrix("ia3_l").shape[1] == 1

    def diff(self) -> Tensor:
        return self._get("diff").reshape(self._weight.shape)

    def oft(self) -> Tensor:
        blocks = self._get("oft_blocks")
        q = blocks - blocks.mT
        limit = float(self._get("alpha")) * len(self._weight) if "alpha" in self._tensors else 0.0
        if 0 < limit < q.norm() + 1e-8:
            q = q * (limit / (q.norm() + 1e-8))
        one = torch.eye(q.shape[-1], dtype=torch.float64)
        turns = (one + q) @ torch.linalg.inv(one - q)
        turned = self._weight
        if turns.dim() == 3:
            turned = torch.block_diag(*turns.mT) @ turned
        for stage, turn in enumerate(turns if turns.dim() == 4 else turns[:0]):
            # Rows that are this far apart are turned together.
            half = 2**stage * (turn.shape[-1] // 2)
            order = torch.arange(len(turned)).reshape(-1, 2, half).mT.reshape(-1)
            step = torch.zeros_like(turned)
            step[order] = torch.block_diag(*turn) @ turned[order]
            turned = step
        if "rescale" in self._tensors:
            turned = turned * self._get("rescale").reshape(-1, 1)
        return turned - self._weight

    def _normalized(self, change: Tensor) -> Tensor:
        """DoRA, if the module has a magnitude."""
        role = next((r for r in ("dora_scale", "magnitude") if r in self._tensors), None)
        if role is None:
            return change
        merged = self._weight + change
        values = self._get(role)
        by_rows = values.shape[0] == values.numel() == len(merged)
        norms = merged.norm(dim=1 if by_rows else 0, keepdim=True)
        return merged * values.reshape(norms.shape) / norms - self._weight

    def _bias(self) -> Tensor:
        total = torch.zeros(len(self._weight), dtype=torch.float64)
        if "up_bias" in self._tensors or "down_bias" in self._tensors:
            scale = self._scale(len(self._matrix("down")))
            if "down_bias" in self._tensors:
                total += self._inner() @ self._get("down_bias") * scale
            if "up_bias" in self._tensors:
                total += self._get("up_bias") * scale
        if self._own_bias is not None and self._scales_rows():
            total += self._own_bias * (self._get("ia3_l").flatten() - 1.0)
        return total + self._get("diff_b") if "diff_b" in self._tensors else total


# By the role that tells the formula.
_FORMULAS: dict[str, Callable[[Module], Tensor]] = {
    "down": Module.lora,
    "down.0": Module.numbered,
    "hada_w1_a": Module.loha,
    "lokr_w1": Module.lokr,
    "lokr_w1_a": Module.lokr,
    "a1": Module.glora,
    "oft_blocks": Module.oft,
    "on_input": Module.ia3,
    "ia3_l": Module.peft_ia3,
    "diff": Module.diff,
}
_MAY_BE_DORA = ("down", "hada_w1_a", "lokr_w1", "lokr_w1_a")

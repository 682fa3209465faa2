"""Configurations of peft whose result the engine has to compute, or refuse for a known reason."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from support.oracle.libraries import library
from support.oracle.tiny import Tiny

# Where the projections of a model's attention stand, and others whose names are alike.
_ATTENTION = {
    "qwen_image": ("transformer_blocks", "attn"),
    "qwen_image_21": ("transformer_blocks", "attn"),
    "z_image": ("layers", "attention"),
}
Kwargs = Mapping[str, Any]


@dataclass(frozen=True)
class Method:
    """A configuration: peft's class for it, its arguments, and what to expect.

    Attributes:
        config: name of the class.
        arguments: of it; a function of the model where they name modules.
        targets: "all" linear layers, those of the "attention", or those "with bias" or "without".
    """

    name: str
    config: str
    arguments: Callable[[Tiny], Kwargs] | Kwargs = field(default_factory=dict)
    targets: str = "all"

    def build(self, model: Tiny) -> Any:
        """Return the configuration for a model; None if that has none of the layers."""
        given = self.arguments(model) if callable(self.arguments) else self.arguments
        paths = targets(model, self.targets)
        if not paths:
            return None
        return getattr(library("peft"), self.config)(**{"target_modules": paths, **given})


def targets(model: Tiny, which: str) -> list[str]:
    """Return the paths of some linear layers of a model."""
    linears = model.linears
    if which == "attention":
        kind = _ATTENTION[model.architecture.name][1]
        return [path for path in linears if f".{kind}.to_" in path]
    if which in ("with bias", "without bias"):
        wanted = which == "with bias"
        biased = {p for p in linears if model.module.get_submodule(p).bias is not None}
        return [path for path in linears if (path in biased) == wanted]
    return linears


def _patterns(**patterns: Kwargs) -> Callable[[Tiny], Kwargs]:
    """Arguments with patterns in which ``{b}`` and ``{a}`` are the blocks and their attention."""

    def arguments(model: Tiny) -> Kwargs:
        blocks, attention = _ATTENTION[model.architecture.name]

        def named(pattern: str) -> str:
            return pattern.replace("{b}", blocks).replace("{a}", attention)

        known = {
            field: {named(p): value for p, value in table.items()}
            for field, table in patterns.items()
            if field.endswith("pattern")
        }
        return {"r": 4, "lora_alpha": 6, **known, **patterns.get("more", {})}

    return arguments


_TABLES: dict[str, dict[str, float]] = {
    "plain names": {"to_q": 2, "to_k": 8},
    "full names": {"{b}.0.{a}.to_q": 2, "{b}.1.{a}.to_v": 3},
    "general before special": {"to_q": 2, "{b}.0.{a}.to_q": 8},
    "special before general": {"{b}.0.{a}.to_q": 8, "to_q": 2},
    "anchored": {"^{b}.0.{a}.to_q": 2, "^{a}.to_k": 8, "^to_v$": 3},
    "end": {"to_q$": 2, "{a}.to_k$": 8},
    "block number": {r"{b}\.[01]\.{a}\.to_q": 2, r"{b}\.\d+\.{a}\.to_k": 8},
    "alternatives": {"(to_q|to_k)": 2, "to_v|to_out.0": 8},
    "anything": {r".*\.0\..*": 2, r".*": 3},
    "class": {"to_[qk]": 2, r"to_[^qk]\b.*": 8},
    "optional": {r"to_ou?t\.0": 2, r"(to_)?q": 3},
    "prefix that peft does not strip": {"transformer.{b}.0.{a}.to_q": 8, "base_model.to_k": 2},
    "no match": {"to_query": 8, "{b}.7.{a}.to_q": 2, "o_q": 3},
    "part of a number": {"{b}.1.{a}.to_q": 2, "1.{a}.to_k": 8, ".1.{a}.to_v": 3},
    "regular expression before name": {"to_[qkv]": 2, "to_q": 8},
    "name before regular expression": {"to_q": 8, "to_[qkv]": 2},
}


_DOTS = {"a dot for an underscore": {"{a}.to.q": 2, "{b}.0.{a}.to.k": 8}}


def _pattern_methods(tables: Mapping[str, Mapping[str, float]]) -> list[Method]:
    found = []
    for name, table in tables.items():
        alphas = {pattern: value + 0.5 for pattern, value in table.items()}
        for kind, arguments in (
            ("rank", _patterns(rank_pattern=table)),
            ("alpha", _patterns(alpha_pattern=alphas)),
            ("both", _patterns(rank_pattern=table, alpha_pattern=dict([*alphas.items()][::-1]))),
        ):
            found.append(
                Method(f"LoRA {kind}_pattern, {name}", "LoraConfig", arguments, "attention")
            )
    return found


def _lora(name: str, targets: str = "all", **arguments: Any) -> Method:
    return Method(f"LoRA {name}", "LoraConfig", arguments, targets)


METHODS = (
    _lora("defaults"),
    _lora("r 1", r=1, lora_alpha=3),
    _lora("alpha below rank", r=8, lora_alpha=2),
    _lora("alpha no integer", r=4, lora_alpha=0.7),
    _lora("negative alpha", r=4, lora_alpha=-3),
    _lora("rank above the inputs", r=30, lora_alpha=4),
    _lora("rslora", r=8, lora_alpha=12, use_rslora=True),
    _lora("dropout", r=4, lora_alpha=8, lora_dropout=0.5),
    _lora("DoRA", r=4, lora_alpha=6, use_dora=True),
    _lora("DoRA rslora", r=6, lora_alpha=4, use_dora=True, use_rslora=True),
    _lora("lora_bias", "with bias", r=4, lora_alpha=6, lora_bias=True),
    _lora("lora_bias rslora", "with bias", r=6, lora_alpha=6, lora_bias=True, use_rslora=True),
    _lora("init false", r=4, lora_alpha=6, init_lora_weights=False),
    _lora("init gaussian", r=4, lora_alpha=6, init_lora_weights="gaussian"),
    _lora("init orthogonal", r=4, lora_alpha=6, init_lora_weights="orthogonal"),
    _lora("fan_in_fan_out, which peft turns off", r=4, lora_alpha=6, fan_in_fan_out=True),
    *_pattern_methods(_TABLES),
    Method(
        "LoRA rslora with patterns",
        "LoraConfig",
        _patterns(
            rank_pattern={"to_q": 2, "to_[kv]": 8},
            alpha_pattern={"{b}.0.{a}.to_.*": 3},
            more={"use_rslora": True},
        ),
        "attention",
    ),
    Method(
        "LoRA DoRA with patterns",
        "LoraConfig",
        _patterns(rank_pattern={"to_q": 2}, alpha_pattern={"to_k": 3}, more={"use_dora": True}),
        "attention",
    ),
    Method(
        "LoRA targets by regular expression",
        "LoraConfig",
        {"r": 4, "lora_alpha": 2, "target_modules": r".*\.1\.att.*\.to_[qkv]"},
        "attention",
    ),
    *(
        Method(f"AdaLoRA {name}", "AdaLoraConfig", {"total_step": 10, **arguments})
        for name, arguments in {
            "defaults": {},
            "alpha": {"init_r": 6, "target_r": 4, "lora_alpha": 3},
            "alpha 0": {"init_r": 6, "lora_alpha": 0},
            "negative alpha": {"init_r": 5, "lora_alpha": -2},
            "rslora, which it ignores": {"init_r": 5, "lora_alpha": 4, "use_rslora": True},
        }.items()
    ),
    Method("LoHa defaults", "LoHaConfig"),
    Method("LoHa alpha", "LoHaConfig", {"r": 4, "alpha": 6}),
    Method("LoHa r 1", "LoHaConfig", {"r": 1, "alpha": 3}),
    *(
        Method(
            f"{name} patterns",
            f"{name}Config",
            lambda model: {
                "r": 4,
                "alpha": 6,
                "rank_pattern": {"to_q": 2, r".*\.1\..*": 3},
                "alpha_pattern": {"to_[kv]": 3, "to_v": 5},
            },
            "attention",
        )
        for name in ("LoHa", "LoKr")
    ),
    *(
        Method(f"LoKr {name}", "LoKrConfig", arguments)
        for name, arguments in {
            "defaults": {},
            "both whole": {"r": 64, "alpha": 6},
            "one low": {"r": 2, "alpha": 3},
            "both low": {"r": 1, "alpha": 3, "decompose_both": True},
            "both low, r 2": {"r": 2, "alpha": 3, "decompose_both": True},
            "factor 4": {"r": 2, "alpha": 3, "decompose_factor": 4},
            "factor 8, both whole": {"r": 40, "alpha": 6, "decompose_factor": 8},
            "factor 2, both low": {
                "r": 1,
                "alpha": 2,
                "decompose_factor": 2,
                "decompose_both": True,
            },
        }.items()
    ),
    Method("IA3", "IA3Config", {"feedforward_modules": []}),
    *(
        Method(f"OFT {name}", "OFTConfig", {"oft_block_size": 4, **arguments})
        for name, arguments in {
            "exact": {"use_cayley_neumann": False},
            "shared": {"block_share": True},
            "by rank": {"oft_block_size": 0, "r": 2, "use_cayley_neumann": False},
            **{f"{n} terms": {"num_cayley_neumann_terms": n} for n in range(1, 8)},
        }.items()
    ),
    Method(
        "IA3 of inputs",
        "IA3Config",
        lambda model: {"feedforward_modules": targets(model, "all")},
    ),
)
# Plain names whose dots match other characters, as those of regular expressions do.
DOTS = tuple(_pattern_methods(_DOTS))

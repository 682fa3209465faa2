"""A file, or several, for each row of the table of what is refused in docs/lora-files.md."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from support.oracle.compare import write
from support.oracle.peft_refused import METHODS, TOLD, save
from torch import Tensor

Tensors = Mapping[str, Tensor]
Files = Iterator[Path]
# A layer with a bias, one without, and fused ones, by the spelling in the file.
LAYER = "transformer.transformer_blocks.0.attn.to_q"
FLAT = "transformer.layers.0.attention.to_q"
FUSED = "transformer.layers.0.feed_forward.net.0.proj"


def pair(stem: str = LAYER, out: int = 32, inputs: int = 32, rank: int = 4) -> dict[str, Tensor]:
    """Both factors of a LoRA."""
    return {
        f"{stem}.lora_A.weight": torch.randn(rank, inputs),
        f"{stem}.lora_B.weight": torch.randn(out, rank),
    }


def beside(stem: str = LAYER, **more: Tensor) -> dict[str, Tensor]:
    """Tensors of a module; two underscores in a name stand for a dot."""
    return {f"{stem}.{name.replace('__', '.')}": value for name, value in more.items()}


def _one(
    tensors: Tensors, header: Mapping[str, Any] | str | None = None
) -> Callable[[Path], Files]:
    """Make a file of these tensors; the header is that of diffusers."""

    def make(folder: Path) -> Files:
        text = header if header is None or isinstance(header, str) else json.dumps(header)
        metadata = None if text is None else {"lora_adapter_metadata": text}
        yield write(folder / "a.safetensors", tensors, metadata)

    return make


def _several(*files: Tensors) -> Callable[[Path], Files]:
    def make(folder: Path) -> Files:
        for number, tensors in enumerate(files):
            yield write(folder / f"{number}.safetensors", tensors)

    return make


def _of_peft(alone: bool) -> Callable[[Path], Files]:
    def make(folder: Path) -> Files:
        for name in ("BOFT", "VeRA", "FourierFT", "MiSS"):
            method = METHODS[name]
            path = save("qwen_image", method.config, method.arguments, folder / name)
            if alone:
                path.with_name("adapter_config.json").unlink()
            yield path

    return make


def _variants(folder: Path) -> Files:
    told = {name: arguments for name, (arguments, _) in TOLD.items()}
    known = {name: METHODS[name].arguments for name in ("KaSA", "BD-LoRA")}
    for name, arguments in {**told, **known}.items():
        yield save("qwen_image", "LoraConfig", {"r": 4, **arguments}, folder / name)
    yield from _one(pair(), {"r": 4, "lora_alpha": 4, "layer_replication": [[0, 2]]})(folder)


def _method(name: str) -> Callable[[Path], Files]:
    """An adapter of peft without its configuration."""

    def make(folder: Path) -> Files:
        method = METHODS[name]
        path = save("qwen_image", method.config, method.arguments, folder)
        path.with_name("adapter_config.json").unlink()
        yield path

    return make


def _constrained(folder: Path) -> Files:
    method = METHODS["OFT constrained"]
    yield save("qwen_image", method.config, method.arguments, folder)


_A, _ONE = torch.randn(4, 32), torch.ones(())
_ROTATION = torch.randn(16, 8, 8)
_DORA = {**pair(FUSED, 128, 24), **beside(FUSED, dora_scale=torch.ones(1, 24))}
_IA3 = beside(FUSED, ia3_l=torch.ones(1, 24))
_OFT = beside(FUSED, oft_blocks=_ROTATION)
_FULL_FP8 = {
    name: torch.full(value.shape, 448.0).to(torch.float8_e4m3fn) for name, value in pair().items()
}
_LOHA: dict[str, Any] = {f"hada_{name}": torch.randn(32, 2) for name in ("w1_a", "w2_a")} | {
    f"hada_{name}": torch.randn(2, 32) for name in ("w1_b", "w2_b")
}

FILES: dict[str, Callable[[Path], Files]] = {
    "a LoRA for another model": _one(
        pair() | pair("transformer.single_transformer_blocks.0.attn.to_q")
    ),
    "modules of two models": _one(pair() | pair("transformer.layers.0.attention.to_q", 24, 24)),
    "no module of a supported model": _one(pair("transformer.something.else")),
    "a method of peft that is not computed, named in its configuration": _of_peft(False),
    "a method of peft that is not computed, told by its tensors": _of_peft(True),
    "variants of LoRA that only the configuration tells": _variants,
    "AdaLoRA without its configuration": _one(
        beside(lora_A=_A, lora_B=torch.randn(32, 4), lora_E=torch.randn(4, 1))
    ),
    "OFT of OneTrainer, or of peft without its configuration": _several(
        beside(oft_R__weight=torch.randn(8, 6)),
        {**beside(oft_R__weight=torch.randn(8, 6)), **beside(oft_R__scaled_oft=_ONE)},
    ),
    "constrained OFT of peft (`coft`)": _constrained,
    "OFT of an older peft": _one(beside(oft_r=torch.randn(8, 4, 4))),
    "OFT of another writer than LyCORIS": _one(beside(oft_diag=torch.randn(8, 4, 4))),
    "T-LoRA": _one(
        beside(
            q_layer__weight=_A,
            p_layer__weight=torch.randn(32, 4),
            lambda_layer=torch.ones(1, 4),
            alpha=_ONE,
        )
    ),
    "KaSA": _method("KaSA"),
    "the sparse rest of a LyCORIS extraction": _one(
        pair()
        | beside(
            bias_indices=torch.zeros(2, 3, dtype=torch.int16),
            bias_values=torch.ones(3),
            bias_size=torch.tensor([32, 32]),
        )
    ),
    "Tucker factors": _one(
        beside(**_LOHA, hada_t1=torch.randn(2, 2, 3, 3), hada_t2=torch.randn(2, 2, 3, 3))
    ),
    "convolution factors": _one(
        beside(lora_down__weight=torch.randn(4, 32, 3, 3), lora_up__weight=torch.randn(32, 4, 1, 1))
    ),
    "LoRA of MLX": _several(
        beside(lora_a=torch.randn(32, 4), lora_b=torch.randn(4, 32)),
        beside(lora_A=torch.randn(32, 4), lora_B=torch.randn(4, 32)),
    ),
    "a full weight, of a checkpoint or of peft's `modules_to_save`": _one(
        beside(weight=torch.randn(32, 32))
    ),
    "an output layer for each step (PDD bundles)": _one(
        {"transformer.proj_out.weight": torch.randn(4, 16, 32)}
    ),
    "a full bias": _one(pair() | beside(base_layer__bias=torch.randn(32))),
    "a replaced weight": _one(beside(set_weight=torch.randn(32, 32))),
    "a weight of another shape": _one(pair() | beside(reshape_weight=torch.tensor([32, 40]))),
    "a change of a bias that the layer does not have": _one(
        beside("transformer.layers.0.attention.norm_q", diff_b=torch.randn(8))
    ),
    "a DoRA magnitude without factors": _one(beside(lora_magnitude_vector=torch.ones(32))),
    "DoRA without its magnitude": _one(pair(), {"r": 4, "lora_alpha": 4, "use_dora": True}),
    "alpha without factors": _one(beside(alpha=_ONE)),
    "one factor of two": _one(beside(lora_A__weight=_A)),
    "a factor with a rank of its own": _one(
        beside(lora_A__weight=_A, lora_B__weight=torch.randn(32, 5))
    ),
    "factors for a weight of another size": _one(pair(inputs=40)),
    "factors for which the configuration says another rank": _one(
        pair(), {"r": 8, "lora_alpha": 8}
    ),
    "a configuration that cannot be read": _one(pair(), "{broken"),
    "a rank without alpha in the configuration": _one(pair(), {"r": 4}),
    "a pattern that could take very long to match": _one(
        pair(), {"r": 4, "lora_alpha": 4, "alpha_pattern": {"(a+)+$": 2}}
    ),
    "a DoRA of columns, a rotation or an IA3 of inputs on fused projections": _several(
        _DORA, _OFT, _IA3
    ),
    "a BOFT of several stages with blocks of an odd size": _one(
        beside("transformer.layers.0.attention.to_q", oft_blocks=torch.randn(4, 8, 3, 3))
    ),
    "two versions of one module that differ": _one(
        pair() | pair("diffusion_model.transformer_blocks.0.attn.to_q")
    ),
    "a version of a module that cannot be used, beside one that could": _one(
        pair("diffusion_model.transformer_blocks.0.attn.to_qkv", 96) | beside(lora_A__weight=_A)
    ),
    "two tensors of one role": _one(pair() | beside(lora_down__weight=_A)),
    "two methods on one module": _one(pair() | beside(**_LOHA, alpha=_ONE)),
    "alpha and lora_scaling on one module": _one(pair() | beside(alpha=_ONE, lora_scaling=_ONE)),
    "a tensor of unknown meaning": _one(pair() | beside(something=_ONE)),
    "alpha that is 0": _one(pair() | beside(alpha=torch.zeros(()))),
    "NaN or infinity": _one(pair() | beside(lora_B__weight=torch.full((32, 4), torch.inf))),
    "fp8 whose scale was lost": _one(_FULL_FP8),
    "int8 without a scale": _one({name: value.to(torch.int8) for name, value in pair().items()}),
}

"""What stands in names and headers of LoRA files, right or wrong."""

from __future__ import annotations

from typing import Any

TAILS = (
    "lora_A.weight", "lora_B.weight", "lora_down.weight", "lora_up.weight", "lora_A", "lora_B",
    "lora.down.weight", "lora.up.weight", "lora.A.weight", "lora_linear_layer.up.weight",
    "lora_linear_layer.down", "lora_A.default.weight", "lora_B.default.weight", "lora_A.s t.weight",
    "lora_B.a\nb.weight", "lora_A.default.bias", "_lora.down.weight", "_lora.up.weight",
    "lora_A._orig_mod.weight", "lora_down.0.weight", "lora_up.0.weight", "lora_down.3.weight",
    "lora_up.9.weight", "lora_down.0.alpha", "lora_mid.weight", "lora_mid.x", "lora_E", "ranknum",
    "lora_E.weight", "lora_A.bias", "lora_B.bias", "lora_down.bias", "lora_up.bias", "alpha",
    "lora_alpha", "lora_scaling", "alpha.default", "dora_scale", "magnitude",
    "lora_magnitude_vector", "lora_magnitude_vector.default.weight", "lora_A.weight_scale",
    "lora_B.weight_scale", "lora_A.scale_weight", "lora_up.scale_weight", "lora_down.weight.scale",
    "lora_B.default.weight_scale", "lora_mid.weight_scale", "lora_A.scale", "weight_scale",
    "scale_weight", "input_scale", "lora_down.comfy_quant", "diff", "diff_b", "w_norm", "b_norm",
    "hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2",
    "hada_w1_a.weight_scale", "lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a",
    "lokr_w2_b", "lokr_t1", "lokr_t2", "lokr_w2.weight_scale", "weight", "bias", "on_input",
    "ia3_l", "ia3_l.weight", "a1.weight", "a2.weight", "b1.weight", "b2.weight", "bm.weight", "a1",
    "oft_blocks", "oft_diag", "rescale", "oft_R.weight", "oft_R.scaled_oft", "oft_r", "set_weight",
    "reshape_weight", "boft_R", "boft_s", "vera_lambda_b", "glora_A.weight", "bias_values",
    "p_layer.weight", "trainable_tokens_delta", "lora_a", "lora_b.weight", "unknown", "",
)  # fmt: skip
AROUND = (
    "", "transformer.", "diffusion_model.", "model.diffusion_model.", "base_model.model.", "unet.",
    "module.", "_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.", "pipe.dit.",
    "lora_unet_", "lora_transformer_", "lycoris_", "lora_", "lora_unet__orig_mod_",
    "lora_unet_inner_dit_", "text_encoder.", "lora_te_", "bundle_emb.", "controlnet.", "foo.",
)  # fmt: skip
INSIDE = ("_orig_mod", "base_layer", "default", "processor", "lora_layer", "module", "x", "0")
TYPES = (
    "F32", "F16", "BF16", "F64", "F8_E4M3", "F8_E5M2", "I8", "I64", "I32", "U8", "BOOL", "U16",
    "F8_E8M0",
)  # fmt: skip
FACTORS = (0, -1, 2, 0.5, 1.003, 1.05, 10, 1e-3, 448, 1e4, 1e12, 1e30, 1e300, float("nan"))
METADATA = {
    "ss_base_model_version": ("qwen_image", "zimage", "flux1", "qwen-image-2.1", "wan2.1", "?"),
    "modelspec.architecture": ("Qwen-Image/lora", "flux-1-dev/lora", "z-image"),
    "lora_alpha": ("1", "8", "0", "-2", "nan", "1e400"),
    "lora_rank": ("1", "2", "4", "0", "2.5"),
    "ss_network_alpha": ("1", "16"),
    "ss_network_dim": ("2", "64"),
    "networkType": ("lokr", "LoRA"),
    "alpha": ("2",),
}
FIELDS: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA", "ADALORA", "LOKR", "LOHA", "IA3", "OFT", "VERA", "x\ny", 3),
    "r": (1, 2, 4, 8, 0, -1, 2.5, "2", 1e300, None),
    "init_r": (2, 12),
    "lora_alpha": (1, 2, 8, 0, -4, 1e300, "x"),
    "alpha": (2, 16),
    "use_rslora": (True, False, 1),
    "rank_pattern": ({"to_q": 2}, {"to_q": 0}, {"to_q": -4}, {"to_.*": 2.5}, {"(": 1}, []),
    "alpha_pattern": (
        {"to_q": 2},
        {"^transformer_blocks.0": 4},
        {".*q": 3, "to_q": 1},
        {"[b-a]": 1},
    ),
    "fan_in_fan_out": (True,),
    "init_lora_weights": ("pissa", "eva"),
    "modules_to_save": (["img_in"],),
    "use_qalora": (True,),
    "base_model_name_or_path": ("Qwen/Qwen-Image", "black-forest-labs/FLUX.1-dev"),
}

"""What is called by name and refused: tensors of methods that have no exact form here."""

from __future__ import annotations

_MERGE = "; merge it in the program that made it, then extract a LoRA ('vivace lora extract')"
_TUCKER = "is {} with Tucker factors, which belong to convolutions"

# By role.
_REASONS = {
    "hada_t1": _TUCKER.format("LoHa"),
    "hada_t2": _TUCKER.format("LoHa"),
    "lokr_t1": _TUCKER.format("LoKr"),
    "lokr_t2": _TUCKER.format("LoKr"),
    "glora_bm": _TUCKER.format("GLoRA"),
    "oft_r": "is OFT of an older peft, which later ones read otherwise" + _MERGE,
    "scaled_oft": "is OFT whose rotation depends on settings that are not in the file" + _MERGE,
    "oft_diag": "is OFT of another writer than LyCORIS, whose rotation is not known" + _MERGE,
    "set_weight": "replaces the weight instead of changing it",
    "reshape_weight": "changes the shape of the weight",
    "bias": "a full bias, not a change to one: load it as a model, or extract a LoRA from it",
}
# By the beginning of what follows the module in a name.
_PREFIXES = {
    "adamss_": "AdaMSS",
    "beft_": "BEFT",
    "bias_indices": "LyCORIS' sparse rest of an extraction",
    "bias_size": "LyCORIS' sparse rest of an extraction",
    "bias_values": "LyCORIS' sparse rest of an extraction",
    "boft_": "BOFT of peft",
    "bone_": "Bone",
    "c3a_": "C3A",
    "deft_": "DEFT",
    "delora_": "DeLoRA",
    "fourierft_": "FourierFT",
    "frod_": "FRoD",
    "glora_": "GLoRA of peft",
    "gralora_": "GraLoRA",
    "hira_": "HiRA",
    "hra_": "HRA",
    "lambda_layer": "T-LoRA",
    "lily_": "Lily",
    "ln_tuning": "LN tuning",
    "lora_diag": "KaSA, which also changes the base weight",
    "lora_embedding_": "LoRA of peft for embeddings",
    "lora_ga": "LoRA-GA",
    "lora_monteclora": "MonteCLoRA",
    "lora_velora": "VeLoRA",
    "miss_": "MiSS",
    "osf_": "OSF",
    "p_layer": "T-LoRA",
    "peanut_": "PEANuT",
    "poly_lora": "Poly",
    "psoft_": "PSOFT",
    "pvera_": "PVeRA",
    "q_layer": "T-LoRA",
    "randlora_": "RandLoRA",
    "road_": "RoAd",
    "shira_": "SHiRA",
    "supertuning_": "SuperTuning",
    "tinylora_": "TinyLoRA",
    "trainable_tokens": "trainable tokens",
    "unilora_": "UniLoRA",
    "vblora_": "VB-LoRA",
    "vera_": "VeRA",
    "waveft_": "WaveFT",
}
_MLX = (
    "has MLX's transposed lora_a and lora_b, whose scale is not in the file; export it from there"
    " with lora_A and lora_B"
)


OFT_WITHOUT_SETTINGS = _REASONS["scaled_oft"]


def refusal_of(role: str) -> str | None:
    """Return why a tensor of this role refuses its module, None if it does not."""
    return _REASONS.get(role)


def method_of(name: str) -> str | None:
    """Return the method that a tensor of no known role belongs to, by what follows the module in
    its name, as a reason to refuse the module; None if the name tells nothing."""
    if name.partition(".")[0] in ("lora_a", "lora_b"):
        return _MLX
    for start, method in _PREFIXES.items():
        if name.startswith(start):
            return f"is {method}, which has no exact form here{_MERGE}"
    return None

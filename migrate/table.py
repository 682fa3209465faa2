"""All rules by the old class, and the known classes that have none."""

from __future__ import annotations

from collections.abc import Mapping

from .ailab_rules import AILAB_RULES
from .localvlm_rules import LOCALVLM_RULES
from .lora_rules import LORA_RULES
from .rules import Rule
from .toolkit_music_rules import TOOLKIT_MUSIC_RULES
from .toolkit_rules import TOOLKIT_RULES
from .toolkit_text_rules import TOOLKIT_TEXT_RULES

RULES: Mapping[str, Rule] = {
    name: rule
    for rule in (
        *LORA_RULES,
        *AILAB_RULES,
        *LOCALVLM_RULES,
        *TOOLKIT_RULES,
        *TOOLKIT_TEXT_RULES,
        *TOOLKIT_MUSIC_RULES,
    )
    for name in rule.old
}

_GGUF = (
    "it runs GGUF files; start llama.cpp's server with the file, and add a QwenVL with the engine"
    " 'server'"
)
DECLINED: Mapping[str, str] = {
    "AILab_QwenVL_GGUF": _GGUF,
    "AILab_QwenVL_GGUF_Advanced": _GGUF,
    "AILab_QwenVL_GGUF_PromptEnhancer": _GGUF,
    "AILab_HuggingFaceDownloader": "it fetches single files into any folder; ours models to run",
    "Lora Stacker (LoraManager)": "it has no model; connect its output to a LoRA Stack of ours",
}

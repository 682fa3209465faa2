"""Every command: the words that call it, its module in `commands`, and what it does in a line."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType

COMMANDS = {
    "lora inspect": ("lora_inspect", "what LoRA files hold and what would be applied"),
    "lora merge": ("lora_merge", "several LoRAs, each at its strength, as one file"),
    "lora convert": ("lora_convert", "a LoRA under the names that another program reads"),
    "lora resize": ("lora_resize", "a LoRA of lower rank, with the least error"),
    "lora extract": ("lora_extract", "the difference of two checkpoints as a LoRA"),
    "lora check": ("lora_check", "broken files, duplicates and wrong models in a folder"),
    "migrate": ("migrate", "workflows made with other packs' nodes, with ours in their place"),
    "startup": ("startup", "what a node pack costs when ComfyUI starts"),
    "run": ("run", "run a workflow on a server, with other values, and fetch what it makes"),
    "infer": ("infer", "pictures of a prompt, without a workflow of your own"),
    "caption": ("caption", "captions beside the images of a folder"),
    "export": ("export", "a stack of LoRAs as one file, or baked into a model"),
    "train": ("train", "a LoRA, trained on a folder of images and captions"),
    "doctor": ("doctor", "whether everything is there and fits together, and what to do if not"),
    "config show": ("config_show", "the settings, and where each value comes from"),
    "completion": ("completion", "a script that completes words in your shell"),
}

GROUPS = {
    "lora": "LoRA files",
    "config": "the configuration",
}


def load(name: str) -> ModuleType:
    """The module of a command, with its `COMMAND` and `run`."""
    from importlib import import_module

    return import_module(f".commands.{COMMANDS[name][0]}", __package__)


def split(words: list[str]) -> tuple[str, list[str]]:
    """The longest command or group that the words begin with ("" if none), and the other words."""
    for count in (2, 1):
        name = " ".join(words[:count])
        if len(words) >= count and (name in COMMANDS or name in GROUPS):
            return name, words[count:]
    return "", words


def members(group: str) -> dict[str, str]:
    """What may follow a group, or the root (""), with a line on each, in the table's order."""
    start = f"{group} " if group else ""
    found: dict[str, str] = {}
    for name, (_, summary) in COMMANDS.items():
        if name.startswith(start):
            word, _, more = name[len(start) :].partition(" ")
            found[word] = GROUPS[word] if more else summary
    return found

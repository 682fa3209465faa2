"""What the values of other packs' Qwen-VL nodes mean in ours."""

from __future__ import annotations

from typing import Any

from .our_nodes import NO_PRESET
from .rules import NewNode, NotMigratable, OldNode, as_integer, as_switch, choice, find_name, shown
from .widgets import CONTROL

_MAX_SEED = 2**64 - 1
_PATCHES = 28 * 28
_ATTENTION = ("auto", "sdpa", "flash_attention_2", "eager")

# Words in the name of a preset -> ours, the first that is found.
PRESETS = (
    ("tags", "Tags"),
    ("simple", "Short caption"),
    ("summar", "Describe the video"),
    ("refine & expand", "Improve my prompt"),
    ("short story", NO_PRESET),
    ("detailed", "Detailed description"),
    ("cinematic", "Detailed description"),
)
_STORY = "Write a short story about what can be seen."


def compiled(value: Any, notes: list[str]) -> str:
    """Off was the default and did nothing else than on; ours decides by itself."""
    return "on" if as_switch(value, notes) else "auto"


def attention(value: Any, notes: list[str]) -> str:
    """SageAttention's choice is left to transformers."""
    options = {**{name: name for name in _ATTENTION}, "sage": "auto"}
    return choice(options, note_of=("sage",))(value, notes)


def seed(value: Any, notes: list[str]) -> int:
    """-1 meant any seed."""
    if value == -1:
        notes.append("seed -1 meant any; it is 0 now")
        return 0
    return as_integer(0, _MAX_SEED)(value, notes)


def _quality(tokens: float) -> str:
    bounds = ((256, "fast"), (512, "balanced"), (768, "high"))
    return next((name for bound, name in bounds if tokens <= bound), "ultra")


def resolution(value: Any, notes: list[str]) -> str:
    """Presets of the same sizes under other names, such as `low (256x28x28)`."""
    names = {"low": "fast", "medium": "balanced", "high": "high", "ultra": "ultra"}
    word = value.partition(" ")[0] if isinstance(value, str) else value
    return choice(names)(word, notes)


def pixels(value: Any, notes: list[str]) -> str:
    """The preset that comes nearest to a number of pixels."""
    tokens = as_integer(0, 2**62)(value, []) / _PATCHES
    nearest = _quality(tokens)
    notes.append(f"max_pixels = {value} is {tokens:.0f} tokens of 28 x 28; it is '{nearest}' now")
    return nearest


def common(old: OldNode, new: NewNode) -> None:
    """What all of them have: the model's name and the images."""
    name = old.values.get("model_name", old.values.get("model"))
    if not isinstance(name, str) or not name:
        raise NotMigratable(f"the model is {shown(name)}, not a name")
    new.values["engine.model"] = find_name(name, old.known.models, new.notes)
    images = [name for name in ("image", *(f"image{i}" for i in range(1, 5))) if name in old.linked]
    for index, image in enumerate(images):
        new.links[f"images.image{index}"] = image
    device = old.values.get("device", "auto")
    if device != "auto":
        new.notes.append(f"device = {shown(device)} has no counterpart; ComfyUI chooses it")
    if CONTROL in old.values:
        new.values[CONTROL] = old.values[CONTROL]
    if old.values.get("seed") == -1:
        new.values[CONTROL] = "randomize"


def sampled(old: OldNode, new: NewNode) -> None:
    """Sampling as it was given; without it, the most probable token each time."""
    beams = old.values.get("num_beams", 1)
    if beams != 1:
        new.notes.append(f"num_beams = {shown(beams)} has no counterpart; sampling is greedy")
    if old.values.get("do_sample", True) is False or beams != 1:
        new.values["sampling"] = "greedy"
        for name in [name for name in new.values if name.startswith("sampling.")]:
            del new.values[name]
        if any(name.startswith("sampling.") for name in new.links):
            raise NotMigratable("sampling is off, but something is connected to its settings")
    if old.linked & {"do_sample", "num_beams"}:
        raise NotMigratable("whether to sample comes from another node")


def preset(old: OldNode, new: NewNode) -> None:
    """A custom prompt took the place of the preset."""
    common(old, new)
    sampled(old, new)
    own = old.values.get("custom_prompt", "")
    if "custom_prompt" in old.linked:
        new.links["prompt"] = "custom_prompt"
    elif isinstance(own, str) and own.strip():
        new.values["prompt"] = own
    else:
        _named_preset(old, new)
    for name in old.linked & {"preset_prompt"}:
        raise NotMigratable(f"'{name}' is connected, and our presets have other names")


def _named_preset(old: OldNode, new: NewNode) -> None:
    name = old.values.get("preset_prompt", "")
    if not isinstance(name, str):
        raise NotMigratable(f"preset_prompt is {shown(name)}, not text")
    ours = next((ours for words, ours in PRESETS if words in name.lower()), None)
    if ours is None or name.endswith("."):
        new.values["prompt"] = name  # the first versions had sentences to choose from
        return
    new.values["preset"] = ours
    new.values["prompt"] = _STORY if ours == NO_PRESET else ""
    new.notes.append(f"the preset '{name}' is '{ours}' now, in words of its own")
    if ours == "Improve my prompt":
        new.notes.append("this preset needs a prompt to work on")


def enhanced(old: OldNode, new: NewNode) -> None:
    """A style, or an instruction of one's own in its place, went before the prompt."""
    common(old, new)
    own = old.values.get("custom_system_prompt", "")
    if "custom_system_prompt" in old.linked:
        new.links["system_prompt"] = "custom_system_prompt"
    elif isinstance(own, str) and own.strip():
        new.values["system_prompt"] = own
    else:
        new.values["preset"] = "Improve my prompt"
        style = old.values.get("enhancement_style")
        new.notes.append(f"the style {shown(style)} is 'Improve my prompt' now")


def local(old: OldNode, new: NewNode) -> None:
    """Nodes with an optional bypass, and a path to a video."""
    common(old, new)
    sampled(old, new)
    if old.values.get("bypass") is True or "bypass" in old.linked:
        raise NotMigratable("its 'bypass' hands the prompt on, which ours cannot; switch it off")
    path = old.values.get("video_path", "")
    if path not in ("", None) and "video_path" not in old.linked:
        new.notes.append(f"video_path = {shown(path)}: load its frames and connect them to 'video'")

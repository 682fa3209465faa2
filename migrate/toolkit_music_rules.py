"""Nodes of comfyui-llm-toolkit for music -> Generate Music and Preview Outputs."""

from __future__ import annotations

from .connections import ends, origin
from .rules import Field, NewNode, NotMigratable, OldNode, Rule, as_text
from .toolkit_context import Context, read_context
from .widgets import Layout, Widget, is_text, text

_PREVIEW, _OURS = "PreviewOutputs", "VivaceGenerateMusic"
_AUDIO = 1  # output of the preview


def _compose(old: OldNode, new: NewNode) -> None:
    for item in ends(old.around, [item for item in old.consumers if item.slot == 0]):
        if item.class_type != _PREVIEW:
            raise NotMigratable(f"its context goes to {item.class_type or 'an output'} ({item.id})")
        if any(other.slot != _AUDIO for other in old.around.consumers(item.id)):
            raise NotMigratable(
                f"{_PREVIEW} ({item.id}) takes Suno's cover, lyrics or answer out of its context"
            )
    context = read_context(old)
    provider = context.provider.get("name", "suno")
    if provider != "suno":
        raise NotMigratable(f"its context names '{provider}', and that node asked Suno only")
    _describe(context, new)
    model = next(iter(old.known.music_models), "")
    new.values["model"] = model
    which = f"'{model}', the first one here," if model else "a MusicGen that has to be chosen"
    new.notes.append(f"{which} plays on this machine in place of Suno, 10 seconds, without voices")
    if "{" in str(new.values.get("prompt", "")):
        new.notes.append("braces in the prompt are alternatives to ours")
    new.folded |= context.folded
    new.notes += context.notes
    new.spent.add("context")


def _describe(context: Context, new: NewNode) -> None:
    """What of Suno's settings says how it shall sound."""
    settings = context.music
    if settings.get("custom_mode"):
        if not settings.get("instrumental"):
            raise NotMigratable("its prompt are lyrics to be sung, and MusicGen has no voice")
        if settings.get("style"):
            if new.links.pop("prompt", None) is not None:
                new.spent.add("prompt")
            new.values["prompt"] = settings["style"]
            new.notes.append("the style is the prompt now; the prompt itself is gone")
    for name in ("title", "negative_tags"):
        if settings.get(name):
            new.notes.append(f"{name} = {settings[name]!r} has no counterpart")


def _show(old: OldNode, new: NewNode) -> None:
    place = old.sources.get("context")
    node = None if place is None else old.around.node(origin(old.around, place).id)
    if old.consumers and (node is None or node.class_type != _OURS):
        raise NotMigratable("what it gives out is silence without music by GenerateMusic")


TOOLKIT_MUSIC_RULES = (
    Rule(
        ("GenerateMusic",),
        _OURS,
        (Layout((text("prompt"), Widget("save_name", is_text, optional=True))),),
        (Field("prompt", "prompt", as_text),),
        ignored=frozenset(("context", "save_name")),  # which that node never read
        finish=_compose,
    ),
    Rule(
        (_PREVIEW,),
        "VivacePreviewOutputs",
        (Layout(()),),
        (Field("context", "values.value0", lambda value, _: value),),
        outputs={},
        passes={_AUDIO: "context"},
        finish=_show,
        last=True,
    ),
)

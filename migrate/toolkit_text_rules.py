"""Nodes of comfyui-llm-toolkit around its `context` -> Generate Text, API Key, Prompt Manager."""

from __future__ import annotations

import re

from .connections import Consumer, Place, ends
from .rules import Field, NewNode, NotMigratable, OldNode, Rule, as_text, find_name, shown
from .toolkit_context import WRITERS, Context, gathered, read_context
from .toolkit_providers import DEFAULT_MODELS, LOCAL, SERVERS, SERVICES, key_variable
from .toolkit_values import KEY
from .widgets import Layout, Widget, is_text, switch, text

# Nodes of that pack that take more out of a context than its text.
_DEEP = re.compile(
    r"Generate(Image|Video|Speech|Music|Lyrics)|ConfigGenerate\w+|APIKeyInput|TestAPIKeyContext"
    r"|(SystemPrompt|Banana)TaskGenerator|StylePromptGenerator|\w+Provider(Node|Selector|SelectorNode)"
)
_REASONING = re.compile(r"gpt-?5|o\d", re.IGNORECASE)
_SAMPLING = {"sampling.temperature": 0.7, "sampling.top_p": 0.9}
_MAX_IMAGES = 32

# What those nodes always said, in words of ours.
_SYSTEM = "Be helpful and inventive, and answer in few words."
_LYRICS = "Write the lyrics of a song: verses and a chorus. Answer with nothing but the lyrics."


def _users(old: OldNode) -> str:
    """The nodes that take a node's outputs, by name."""
    return ", ".join(map(_shown, ends(old.around, old.consumers)))


def _shown(item: Consumer) -> str:
    return f"{item.class_type} ({item.id})" if item.class_type else "an output of its subgraph"


def _write(old: OldNode, new: NewNode) -> None:
    for item in ends(old.around, [item for item in old.consumers if item.slot == 0]):
        if not item.class_type or _DEEP.fullmatch(item.class_type):
            raise NotMigratable(f"its context goes to {_shown(item)}, and ours has only a text")
    context = read_context(old)
    _engine(context, old, new)
    _prompt(context, old, new)
    if old.values.get("hide_thinking") is False:
        new.notes.append("what it thought comes out at 'thinking', no longer within the text")
    new.notes.append("the seed 0 is sent, where that node sent none")
    _fold(context, new)


def _fold(context: Context, new: NewNode) -> None:
    new.folded |= context.folded
    new.notes += context.notes
    new.spent.add("context")


def _engine(context: Context, old: OldNode, new: NewNode) -> None:
    """Who is asked, and with which sampling."""
    name = context.provider.get("name", "openai").lower()
    named = context.provider.get("model") if context.provider else old.values.get("llm_model")
    model = "" if context.model else named or DEFAULT_MODELS.get(name, "")
    if not isinstance(model, str) or not (model or context.model):
        raise NotMigratable(f"no model of '{name}' is chosen")
    if context.model is not None:
        if name in LOCAL:
            raise NotMigratable("another node names its model, and ours has to know the folder")
        new.sources["engine.server_model"] = context.model
    if name in LOCAL:
        _local(model, old, new)
    elif name in SERVERS:
        _server(name, model, context, new)
    elif name in SERVICES:
        _service(name, model, new)
    else:
        raise NotMigratable(f"'{name}' is no provider of texts that ours can ask")


def _local(model: str, old: OldNode, new: NewNode) -> None:
    folder = model.replace("\\", "/").rstrip("/").rpartition("/")[2]
    new.values |= {
        "engine": "local",
        "engine.model": find_name(folder, old.known.models, new.notes),
        "engine.dtype": "float16",
        "sampling.top_k": 50,
        "sampling.repetition_penalty": 1.1,
    }


def _server(name: str, model: str, context: Context, new: NewNode) -> None:
    if "address" not in context.provider:
        raise NotMigratable(f"its context does not say where '{name}' runs")
    address = f"http://{context.provider['address']}/v1"
    new.values |= {"engine.address": address, "engine.server_model": model}
    if name == "ollama":
        new.values["sampling.top_k"] = 40
        new.notes.append(
            "Ollama has to run, with the model pulled; repeat_penalty = 1.1 is not sent"
        )
    _asks(name, model, address, SERVERS[name], new)


def _service(name: str, model: str, new: NewNode) -> None:
    service = SERVICES[name]
    new.values |= {
        "engine.address": service.address,
        "engine.server_model": model,
        "engine.api_key_variable": service.variable,
    }
    if name == "openai" and _REASONING.match(model):
        new.values["sampling"] = "model default"
        for setting in _SAMPLING:
            del new.values[setting]
    new.notes.append(f"the key is read from {service.variable}, never from a .env file")
    _asks(name, model, service.address, service.asked, new)


def _asks(name: str, model: str, address: str, asked: bool, new: NewNode) -> None:
    before = "" if asked else f"; that node could not ask '{name}'"
    what = f"'{model}'" if model else "a model that another node names,"
    new.notes.append(f"asks {what} at {address}{before}")


def _prompt(context: Context, old: OldNode, new: NewNode) -> None:
    """The text of a context went before the node's own prompt."""
    texts = context.texts
    if len(texts) > 1:
        raise NotMigratable(
            f"its Prompt Manager joins {len(texts)} texts; join them with Concatenate Text first"
        )
    if len(context.images) > _MAX_IMAGES:
        raise NotMigratable(f"it is given {len(context.images)} images, and ours takes 32 inputs")
    if context.system is None:
        new.values["system_prompt"] = _SYSTEM
        new.notes.append("the system prompt that it always had is said in words of ours")
    else:
        new.sources["system_prompt"] = context.system
    if texts or (context.system and _by_manager(context)):
        _take_text(texts[0] if texts else context.system, old, new)
        if context.system and texts:
            new.notes.append("the system prompt is no longer repeated before the prompt")
    for index, image in enumerate(context.images):
        new.sources[f"images.image{index}"] = image
    if context.images:
        new.notes.append("all images of a batch are sent; that node sent 16, or 10 of a video")


def _by_manager(context: Context) -> bool:
    return "LLMPromptManager" in context.folded.values()


def _take_text(given: Place | str | None, old: OldNode, new: NewNode) -> None:
    own = new.values.pop("prompt", "")
    if new.links.pop("prompt", None) is not None:
        new.spent.add("prompt")
        own = "what was connected to 'prompt'"
    if own:
        new.notes.append(f"its own prompt played no part, and is gone: {shown(own)}")
    if isinstance(given, str):
        new.values["prompt"] = given
    elif given is not None:
        new.sources["prompt"] = given


def _write_lyrics(old: OldNode, new: NewNode) -> None:
    context = read_context(old)
    provider = context.provider.get("name", "suno")
    if provider != "suno":
        raise NotMigratable(f"its context names '{provider}', and that node asked Suno only")
    model = next(iter(old.known.models), "")
    new.values["engine.model"] = model
    which = f"'{model}', the first one here," if model else "a model that has to be chosen"
    new.notes.append(f"{which} on this machine writes in place of Suno; another may do better")
    new.notes.append("the song's form is asked for in the system prompt")
    _fold(context, new)


def _name_key(old: OldNode, new: NewNode) -> None:
    if old.consumers:
        raise NotMigratable(f"its keys go to {_users(old)}, which ours cannot give any")
    provider = old.values.get("provider")
    if not isinstance(provider, str) or not re.fullmatch(r"[a-z]+", provider):
        raise NotMigratable("its provider is not one of those that it had")
    variable = key_variable(provider)
    new.values["key_name"] = variable
    new.notes.append(f"the key itself was left out: set {variable} for ComfyUI")
    new.spent |= old.linked


def _hold_text(old: OldNode, new: NewNode) -> None:
    for item in ends(old.around, old.consumers):
        if not item.class_type or item.class_type in WRITERS or _DEEP.fullmatch(item.class_type):
            raise NotMigratable(f"it is a part of {_users(old)}, which stays")
    context = gathered(old)
    if context.images or context.provider or len(context.texts) != 1:
        raise NotMigratable("ours is for one text, and it gathers something else")
    place = context.texts[0]
    if isinstance(place, str):
        new.values["positive"] = place
    else:
        new.sources["positive"] = place
    new.notes += [*context.notes, "braces in the text are variables and alternatives to ours"]
    new.folded |= context.folded
    new.spent |= old.linked


_PROMPT, _THINKS = text("prompt"), switch("hide_thinking")
_SHOWN = Widget("shown", is_text, optional=True)
_GATHERS = frozenset(("context", *(f"context_{number}" for number in range(1, 10))))

TOOLKIT_TEXT_RULES = (
    Rule(
        WRITERS,
        "VivaceGenerateText",
        (
            Layout((_PROMPT, _THINKS, _SHOWN)),
            Layout((text("llm_model"), _PROMPT, _THINKS, _SHOWN)),
            Layout((text("llm_model"), _PROMPT, _SHOWN)),
        ),
        (Field("prompt", "prompt", as_text),),
        {"engine": "server", "max_tokens": 1024, "sampling": "custom"}
        | {**_SAMPLING, "sampling.top_k": 0},
        ignored=frozenset(("context", "hide_thinking", "shown")),
        outputs={0: 0, 1: 0},
        finish=_write,
        own=lambda name: name == "llm_model" or "_response_" in name,
    ),
    Rule(
        ("GenerateLyrics",),
        "VivaceGenerateText",
        (Layout((_PROMPT,)),),
        (Field("prompt", "prompt", as_text),),
        {"engine": "local", "system_prompt": _LYRICS, "max_tokens": 1024},
        ignored=frozenset(("context",)),
        outputs={1: 0},
        finish=_write_lyrics,
    ),
    Rule(
        ("APIKeyInput",),
        "VivaceApiKey",
        (KEY,),
        fixed={"source": "environment variable"},
        ignored=frozenset(("context", "provider", "api_key", "override_existing")),
        finish=_name_key,
        last=True,
        secret=True,
    ),
    Rule(
        ("LLMPromptManager",),
        "VivacePromptManager",
        (Layout(()),),
        ignored=_GATHERS,
        finish=_hold_text,
        last=True,
    ),
)

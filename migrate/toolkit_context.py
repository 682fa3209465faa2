"""Reads what the nodes of comfyui-llm-toolkit hand around as `context`.

Each of them adds to one bundle of values: a provider and its model, texts, images. What they add is
told from the workflow, without running it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .connections import ACTIVE, BYPASSED, Neighbor, Neighbors, Place, origin, type_of
from .rules import NotMigratable, OldNode
from .toolkit_providers import LOCAL, SERVERS, key_variable
from .toolkit_values import (
    KEY,
    MUSIC,
    ONE_MODEL,
    PATHS,
    PROMPT,
    SELECTOR,
    SERVER,
    TASK,
    named,
    values_of,
)

WRITERS = ("LLMToolkitTextGenerator", "LLMToolkitTextGeneratorStream")
OURS = "VivaceGenerateText"
_NO_MODEL = "Provider not selected or models not fetched"
_LINKABLE = ("llm_model", "external_api_key")
_MOST_VISITS = 100  # of nodes; where paths part and meet, their number could grow without bound


@dataclass
class Context:
    """What is known of a bundle of values."""

    provider: dict[str, str] = field(default_factory=dict)
    """`name`, `model`, `address`: host and port of a server."""
    model: Place | None = None
    """Where the name of the model comes from, if from another node."""
    texts: list[Place | str] = field(default_factory=list)
    images: list[Place] = field(default_factory=list)
    system: Place | None = None
    music: dict[str, Any] = field(default_factory=dict)
    folded: dict[int | str, str] = field(default_factory=dict)
    """Id and class of the nodes that it is made of."""
    notes: list[str] = field(default_factory=list)


def read_context(old: OldNode) -> Context:
    """What the input `context` gives a node; nothing if it is not connected.

    Raises:
        NotMigratable: it depends on more than the values in the workflow.
    """
    place = old.sources.get("context")
    return Context() if place is None else _Reader(old.around).follow(place)


def gathered(old: OldNode) -> Context:
    """What a Prompt Manager makes of all its inputs.

    Raises:
        NotMigratable: as above.
    """
    return _Reader(old.around).gather(old.sources)


class _Reader:
    """Follows links upwards, from one node to the next."""

    def __init__(self, around: Neighbors) -> None:
        self._around = around
        self._path: list[int | str] = []
        self._visits = 0

    def follow(self, place: Place) -> Context:
        """The context that an output hands on."""
        node = self._node(place)
        if node.class_type in (*WRITERS, OURS):
            note = "its context came from another Generate Text, of which that node took nothing"
            return Context(notes=[f"{note}; 'chat' of ours would go on with the conversation"])
        read = _READERS.get(node.class_type)
        if read is None:
            raise NotMigratable(f"its context comes from {named(node)}, which ours cannot replace")
        self._visits += 1
        if node.id in self._path or self._visits > _MOST_VISITS:
            raise NotMigratable("its context comes from itself, or through too many nodes")
        self._path.append(node.id)
        context = read(self, node) if node.mode == ACTIVE else self._switched_off(node)
        self._path.pop()
        return context

    def _switched_off(self, node: Neighbor) -> Context:
        """A bypassed node hands its context on, a muted one nothing."""
        place = node.inputs.get("context") if node.mode == BYPASSED else None
        context = Context() if place is None else self.follow(place)
        context.notes.append(f"{named(node)} is switched off, and played no part")
        return context

    def gather(self, inputs: Mapping[str, Place]) -> Context:
        """Texts are joined by line breaks, images make a batch, bundles are merged."""
        context = Context()
        for name in sorted(inputs, key=_number):
            place = origin(self._around, inputs[name])
            node = self._around.node(place.id)
            class_type = "" if node is None else node.class_type
            if class_type in WRITERS or (class_type == OURS and place.slot == 0):
                slot = 1 if class_type in WRITERS else 0
                context.texts.append(Place(place.id, slot, "STRING"))
            elif class_type in _READERS and place.slot == 0:
                self._merge(context, self.follow(place))
            else:
                self._add(context, inputs[name], name)
        return context

    def _merge(self, into: Context, other: Context) -> None:
        """What a later bundle says takes the place of what an earlier one said."""
        if other.provider:
            into.provider, into.model = other.provider, other.model
        into.music |= other.music
        into.texts = other.texts or into.texts
        into.images = other.images or into.images
        into.system = other.system or into.system
        into.folded |= other.folded
        into.notes += other.notes

    def _add(self, context: Context, place: Place, name: str) -> None:
        type_ = type_of(self._around, place)
        place = Place(place.id, place.slot, type_)
        if type_ == "STRING":
            context.texts.append(place)
        elif type_ == "IMAGE":
            context.images.append(place)
        elif type_ == "MASK":
            context.notes.append(f"the mask at '{name}' played no part in texts")
        else:
            what = f"a {type_}" if type_ not in ("", "*") else "something of an unknown type"
            raise NotMigratable(f"its Prompt Manager is given {what} at '{name}'")

    def _node(self, place: Place) -> Neighbor:
        place = origin(self._around, place)
        node = self._around.node(place.id)
        if node is None:
            raise NotMigratable("its context comes from outside, such as that of its subgraph")
        return node

    def _before(self, node: Neighbor) -> Context:
        """The context that a node adds to, and itself as part of it."""
        place = node.inputs.get("context")
        context = Context() if place is None else self.follow(place)
        context.folded[node.id] = node.class_type
        return context

    def _provider(self, node: Neighbor, **chosen: str) -> Context:
        context = self._before(node)
        context.provider = chosen
        context.model = node.inputs.get("llm_model")
        context.system = None  # which that pack keeps with the provider
        return context

    def select(self, node: Neighbor) -> Context:
        """APIProviderSelectorNode."""
        values = values_of(node, SELECTOR, _LINKABLE)
        return self._service(node, values["provider"], values)

    def one_provider(self, node: Neighbor) -> Context:
        """The nodes for one provider, which later versions no longer have."""
        values = values_of(node, ONE_MODEL, _LINKABLE)
        return self._service(node, _ONE_PROVIDER[node.class_type], values)

    def _service(self, node: Neighbor, name: str, values: Mapping[str, Any]) -> Context:
        context = self._provider(node, name=name, model=values.get("llm_model", "").strip())
        if values.get("external_api_key") or "external_api_key" in node.inputs:
            context.notes.append(_lost_key(node, name))
        return context

    def select_server(self, node: Neighbor) -> Context:
        """LLMToolkitProviderSelector."""
        values = {
            "base_ip": "localhost",
            "port": "11434",
            **values_of(node, SERVER, _LINKABLE),
        }
        model = values.get("llm_model", "").strip()
        return self._provider(
            node,
            name=values["llm_provider"],
            model="" if model == _NO_MODEL else model,
            address=f"{values['base_ip'].strip()}:{values['port'].strip()}",
        )

    def key(self, node: Neighbor) -> Context:
        """APIKeyInput."""
        values = values_of(node, KEY, linkable=("api_key",))
        context = self._before(node)
        if values.get("api_key") or "api_key" in node.inputs:
            context.notes.append(_lost_key(node, values["provider"]))
        return context

    def prompt_manager(self, node: Neighbor) -> Context:
        """LLMPromptManager."""
        context = self.gather(node.inputs)
        context.folded[node.id] = node.class_type
        return context

    def old_prompt_manager(self, node: Neighbor) -> Context:
        """PromptManager, as that pack had it before."""
        values = values_of(node, PROMPT, linkable=("text_prompt", "image", "mask"))
        if "video" in node.inputs or any(values.get(name) for name in PATHS):
            raise NotMigratable(f"{named(node)} sends a video, a file or an address")
        context = self._before(node)
        own = values.get("text_prompt", "").strip()
        if "text_prompt" in node.inputs:
            context.texts = [node.inputs["text_prompt"]]
        elif own:
            context.texts = [own]
        if "image" in node.inputs:
            context.images = [node.inputs["image"]]
        return context

    def system_prompt(self, node: Neighbor) -> Context:
        """SystemPromptTaskGenerator, whose text only the pack itself has."""
        values = values_of(node, TASK)
        context = self._before(node)
        del context.folded[node.id]
        place = Place(node.id, 1, "STRING")
        if values.get("output_as_text"):
            context.texts = [place]
        else:
            context.system = place
        task = values["task"]
        context.notes.append(f"the text of the task '{task}' is still that of {named(node)}")
        return context

    def music(self, node: Neighbor) -> Context:
        """ConfigGenerateMusic."""
        values = values_of(node, MUSIC)
        context = self._before(node)
        context.music |= values
        return context


def _number(name: str) -> tuple[int, str]:
    """`context`, `context_1`, ... `context_10` in their order."""
    number = name.rpartition("_")[2]
    return (int(number) if number.isdecimal() else 0), name


def _lost_key(node: Neighbor, provider: str) -> str:
    if provider.lower() in (*SERVERS, *LOCAL):
        return f"the key in {named(node)} was left out"
    return f"the key in {named(node)} was left out: set {key_variable(provider)} for ComfyUI"


_ONE_PROVIDER = {
    "OpenAIProviderNode": "openai",
    "GeminiProviderNode": "gemini",
    "GroqProviderNode": "groq",
    "SunoProviderSelector": "suno",
    "LocalTransformersProviderNode": "transformers",
}
_READERS: Mapping[str, Callable[[_Reader, Neighbor], Context]] = {
    "APIProviderSelectorNode": _Reader.select,
    "LLMToolkitProviderSelector": _Reader.select_server,
    **dict.fromkeys(_ONE_PROVIDER, _Reader.one_provider),
    "APIKeyInput": _Reader.key,
    "LLMPromptManager": _Reader.prompt_manager,
    "PromptManager": _Reader.old_prompt_manager,
    "SystemPromptTaskGenerator": _Reader.system_prompt,
    "ConfigGenerateMusic": _Reader.music,
}

"""What a person asks about images, in the form of either engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from ..defaults import VLM
from .decode.answer_reader import GenerationSettings
from .decode.sampling import Sampling
from .local_engine import LocalRequest
from .remote.openai_request import ChatRequest, Message
from .text.chat import ChatMessage
from .text.chat_prompt import ImagePart, Turn, VideoPart
from .vision.video import FrameSample

_SEEDS = 2**31  # not every server takes more


@dataclass(frozen=True, eq=False)
class Clip:
    """The frames `[T, H, W, C]` taken from a video, and when they were taken."""

    frames: torch.Tensor
    sample: FrameSample


@dataclass(frozen=True, eq=False)
class Question:
    """A prompt about images, each `[H, W, C]`, and at most one video; both come before the text.

    Attributes:
        history: the conversation that it goes on with; None where nothing will follow either.
        json_mode, json_schema: what servers are asked to keep the answer to, as `ChatRequest`.
    """

    text: str
    system: str = ""
    images: tuple[torch.Tensor, ...] = ()
    clip: Clip | None = None
    history: tuple[ChatMessage, ...] | None = None
    json_mode: bool = False
    json_schema: Mapping[str, Any] | None = None

    @property
    def media(self) -> list[torch.Tensor]:
        """Images and the video, as the local engine takes them; those of the history first."""
        return [*self._all_images, *([self.clip.frames] if self.clip else [])]

    @property
    def stills(self) -> list[torch.Tensor]:
        """Images and the frames of the video, as a server takes them; the history's first."""
        return [*self._all_images, *(self.clip.frames if self.clip else [])]

    @property
    def _all_images(self) -> list[torch.Tensor]:
        earlier = [image for message in self.history or () for image in message.images]
        return [*earlier, *self.images]


@dataclass(frozen=True)
class AnswerSettings:
    """How to answer.

    Attributes:
        max_tokens: bound on the answer.
        thinking_budget: bound on thinking beside it; 0 asks the model not to think, and None
            lets thinking count as part of the answer.
        sampling: None for that of the model's makers.
        stop: strings that end the answer, and do not belong to it.
    """

    max_tokens: int = VLM["max_tokens"]
    thinking_budget: int | None = None
    sampling: Sampling | None = None
    seed: int = 0
    stop: tuple[str, ...] = ()

    @property
    def template_options(self) -> dict[str, Any]:
        """Variables for chat templates; those that do not know them ignore them."""
        return {"enable_thinking": False} if self.thinking_budget == 0 else {}


def local_request(
    question: Question, settings: AnswerSettings, default_sampling: Sampling
) -> LocalRequest:
    """Return the request for the local engine; `default_sampling` is the model's own."""
    sampling = replace(settings.sampling or default_sampling, seed=settings.seed)
    parts: list[str | ImagePart | VideoPart] = [ImagePart() for _ in question.images]
    if question.clip is not None:
        parts.append(VideoPart(question.clip.sample))
    turns = [Turn("system", (question.system,))] if question.system else []
    turns += [
        Turn(message.role, (*(ImagePart() for _ in message.images), message.text))
        for message in question.history or ()
    ]
    turns.append(Turn("user", (*parts, question.text)))
    generation = GenerationSettings(
        settings.max_tokens, settings.thinking_budget, settings.stop, sampling
    )
    return LocalRequest(
        tuple(turns), generation, settings.template_options, question.history is not None
    )


def chat_request(
    question: Question, settings: AnswerSettings, image_keys: Sequence[str]
) -> ChatRequest:
    """Return the request for a server; `image_keys` are those of `question.stills`."""
    keys = iter(image_keys)
    messages = [Message("system", question.system)] if question.system else []
    messages += [
        Message(message.role, message.text, tuple(next(keys) for _ in message.images))
        for message in question.history or ()
    ]
    messages.append(Message("user", _with_times(question), tuple(keys)))
    extra: dict[str, Any] = {}
    if settings.template_options:
        extra["chat_template_kwargs"] = settings.template_options
    sampling = settings.sampling
    return ChatRequest(
        tuple(messages),
        max_tokens=settings.max_tokens + (settings.thinking_budget or 0),
        temperature=None if sampling is None else sampling.temperature,
        top_p=None if sampling is None else sampling.top_p,
        top_k=sampling.top_k if sampling is not None and sampling.top_k else None,
        seed=settings.seed % _SEEDS,
        stop=settings.stop,
        json_mode=question.json_mode,
        json_schema=question.json_schema,
        extra=extra,
    )


def _with_times(question: Question) -> str:
    """The text; a server sees a video as single images, so it is told when they were taken."""
    if question.clip is None:
        return question.text
    sample = question.clip.sample
    times = ", ".join(f"{index / sample.fps:.1f} s" for index in sample.indices)
    count = len(sample.indices)
    return f"The last {count} images are frames of a video, at {times}.\n\n{question.text}"

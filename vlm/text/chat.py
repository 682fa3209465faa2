"""A conversation as a value: immutable, so that branches of it know nothing of each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch


@dataclass(frozen=True, eq=False)
class ChatMessage:
    """What one side said; images `[H, W, C]` come before the text.

    Attributes:
        thinking: shown to people only; models do not read again what they thought.
    """

    role: Literal["user", "assistant"]
    text: str
    images: tuple[torch.Tensor, ...] = ()
    thinking: str = ""


@dataclass(frozen=True, eq=False)
class Chat:
    """Messages in turn, the user's first, and the system prompt that they are under."""

    system: str = ""
    messages: tuple[ChatMessage, ...] = ()

    def asked(self, text: str, images: tuple[torch.Tensor, ...] = ()) -> Chat:
        """This conversation and a question. Its images are copies, which nobody else can change."""
        copies = tuple(image.detach().to("cpu", copy=True) for image in images)
        return Chat(self.system, (*self.messages, ChatMessage("user", text, copies)))

    def answered(self, text: str, thinking: str = "") -> Chat:
        """This conversation and an answer."""
        message = ChatMessage("assistant", text, thinking=thinking)
        return Chat(self.system, (*self.messages, message))

    def __str__(self) -> str:
        """The conversation as Markdown, for people; images by their size."""
        parts = [f"### system\n\n{self.system}"] if self.system else []
        for message in self.messages:
            sizes = [f"[image {image.shape[1]}x{image.shape[0]}]" for image in message.images]
            lines = [*sizes, message.text] if message.text else sizes
            if message.thinking:
                lines.insert(0, "\n".join(f"> {line}" for line in message.thinking.splitlines()))
            parts.append(f"### {message.role}\n\n" + "\n\n".join(lines))
        return "\n\n".join(parts) + "\n" if parts else ""

    def __repr__(self) -> str:
        return f"<Chat: {len(self.messages)} messages>"

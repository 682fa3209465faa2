"""One turn of a conversation for a node: the answer, and the conversation with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch

from ...vlm.json_answer import JsonForm, ask_json
from ...vlm.question import AnswerSettings, Question
from ...vlm.remote.openai_reply import Reply
from ...vlm.remote.token_count import Prices, TokenCount
from ...vlm.text.chat import Chat
from .vlm_answer import LiveSession, question_of
from .vlm_session import LocalChoice, ServerChoice


@dataclass(frozen=True)
class TurnSettings:
    """How to answer; `json` is None for plain text."""

    answer: AnswerSettings
    json: JsonForm | None = None
    prices: Prices = field(default_factory=Prices)
    quality: str = "balanced"
    use_cache: bool = True


@dataclass(frozen=True)
class TurnResult:
    """The answer, the conversation that ends with it, what it took, and a report in Markdown."""

    reply: Reply
    chat: Chat
    tokens: TokenCount
    report: str


def take_turn(
    choice: LocalChoice | ServerChoice,
    chat: Chat,
    text: str,
    images: Sequence[torch.Tensor],
    settings: TurnSettings,
    node_id: str | None,
) -> TurnResult:
    """Ask a question about ComfyUI's images, `[B, H, W, C]` each, in a conversation.

    The conversation that comes back has the question as it was sent and the last answer, but not
    those answers that were no JSON.

    Raises:
        ValueError: the model, an image, a setting or the answer cannot be used.
        RemoteError: the server gave no reply.
    """
    question = replace(question_of(text, chat.system, images), history=chat.messages)
    replies: list[Reply] = []
    with LiveSession(
        choice, settings.answer, settings.quality, settings.use_cache, node_id
    ) as session:

        def ask(asked: Question) -> Reply:
            reply = session.ask(asked)
            replies.append(reply)
            return reply

        if settings.json is None:
            reply = ask(question)
        else:
            reply, question = ask_json(ask, question, settings.json)
    tokens = TokenCount.of(replies, settings.prices)
    chat = chat.asked(question.text, question.images).answered(reply.text, reply.thinking)
    return TurnResult(reply, chat, tokens, session.report() + tokens.markdown())

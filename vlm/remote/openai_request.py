"""The request side of the chat-completions protocol, without any network.

vLLM, SGLang, llama.cpp, Ollama and LM Studio all take this form.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

COMPLETION_BOUND = "max_completion_tokens"
_MOST_STOPS = 4  # that the protocol allows; the reader of the reply looks for all of them
_SIGNATURES = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg"}


@dataclass(frozen=True)
class Message:
    """One turn of a conversation; `images` are keys, and go before the text."""

    role: Literal["system", "user", "assistant"]
    text: str
    images: tuple[str, ...] = ()


@dataclass(frozen=True)
class ChatRequest:
    """A conversation and how to continue it. What is None is left to the server.

    Attributes:
        messages: system prompt first, then the history, then the question.
        max_tokens: bound on thinking and answer together.
        stop: strings that end the answer, and do not belong to it.
        json_mode: ask for any JSON object.
        json_schema: ask for JSON of this schema; includes `json_mode`.
        thinking_opened: the server's chat template opens the thinking, and the server does not
            split it off. Without it the same is found out when the closing tag comes.
        extra: further fields of the body, such as ``{"chat_template_kwargs": {...}}``.
    """

    messages: tuple[Message, ...]
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    json_mode: bool = False
    json_schema: Mapping[str, Any] | None = None
    thinking_opened: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)


class DataUrls:
    """Data URLs of the images of one engine call: each encoded once, kept until its last use.

    Raises:
        ValueError: a message names an image that is not there, or one is neither PNG nor JPEG.
    """

    def __init__(self, images: Mapping[str, bytes], requests: Iterable[ChatRequest]) -> None:
        self.encoded = 0
        self._images = images
        self._urls: dict[str, str] = {}
        self._uses = Counter(
            key for request in requests for message in request.messages for key in message.images
        )
        self._types = {key: _media_type(key, images.get(key)) for key in self._uses}

    def take(self, key: str) -> str:
        """The URL of an image, for one of its uses."""
        url = self._urls.get(key)
        if url is None:
            self.encoded += 1
            coded = base64.b64encode(self._images[key]).decode("ascii")
            url = self._urls[key] = f"data:{self._types[key]};base64,{coded}"
        self._uses[key] -= 1
        if self._uses[key] <= 0:
            del self._urls[key]
        return url


def _media_type(key: str, image: bytes | None) -> str:
    if image is None:
        raise ValueError(f"a message names image '{key}', which was not given")
    for signature, media_type in _SIGNATURES.items():
        if image.startswith(signature):
            return media_type
    raise ValueError(f"image '{key}' is neither PNG nor JPEG; encode it as one of them")


def request_body(model: str, request: ChatRequest, urls: DataUrls) -> bytes:
    """The JSON body of a streaming request.

    Raises:
        ValueError: a number that JSON does not have, or an `extra` that is no JSON.
    """
    body: dict[str, Any] = {
        "model": model,
        "messages": [_message(message, urls) for message in request.messages],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    for name in ("max_tokens", "temperature", "top_p", "top_k", "seed"):
        if getattr(request, name) is not None:
            body[name] = getattr(request, name)
    if request.stop:
        body["stop"] = list(request.stop[:_MOST_STOPS])
    if request.json_schema is not None:
        schema = {"name": "answer", "strict": True, "schema": request.json_schema}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif request.json_mode:
        body["response_format"] = {"type": "json_object"}
    body.update(request.extra)
    try:
        return json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
    except TypeError as error:
        raise ValueError(f"the request cannot be written as JSON ({error})") from None


def with_completion_bound(body: bytes) -> bytes:
    """The same body with the bound of the answer under the name that OpenAI's newer models want.

    They refuse `max_tokens`, which is the only name that most other servers know.
    """
    content = json.loads(body)
    if "max_tokens" not in content:
        return body
    content[COMPLETION_BOUND] = content.pop("max_tokens")
    return json.dumps(content, ensure_ascii=False).encode()


def _message(message: Message, urls: DataUrls) -> dict[str, Any]:
    if not message.images:
        return {"role": message.role, "content": message.text}
    parts: list[dict[str, Any]] = [
        {"type": "image_url", "image_url": {"url": urls.take(key)}} for key in message.images
    ]
    return {"role": message.role, "content": [*parts, {"type": "text", "text": message.text}]}

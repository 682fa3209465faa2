"""The local engine: answers about images from a loaded model, one request or a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import torch

from .decode.answer_reader import GenerationSettings
from .decode.generate import Generated, generate
from .decode.prefill import Prefilled, prefill
from .decode.prefix_cache import PrefixCache
from .engine_report import EngineReport
from .local_model import LocalModel
from .remote.openai_reply import Reply, Usage
from .text.chat_prompt import Prompt, Turn
from .text.thinking import Piece
from .vision.embedding_cache import EmbeddingCache
from .vision.image_embeddings import Embedded, EmbedReport, embed_images


@dataclass(frozen=True)
class LocalRequest:
    """A conversation and how to continue it.

    Attributes:
        template_options: variables for the chat template, such as ``enable_thinking``.
        keep_whole: all of the prompt is kept as a beginning of others, as a conversation goes on.
    """

    turns: tuple[Turn, ...]
    settings: GenerationSettings = field(default_factory=GenerationSettings)
    template_options: Mapping[str, Any] = field(default_factory=dict)
    keep_whole: bool = False


@dataclass(frozen=True)
class LocalReply:
    """An answer, and what it took; a batch has one report for all of its replies."""

    reply: Reply
    tokens: tuple[int, ...]
    report: EngineReport


class LocalEngine:
    """Answers with one model.

    Args:
        embeddings: where image embeddings are kept; None to keep none.
        prefixes: where beginnings of prompts are kept; None to keep none.
    """

    def __init__(
        self,
        model: LocalModel,
        embeddings: EmbeddingCache | None = None,
        prefixes: PrefixCache | None = None,
    ) -> None:
        self.model = model
        self.embeddings = embeddings
        self.prefixes = prefixes

    def answer(
        self,
        request: LocalRequest,
        images: Sequence[torch.Tensor] = (),
        quality: str = "balanced",
        *,
        enlarge: bool = False,
        on_piece: Callable[[Piece], None] = lambda piece: None,
        interrupt: Callable[[], None] = lambda: None,
    ) -> LocalReply:
        """Answer one request.

        Args:
            images: `[H, W, C]`, or `[T, H, W, C]` for a video, in the order of their places.
            quality, enlarge: as `embed_images`.
            on_piece: is given each piece of text as soon as it is complete.
            interrupt: is called before each image and each token, and may raise. What it raises
                reaches the caller; images encoded by then are kept.

        Raises:
            ValueError: an image cannot be used, or is not where the conversation places it.
            ChatTemplateError: the model's chat template cannot express the conversation.
        """
        return self.answer_batch(
            [request],
            [images],
            quality,
            enlarge=enlarge,
            on_piece=lambda _, piece: on_piece(piece),
            interrupt=interrupt,
        )[0]

    def answer_batch(
        self,
        requests: Sequence[LocalRequest],
        images: Sequence[Sequence[torch.Tensor]],
        quality: str = "balanced",
        *,
        enlarge: bool = False,
        on_piece: Callable[[int, Piece], None] = lambda index, piece: None,
        interrupt: Callable[[], None] = lambda: None,
    ) -> list[LocalReply]:
        """Answer several requests together: each distinct image is encoded once for all of them.

        Raises:
            ValueError, ChatTemplateError: as for `answer`, for any of the requests.
        """
        if not requests:
            return []
        embedded = self._embed([i for own in images for i in own], quality, enlarge, interrupt)
        parts = _parts(images)
        started = perf_counter()
        prompts = [
            self._prompt(request, own, embedded)
            for request, own in zip(requests, parts, strict=True)
        ]
        interrupt()
        whole = any(request.keep_whole for request in requests)
        state = self._prefill(prompts, parts, embedded, whole)
        prefill_ms = (perf_counter() - started) * 1000
        answers, decoded = generate(
            self.model.language,
            self.model.tokenizer,
            prompts,
            state,
            [request.settings for request in requests],
            self.model.eos_ids,
            on_piece,
            interrupt,
            compile_mode=self.model.compile_decode,
            graphs=self.model.decode_graphs,
        )
        report = EngineReport(
            embedded.report,
            prompt_tokens=sum(len(prompt.ids) for prompt in prompts),
            computed_tokens=state.computed,
            new_tokens=decoded.new_tokens,
            prefill_ms=prefill_ms,
            decode_ms=decoded.milliseconds,
            decode_warmup_ms=decoded.warmup_ms,
            decode_eager_reason=decoded.eager_reason,
        )
        kept = report.prompt_tokens - report.computed_tokens  # of a batch nothing is
        return [
            self._reply(prompt, answer, report, kept)
            for prompt, answer in zip(prompts, answers, strict=True)
        ]

    def _embed(
        self,
        images: Sequence[torch.Tensor],
        quality: str,
        enlarge: bool,
        interrupt: Callable[[], None],
    ) -> Embedded:
        model = self.model
        if not images:
            return Embedded([], EmbedReport(), [])
        if model.tower is None or model.pixel_format is None:
            raise ValueError("The model takes no images. Choose a vision-language model")
        return embed_images(
            images,
            model.tower,
            model.pixel_format,
            model.identity,
            quality,
            self.embeddings,
            enlarge=enlarge,
            interrupt=interrupt,
        )

    def _prompt(self, request: LocalRequest, own: range, embedded: Embedded) -> Prompt:
        grids = [embedded.report.grids[place].grid_thw for place in own]
        return self.model.prompts.build(request.turns, grids, **request.template_options)

    def _prefill(
        self, prompts: Sequence[Prompt], parts: Sequence[range], embedded: Embedded, whole: bool
    ) -> Prefilled:
        language = self.model.language
        images = [[embedded.embeddings[place] for place in own] for own in parts]
        if self.prefixes is None or len(prompts) != 1:
            state = prefill(language, prompts, images)
        else:
            start = self.prefixes.start(language, prompts[0], embedded.keys)
            state = prefill(language, prompts, images, start)
            self.prefixes.keep(language, prompts[0], embedded.keys, state.cache, whole)
        if state.logits.is_cuda:
            torch.cuda.synchronize(state.logits.device)  # or the time would count as decoding
        return state

    def _reply(
        self, prompt: Prompt, answer: Generated, report: EngineReport, kept: int
    ) -> LocalReply:
        usage = Usage(len(prompt.ids), len(answer.tokens), answer.thinking_tokens, kept)
        reply = Reply(
            answer.text,
            answer.thinking,
            answer.finish_reason,
            usage,
            self.model.identity.model_id,
        )
        return LocalReply(reply, answer.tokens, report)


def _parts(images: Sequence[Sequence[torch.Tensor]]) -> list[range]:
    """Where the images of each request are among those of all requests."""
    parts: list[range] = []
    start = 0
    for own in images:
        parts.append(range(start, start + len(own)))
        start += len(own)
    return parts

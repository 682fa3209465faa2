"""Answers to questions about images, by a local model in ComfyUI's memory or by a server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from pathlib import Path
from time import perf_counter
from typing import Protocol

import torch
from comfy import model_management

from ...defaults import VLM
from ...hub.model_folders import CONFIG, read_json
from ...vlm.decode.prefix_cache import PrefixCache
from ...vlm.engine_report import EngineReport
from ...vlm.loading.headroom import headroom_bytes
from ...vlm.loading.load_options import DTYPES, LoadOptions
from ...vlm.local_engine import LocalEngine
from ...vlm.question import AnswerSettings, Question, chat_request, local_request
from ...vlm.remote.openai_reply import Reply, Usage
from ...vlm.remote.remote_engine import RemoteEngine
from ...vlm.remote.remote_errors import RemoteError
from ...vlm.remote.remote_retry import RemoteSettings
from ...vlm.remote.secret import Secret
from ...vlm.text.thinking import Piece
from ...vlm.vision.embedding_cache import EmbeddingCache
from ...vlm.vision.image_file import encoded_images
from ...vlm.vision.quality import QUALITIES
from .vlm_models import ModelPool

EMBEDDINGS = EmbeddingCache()
PREFIXES = PrefixCache()
POOL = ModelPool(on_unload=lambda local: PREFIXES.clear(local.model))

_TEXT_TOKENS = 2048  # allowed for in the memory of prompts, beside images
_TOKEN_PIXELS = 28 * 28

OnPiece = Callable[[int, Piece], None]
Tick = Callable[[], None]


@dataclass(frozen=True)
class LocalChoice:
    """A model folder, how to load it, and whether it may stay in memory afterwards."""

    path: Path
    options: LoadOptions
    keep_loaded: bool = True


@dataclass(frozen=True)
class ServerChoice:
    """A server, a model there, and where the API key lies, if the server wants one."""

    address: str
    model: str
    key: Secret | None = None
    timeout: float = VLM["engine.timeout"]
    concurrency: int = VLM["engine.concurrency"]


class Session(Protocol):
    """Answers questions with one model; a context manager."""

    def ask(
        self, questions: Sequence[Question], on_piece: OnPiece, tick: Tick
    ) -> list[Reply | RemoteError]:
        """Answer several questions together, in their order.

        Args:
            on_piece: is given the number of the question and each piece of text.
            tick: is called for each token, or piece of text; interrupts are looked for before.
        """
        ...

    def report(self) -> str:
        """What all of it took, as Markdown."""
        ...

    def close(self) -> None:
        """Give back what shall not be kept."""
        ...


def open_session(
    choice: LocalChoice | ServerChoice,
    settings: AnswerSettings,
    quality: str,
    use_cache: bool,
) -> Session:
    """Return the session for a choice.

    Raises:
        ValueError: as `RemoteEngine`, for a server.
    """
    if isinstance(choice, ServerChoice):
        return ServerSession(choice, settings, quality)
    return LocalSession(choice, settings, quality, use_cache)


class LocalSession:
    """Answers by a model on this machine."""

    def __init__(
        self, choice: LocalChoice, settings: AnswerSettings, quality: str, use_cache: bool
    ) -> None:
        device = str(model_management.get_torch_device())
        self._choice = replace(choice, options=replace(choice.options, device=device))
        self._settings, self._quality, self._use_cache = settings, quality, use_cache
        self._reports: list[EngineReport] = []
        self._load_ms = 0.0
        self._vision = ""
        self._patcher = None

    def ask(
        self, questions: Sequence[Question], on_piece: OnPiece, tick: Tick
    ) -> list[Reply | RemoteError]:
        def interrupt() -> None:
            model_management.throw_exception_if_processing_interrupted()
            tick()

        options = self._choice.options
        started = perf_counter()
        model, self._patcher = POOL.load(self._choice.path, options, self._headroom(questions))
        self._load_ms += (perf_counter() - started) * 1000
        model.compile_decode = options.compile_decode
        if model.tower is not None:
            model.tower.compile_mode = options.compile_vision
        engine = LocalEngine(
            model, EMBEDDINGS if self._use_cache else None, PREFIXES if self._use_cache else None
        )
        default = model.default_sampling()
        requests = [local_request(question, self._settings, default) for question in questions]
        media = [question.media for question in questions]
        # ComfyUI's inference mode would make tensors that outlive it, in caches, of no use.
        with torch.inference_mode(False), torch.no_grad():
            replies = engine.answer_batch(
                requests, media, self._quality, on_piece=on_piece, interrupt=interrupt
            )
        self._reports.append(replies[0].report)
        if model.tower is not None and any(media):
            reason = model.tower.eager_reason
            self._vision = "compiled" if reason is None else f"not compiled ({reason})"
        return [reply.reply for reply in replies]

    def _headroom(self, questions: Sequence[Question]) -> int:
        budget = QUALITIES.get(self._quality, QUALITIES["ultra"]).max_pixels // _TOKEN_PIXELS
        stills = sum(len(question.stills) for question in questions)
        written = self._settings.max_tokens + (self._settings.thinking_budget or 0)
        tokens = budget * stills + len(questions) * (_TEXT_TOKENS + written)
        itemsize = DTYPES[self._choice.options.dtype].itemsize
        return headroom_bytes(read_json(self._choice.path, CONFIG), tokens, itemsize)

    def report(self) -> str:
        if not self._reports:
            return "Nothing was asked."
        lines = [f"- model: {self._choice.path.name}, {self._load_ms:.0f} ms to have it in place"]
        if self._vision:
            lines.append(f"- vision encoder: {self._vision}")
        return reduce(add, self._reports).markdown() + "\n".join(lines) + "\n"

    def close(self) -> None:
        if self._patcher is not None and not self._choice.keep_loaded:
            POOL.drop(self._patcher)


class ServerSession:
    """Answers by a server."""

    def __init__(self, choice: ServerChoice, settings: AnswerSettings, quality: str) -> None:
        patience = RemoteSettings(read_timeout=choice.timeout)
        self._engine = RemoteEngine(choice.address, choice.model, choice.key, patience)
        self._choice, self._settings, self._quality = choice, settings, quality
        self._seconds = 0.0
        self._prepare_ms = 0.0
        self._asked = 0
        self._not_counted = 0

    def ask(
        self, questions: Sequence[Question], on_piece: OnPiece, tick: Tick
    ) -> list[Reply | RemoteError]:
        def piece(index: int, piece: Piece) -> None:
            on_piece(index, piece)
            tick()

        def cancelled() -> bool:
            model_management.throw_exception_if_processing_interrupted()
            return False

        started = perf_counter()
        stills = [still for question in questions for still in question.stills]
        keys, files = encoded_images(stills, self._quality)
        self._prepare_ms += (perf_counter() - started) * 1000
        remaining = iter(keys)
        requests = [
            chat_request(question, self._settings, [next(remaining) for _ in question.stills])
            for question in questions
        ]
        self._asked += len(requests)
        started = perf_counter()
        outcomes = self._engine.generate_batch(
            requests, files, self._choice.concurrency, piece, None, cancelled
        )
        self._seconds += perf_counter() - started
        self._not_counted += sum(isinstance(o, Reply) and not o.counted for o in outcomes)
        return list(outcomes)

    def report(self) -> str:
        usage: Usage = self._engine.usage
        lines = (
            f"- prompt: {usage.prompt} tokens, {usage.cached} of them kept by the server\n"
            f"- answer: {usage.completion} tokens, {usage.reasoning} of them thinking\n"
        )
        if self._not_counted:
            lines += f"- not counted by the server: the tokens of {self._not_counted} answers\n"
        return (
            "| stage | ms |\n|---|---:|\n"
            f"| images | {self._prepare_ms:.1f} |\n| server | {self._seconds * 1000:.1f} |\n\n"
            f"- model: {self._choice.model} at {self._engine.server}\n"
            f"- images: {self._engine.images_encoded} sent for {self._asked} requests\n"
            f"{lines}"
        )

    def close(self) -> None:
        pass

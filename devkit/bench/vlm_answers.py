"""Answering about an image: our engine beside `generate` of plain transformers, both greedy."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch

from ...vlm.decode.answer_reader import GenerationSettings
from ...vlm.decode.prefix_cache import PrefixCache
from ...vlm.local_engine import LocalEngine, LocalReply, LocalRequest
from ...vlm.local_model import LocalModel
from ...vlm.text.chat_prompt import ImagePart, Turn
from ...vlm.vision.embedding_cache import EmbeddingCache
from ...vlm.vision.quality import budget_of
from .harness import Result, Target, Timings, spread
from .vlm_images import Bed
from .vlm_models import build_processor

QUALITY = "fast"
QUESTION = "Describe the image."
_DECODE_TARGET = Target("at least", 1.5)


@dataclass(frozen=True)
class AnswerPlan:
    """How many tokens to write, how often, and how many layers the language model has."""

    tokens: int
    rounds: int
    layers: int | None


class _Clock:
    """A streamer of transformers, which is given the prompt and then each token."""

    def __init__(self) -> None:
        self._times: list[float] = []

    def put(self, value: torch.Tensor) -> None:
        """Note when a token was there."""
        self._times.append(perf_counter())

    def end(self) -> None:
        """Nothing is left to do after the last token."""

    @property
    def seconds(self) -> float:
        """From the first token to the last."""
        return self._times[-1] - self._times[1]


class _Answers:
    def __init__(self, bed: Bed, model: Any, tokenizer: Any) -> None:
        self._bed = bed
        self._model = model
        tower = bed.towers["eager"]
        self._local = LocalModel(model, tokenizer, bed.identity, tower, bed.pixel_format)
        self._local.eos_ids = frozenset()
        self._engine = self.new_engine()
        self._processor = build_processor(bed.shape, budget_of(QUALITY), tokenizer)

    def new_engine(self) -> LocalEngine:
        return LocalEngine(self._local, EmbeddingCache(), PrefixCache())

    def forget(self) -> None:
        """Change the image, and start with empty caches."""
        self._bed.change()
        self._engine = self.new_engine()

    def ours(self, tokens: int) -> tuple[int, float]:
        """Answer, and return the number of tokens and the seconds of decoding."""
        turn = Turn("user", (ImagePart(), QUESTION))
        request = LocalRequest((turn,), GenerationSettings(max_new_tokens=tokens))
        reply: LocalReply = self._engine.answer(request, self._bed.images[:1], QUALITY)
        return len(reply.tokens), reply.report.decode_ms / 1000

    @torch.no_grad()
    def plain(self, tokens: int) -> tuple[int, float]:
        """The same from plain transformers."""
        content = [{"type": "image"}, {"type": "text", "text": QUESTION}]
        text = self._processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )
        image = self._bed.plain_images[0]
        inputs = self._processor(text=[text], images=[image], return_tensors="pt")
        inputs = inputs.to(self._bed.device)
        clock = _Clock()
        output = self._model.generate(
            **inputs, max_new_tokens=tokens, do_sample=False, streamer=clock
        )
        return output.shape[1] - inputs["input_ids"].shape[1], clock.seconds


def measure(
    bed: Bed, model: Any, tokenizer: Any, plan: AnswerPlan
) -> tuple[list[Result], dict[str, Any]]:
    """Time whole answers of many tokens and of one, and decoding as each side tells it."""
    answers, timings, many = _Answers(bed, model, tokenizer), Timings(bed.device), plan.tokens
    answers.plain(2)
    answers.ours(2)
    for _ in range(plan.rounds):
        timings.time("plain, one token", lambda: answers.plain(1))
        theirs = timings.time("plain, all tokens", lambda: answers.plain(many))
        answers.forget()
        timings.time("ours, new image, one token", lambda: answers.ours(1))
        answers.forget()
        ours = timings.time("ours, new image, all tokens", lambda: answers.ours(many))
        timings.time("ours, seen image, one token", lambda: answers.ours(1))
        timings.time("ours, seen image, all tokens", lambda: answers.ours(many))
        for who, (tokens, seconds) in (("plain", theirs), ("ours", ours)):
            if tokens != many:
                raise RuntimeError(f"{who}: {tokens} tokens, not {many}")
            timings.seconds.setdefault(f"{who}, decoding", []).append(seconds)
    layers, published = model.config.text_config.num_hidden_layers, bed.shape.text_layers
    case = f"{bed.shape.name} {layers}/{published} layers, {many} tokens"
    details = {
        "case": case,
        "vision_tower": bed.case,
        "milliseconds": timings.summary(),
    }
    return _results(case, timings, bed.device), details


def _results(case: str, timings: Timings, device: str) -> list[Result]:
    ratio = spread(timings.ratios("plain, decoding", "ours, decoding"))
    reason = None if _DECODE_TARGET.hit(ratio["median"]) else _reason(device)
    found = [Result(case, "decode: plain / ours", ratio, _DECODE_TARGET, reason)]
    for state in ("new", "seen"):
        for what in ("one token", "all tokens"):
            ratios = timings.ratios(f"plain, {what}", f"ours, {state} image, {what}")
            label = f"answer: plain / ours, {state} image, {what}"
            found.append(Result(case, label, spread(ratios)))
    return found


def _reason(device: str) -> str:
    shared = "both call the same layers of transformers for every token, and "
    if device == "cpu":
        return shared + "reading their weights from memory takes nearly all of the time"
    return shared + "launching their kernels takes most of the time, which neither side captures"

"""The decode loop: from prompts that have been read to answers, one token of each at a time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch

from ..text.chat_prompt import Prompt
from ..text.thinking import Piece
from .answer_reader import AnswerReader, FinishReason, GenerationSettings
from .decode_graphs import DECODE_GRAPHS, DecodeGraphs
from .language_model import LanguageModel
from .prefill import Prefilled
from .sampling import Sampler
from .stepper import Stepper


@dataclass(frozen=True)
class Generated:
    """One answer.

    Attributes:
        tokens: its token ids, thinking and tags included, without the one that ended it.
        thinking_tokens: how many of them are thinking, without the tags.
        finish_reason: "stop", or "length" where a bound cut it off.
    """

    text: str
    thinking: str
    tokens: tuple[int, ...]
    thinking_tokens: int
    finish_reason: FinishReason


@dataclass(frozen=True)
class DecodeReport:
    """What decoding took.

    Attributes:
        new_tokens: of all sequences together, those that ended an answer included.
        milliseconds: from the first token on, without compiling.
        warmup_ms: what compiling took, also where it failed.
        eager_reason: why the last step was not compiled; None if it was.
    """

    new_tokens: int
    milliseconds: float
    warmup_ms: float
    eager_reason: str | None

    @property
    def tokens_per_second(self) -> float:
        return self.new_tokens / self.milliseconds * 1000 if self.milliseconds else 0.0


def generate(
    language: LanguageModel,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    state: Prefilled,
    settings: Sequence[GenerationSettings],
    eos_ids: Collection[int],
    on_piece: Callable[[int, Piece], None] = lambda index, piece: None,
    interrupt: Callable[[], None] = lambda: None,
    *,
    compile_mode: str = "auto",
    graphs: DecodeGraphs = DECODE_GRAPHS,
) -> tuple[list[Generated], DecodeReport]:
    """Continue each prompt until its answer ends. Keys and values are given back at the end.

    Args:
        prompts: those that `state` was made of.
        settings: of each prompt.
        on_piece: is given the number of the prompt and each piece of text as it is complete.
        interrupt: is called before each token, and may raise.
        compile_mode, graphs: as `Stepper` takes them.

    Raises:
        RuntimeError: the model computes no numbers, as half precision overflows do.
    """
    started = perf_counter()
    readers = [
        AnswerReader(tokenizer, prompt.ids, own, eos_ids)
        for prompt, own in zip(prompts, settings, strict=True)
    ]
    samplers = [
        Sampler(own.sampling, prompt.ids, state.logits.device)
        for prompt, own in zip(prompts, settings, strict=True)
    ]
    most = max(reader.most_tokens for reader in readers)
    stepper = Stepper(language, state, most, compile_mode, graphs)
    new_tokens = 0
    try:
        while True:
            interrupt()
            tokens = _choose(state.logits, readers, samplers)
            for index, (reader, sampler) in enumerate(zip(readers, samplers, strict=True)):
                if reader.finish_reason is not None:
                    continue
                new_tokens += 1
                sampler.push(tokens[index])
                for piece in reader.push(tokens[index]):
                    on_piece(index, piece)
            if all(reader.finish_reason is not None for reader in readers):
                break
            stepper.step(tokens)
    finally:
        stepper.close()
    answers = [
        Generated(
            reader.text,
            reader.thinking,
            tuple(reader.tokens),
            reader.thinking_tokens,
            reader.finish_reason,
        )
        for reader in readers
        if reader.finish_reason is not None
    ]
    took = (perf_counter() - started) * 1000 - stepper.warmup_ms
    return answers, DecodeReport(new_tokens, took, stepper.warmup_ms, stepper.eager_reason)


def _choose(
    logits: torch.Tensor, readers: Sequence[AnswerReader], samplers: Sequence[Sampler]
) -> list[int]:
    """Return the next token of each sequence; finished ones just get any."""
    sound = logits.amax(-1, keepdim=True).isfinite()  # NaN stays NaN
    # Sampling from NaN would stop the whole process on CUDA, before it can be said what is wrong.
    usable = logits.where(sound, 0)
    chosen = [
        logits.new_zeros((), dtype=torch.long)
        if reader.finish_reason is not None or reader.forced() is not None
        else sampler.choose(row)
        for row, reader, sampler in zip(usable, readers, samplers, strict=True)
    ]
    # One wait for the device: whether the numbers are sound comes along with the tokens.
    *tokens, all_sound = torch.stack((*chosen, sound.all().long())).tolist()
    if not all_sound:
        raise RuntimeError(
            "The model computes no usable numbers. Load it with another dtype, attention or "
            "quantization"
        )
    return [
        forced if (forced := reader.forced()) is not None else token
        for reader, token in zip(readers, tokens, strict=True)
    ]

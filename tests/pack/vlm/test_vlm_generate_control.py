"""How answers end, are split, interrupted, and chosen at random."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from vivace.devkit.doubles.small_vlm import text_model, token_id, tokenizer
from vivace.vlm.decode import generate as generate_module
from vivace.vlm.decode.answer_reader import AnswerReader, GenerationSettings
from vivace.vlm.decode.language_model import LanguageModel
from vivace.vlm.decode.sampling import Sampling
from vivace.vlm.local_engine import LocalEngine, LocalRequest
from vivace.vlm.text.chat_prompt import Turn
from vivace.vlm.text.detokenizer import Detokenizer, StopText
from vivace.vlm.text.thinking import Piece


class Writer:
    """Makes the language model write given token ids, whatever it reads."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tokens: Sequence[int]) -> None:
        self.steps = 0
        self.caches: list[weakref.ref[Any]] = []
        real = LanguageModel.forward

        def forward(
            language: LanguageModel,
            embeddings: torch.Tensor,
            positions: torch.Tensor,
            text_positions: torch.Tensor,
            mask: torch.Tensor | None,
            cache: Any,
            *more: Any,
        ) -> torch.Tensor:
            logits = real(language, embeddings, positions, text_positions, mask, cache, *more)
            self.caches.append(weakref.ref(cache))
            wanted = tokens[min(self.steps, len(tokens) - 1)]
            self.steps += 1
            return torch.full_like(logits, -9.0).index_fill(1, torch.tensor([wanted]), 9.0)

        monkeypatch.setattr(LanguageModel, "forward", forward)


def ids(text: str) -> list[int]:
    return tokenizer().encode(text)


def request(think: bool = False, **settings: Any) -> LocalRequest:
    turns = (Turn("user", ("Go.",)),)
    return LocalRequest(turns, GenerationSettings(**settings), {"think": think})


END = "<|im_end|>"


def test_an_answer_ends_with_its_token(monkeypatch: pytest.MonkeyPatch) -> None:
    writer = Writer(monkeypatch, ids(f"All's well that ends{END}never"))
    pieces: list[Piece] = []
    found = LocalEngine(text_model()).answer(request(), on_piece=pieces.append)
    assert found.reply.text == "All's well that ends"
    assert (found.reply.finish_reason, found.reply.thinking) == ("stop", "")
    assert found.tokens == tuple(ids("All's well that ends"))
    assert writer.steps == len(found.tokens) + 1 == found.report.new_tokens
    assert {piece.kind for piece in pieces} == {"answer"}
    assert len(pieces) > 2


def test_an_answer_of_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    Writer(monkeypatch, ids(END))
    found = LocalEngine(text_model()).answer(request())
    assert (found.reply.text, found.tokens) == ("", ())


@pytest.mark.parametrize("tokens", [1, 5])
def test_length_is_bounded(monkeypatch: pytest.MonkeyPatch, tokens: int) -> None:
    writer = Writer(monkeypatch, ids("a" * 100))
    found = LocalEngine(text_model()).answer(request(max_new_tokens=tokens))
    assert (len(found.tokens), found.reply.finish_reason) == (tokens, "length")
    assert writer.steps == tokens


def test_stop_strings_end_the_answer_and_are_no_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    writer = Writer(monkeypatch, ids("To be, or not to be, that is the question"))
    pieces: list[Piece] = []
    found = LocalEngine(text_model()).answer(
        request(stop=("t to b", "zzz")), on_piece=pieces.append
    )
    assert found.reply.text == "".join(piece.text for piece in pieces) == "To be, or no"
    assert found.reply.finish_reason == "stop"
    assert writer.steps < len(ids("To be, or not to be, that"))


@pytest.mark.parametrize("cut", range(1, 12))
def test_stop_strings_cut_anywhere(cut: int) -> None:
    text = "a<<bc>>d<<END>>e"
    stop = StopText(("<<END>>", "never"))
    found = stop.push(text[:cut]) + stop.push(text[cut:])
    assert (found, stop.stopped) == ("a<<bc>>d", True)
    free = StopText(("<<END>>",))
    assert free.push("a<<E") + free.push("N") + free.finish() == "a<<EN"
    assert not free.stopped


def test_thinking_is_split_by_its_tags(monkeypatch: pytest.MonkeyPatch) -> None:
    written = ids(f"<think>\nor not\n</think>\n\nTo be{END}")
    Writer(monkeypatch, written)
    pieces: list[Piece] = []
    found = LocalEngine(text_model()).answer(request(), on_piece=pieces.append)
    assert (found.reply.thinking, found.reply.text) == ("or not", "To be")
    assert "".join(p.text for p in pieces if p.kind == "thinking").strip() == "or not"
    assert "".join(p.text for p in pieces if p.kind == "answer") == "To be"
    Writer(monkeypatch, ids(f"or not</think>To be{END}"))
    found = LocalEngine(text_model()).answer(request(think=True))
    assert (found.reply.thinking, found.reply.text) == ("or not", "To be")


@pytest.mark.parametrize("budget", [0, 3])
def test_the_budget_ends_the_thinking(monkeypatch: pytest.MonkeyPatch, budget: int) -> None:
    Writer(monkeypatch, ids("a"))
    found = LocalEngine(text_model()).answer(
        request(think=True, thinking_budget=budget, max_new_tokens=4)
    )
    assert found.reply.thinking == "a" * budget
    assert found.reply.text == "a" * 4
    assert found.tokens.count(token_id("</think>")) == 1
    assert found.reply.finish_reason == "length"


def test_an_answer_is_not_cut_by_its_thinking(monkeypatch: pytest.MonkeyPatch) -> None:
    Writer(monkeypatch, ids(f"<think>{'a' * 9}</think>{'b' * 20}"))
    found = LocalEngine(text_model()).answer(request(thinking_budget=10, max_new_tokens=5))
    thought = len(ids("a" * 9))
    assert found.reply.thinking == "a" * 9
    assert len(found.tokens) == thought + 2 + 5
    found = AnswerReader(tokenizer(), [], GenerationSettings(5), [])
    for token in ids(f"<think>{'a' * 3}"):
        found.push(token)
    assert found.finish_reason is None


def test_endless_thinking_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    writer = Writer(monkeypatch, [token_id("<think>")])
    found = LocalEngine(text_model()).answer(request(thinking_budget=3, max_new_tokens=4))
    assert found.reply.finish_reason == "length"
    assert writer.steps < 20


@pytest.mark.parametrize("before", [1, 2, 4])
def test_an_interrupt_comes_within_one_token(monkeypatch: pytest.MonkeyPatch, before: int) -> None:
    class InterruptedError_(Exception):  # noqa: N818, N801
        pass

    writer = Writer(monkeypatch, ids("a" * 100))
    calls = 0

    def interrupt() -> None:
        nonlocal calls
        calls += 1
        if calls > before:
            raise InterruptedError_

    with pytest.raises(InterruptedError_) as caught:
        LocalEngine(text_model()).answer(request(), interrupt=interrupt)
    assert writer.steps == before  # one call before reading the prompt, then one before each token
    gc.collect()
    assert caught.traceback  # which holds all local variables, and yet not the cache
    assert writer.caches
    assert all(cache() is None for cache in writer.caches)


def test_an_error_in_a_callback_reaches_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    Writer(monkeypatch, ids("a" * 100))

    def on_piece(piece: Piece) -> None:
        raise ConnectionError(piece.text)

    with pytest.raises(ConnectionError):
        LocalEngine(text_model()).answer(request(), on_piece=on_piece)


@pytest.mark.parametrize("text", ["ü 🜁 日本語 é 👩\u200d👩\u200d👧 end", "ab", ""])
def test_no_half_characters(text: str) -> None:
    words = Detokenizer(tokenizer())
    pieces = [words.push(token) for token in ids(text)]
    assert all("\ufffd" not in piece for piece in pieces)
    assert "".join(pieces) + words.finish() == text


def test_a_character_cut_off_at_the_end_is_dropped() -> None:
    words = Detokenizer(tokenizer())
    pieces = [words.push(token) for token in ids("hm 🜁")[:-1]]
    assert len(ids("🜁")) > 1
    assert "".join(pieces) + words.finish() == "hm "


def test_numbers_that_are_none_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(*arguments: Any) -> torch.Tensor:
        return torch.full((1, 640), torch.nan)

    monkeypatch.setattr(LanguageModel, "forward", forward)
    for temperature in (0.0, 1.0):
        with pytest.raises(RuntimeError, match="no usable numbers"):
            LocalEngine(text_model()).answer(request(sampling=Sampling(temperature)))


@pytest.mark.parametrize(
    "settings", [{"max_new_tokens": 0}, {"thinking_budget": -1}, {"stop": ("a", "")}]
)
def test_settings_that_cannot_be(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"give \d or more|is empty"):
        GenerationSettings(**settings)


def test_the_cache_is_given_back_after_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    states: list[Any] = []
    real = generate_module.generate

    def kept(*arguments: Any, **named: Any) -> Any:
        states.append(arguments[3])
        return real(*arguments, **named)

    monkeypatch.setattr("vivace.vlm.local_engine.generate", kept)
    LocalEngine(text_model()).answer(request(max_new_tokens=2))
    assert [state.cache for state in states] == [None]

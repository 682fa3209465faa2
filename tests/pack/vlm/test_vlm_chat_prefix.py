"""Conversations with local models: what was read in earlier turns is not read again."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from vivace.devkit.doubles.small_vlm import (
    FAMILIES,
    local_model,
    picture,
    save_text_model,
    token_id,
    tokenizer,
)
from vivace.hub.model_folders import read_model
from vivace.vlm.decode.answer_reader import AnswerReader, GenerationSettings
from vivace.vlm.decode.prefix_cache import WORTH_TOKENS, PrefixCache
from vivace.vlm.decode.sampling import Sampling
from vivace.vlm.loading.load_options import LoadOptions
from vivace.vlm.local_engine import LocalEngine, LocalReply
from vivace.vlm.local_model import LocalModel, load_model
from vivace.vlm.question import AnswerSettings, Question, local_request
from vivace.vlm.text.chat import Chat
from vivace.vlm.vision.embedding_cache import EmbeddingCache

GREEDY = AnswerSettings(6, None, Sampling())
SYSTEM = "To be, or not to be, that is the question: whether to suffer the slings of fortune."


def ask(
    engine: LocalEngine, chat: Chat, text: str, images: tuple[torch.Tensor, ...] = ()
) -> tuple[LocalReply, Chat]:
    question = Question(text, chat.system, images, history=chat.messages)
    request = local_request(question, GREEDY, Sampling())
    reply = engine.answer(request, question.media)
    return reply, chat.asked(text, images).answered(reply.reply.text)


def engine(model: LocalModel, limit: int = 2**29) -> LocalEngine:
    return LocalEngine(model, EmbeddingCache(), PrefixCache(limit))


@pytest.fixture(scope="module")
def qwen3(tmp_path_factory: pytest.TempPathFactory) -> LocalModel:
    """A Qwen3 without vision, from a folder."""
    folder = save_text_model("Qwen3", tmp_path_factory.mktemp("models") / "qwen3")
    found = read_model(folder)
    assert found is not None
    assert (found.model_type, found.has_vision) == ("qwen3", False)
    return load_model(folder, LoadOptions(dtype="float32"))


def test_a_text_model_answers_as_transformers_does(qwen3: LocalModel) -> None:
    reply, _ = ask(engine(qwen3), Chat(SYSTEM), "To sleep?")
    prompt = qwen3.prompts.build(
        local_request(Question("To sleep?", SYSTEM), GREEDY, Sampling()).turns
    )
    ids = torch.tensor([prompt.ids])
    written: Any = qwen3.model
    end = sorted(qwen3.eos_ids)
    stock = written.generate(ids, max_new_tokens=6, do_sample=False, eos_token_id=end)
    assert list(reply.tokens) == [t for t in stock[0, ids.shape[1] :].tolist() if t not in end]
    with pytest.raises(ValueError, match="takes no images"):
        ask(engine(qwen3), Chat(), "What?", (picture(1),))


def test_each_turn_reads_only_what_is_new(qwen3: LocalModel) -> None:
    talking, fresh = engine(qwen3), engine(qwen3, 0)
    chat, before = Chat(SYSTEM), 0
    for number, text in enumerate(("Is it nobler?", "To die?", "To sleep?")):
        expected, _ = ask(fresh, chat, text)
        reply, chat = ask(talking, chat, text)
        assert reply.tokens == expected.tokens
        report = reply.report
        assert report.computed_tokens == report.prompt_tokens - before
        assert reply.reply.usage.cached == before
        assert expected.report.computed_tokens == expected.report.prompt_tokens
        # One conversation is kept once, whatever its length.
        assert talking.prefixes is not None
        assert talking.prefixes.statistics.entries == 1, number
        before = report.prompt_tokens


def test_branches_share_what_they_have_in_common(qwen3: LocalModel) -> None:
    talking = engine(qwen3)
    start, chat = ask(talking, Chat(SYSTEM), "Is it nobler?")
    read = start.report.prompt_tokens
    for text in ("To die?", "To sleep, no more?"):
        reply, _ = ask(talking, chat, text)
        expected, _ = ask(engine(qwen3, 0), chat, text)
        assert reply.tokens == expected.tokens
        assert reply.report.prompt_tokens - reply.report.computed_tokens >= read
    again, _ = ask(talking, chat, "To die?")
    assert again.report.computed_tokens == 1  # its logits are needed
    other, _ = ask(talking, Chat(), "?")  # less than `WORTH_TOKENS` in common
    assert other.report.computed_tokens == other.report.prompt_tokens > WORTH_TOKENS


@pytest.mark.parametrize("family", FAMILIES)
def test_images_of_earlier_turns_are_not_read_again(family: str) -> None:
    model = local_model(family)
    talking, fresh = engine(model), engine(model, 0)
    chat = Chat()
    reply, chat = ask(talking, chat, "To be?", (picture(1, family=family),))
    read = reply.report.prompt_tokens
    # A turn with another image begins behind the first one, of which nothing is read again.
    for text, images in (("Or not?", (picture(2, family=family),)), ("To sleep?", ())):
        expected, _ = ask(fresh, chat, text, images)
        reply, chat = ask(talking, chat, text, images)
        assert reply.tokens == expected.tokens
        report = reply.report
        assert report.prompt_tokens - report.computed_tokens == read
        read = report.prompt_tokens


def test_another_image_in_the_same_place_is_read() -> None:
    model = local_model("qwen3_vl")
    talking = engine(model)
    images = [picture(number, family="qwen3_vl") for number in (1, 2)]
    for image in images:
        reply, _ = ask(talking, Chat(), "To be?", (image,))
        expected, _ = ask(engine(model, 0), Chat(), "To be?", (image,))
        assert reply.tokens == expected.tokens
        assert reply.report.computed_tokens == reply.report.prompt_tokens


def test_plain_questions_are_not_kept(qwen3: LocalModel) -> None:
    talking = engine(qwen3)
    request = local_request(Question("To be?", SYSTEM), GREEDY, Sampling())
    talking.answer(request)
    assert talking.prefixes is not None
    assert talking.prefixes.statistics.entries == 0


def test_thinking_is_counted() -> None:
    settings = GenerationSettings(50)
    reader = AnswerReader(tokenizer(), (), settings, {token_id("<|im_end|>")})
    for token in (token_id("<think>"), 5, 6, token_id("</think>"), 7, token_id("<|im_end|>")):
        reader.push(token)
    assert (reader.thinking_tokens, len(reader.tokens)) == (2, 5)

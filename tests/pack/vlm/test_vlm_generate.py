"""Answers about images: the tokens of plain transformers, and images encoded once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from vivace.devkit.doubles.small_vlm import (
    FAMILIES,
    OTHER_FAMILIES,
    EncoderCalls,
    local_model,
    picture,
    processor,
    stock_model,
    text_model,
    tokenizer,
)
from vivace.vlm.decode.answer_reader import GenerationSettings
from vivace.vlm.decode.prefix_cache import PrefixCache
from vivace.vlm.decode.sampling import Sampling
from vivace.vlm.local_engine import LocalEngine, LocalReply, LocalRequest
from vivace.vlm.text.chat_prompt import ImagePart, Turn, VideoPart
from vivace.vlm.text.thinking import Piece
from vivace.vlm.vision.embedding_cache import EmbeddingCache
from vivace.vlm.vision.video import sample_frames

IMAGE = ImagePart()
SETTINGS = GenerationSettings(max_new_tokens=8)


def ask(*parts: Any, settings: GenerationSettings = SETTINGS) -> LocalRequest:
    return LocalRequest((Turn("system", ("Be brief.",)), Turn("user", parts)), settings)


def stock_tokens(family: str, text: str, count: int = 8, **media: Any) -> list[int]:
    """What plain transformers writes about inputs of its own processor."""
    written = f"<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n{text}<|im_end|>\n"
    inputs = processor(family)(
        text=[written + "<|im_start|>assistant\n"], return_tensors="pt", **media
    )
    output = stock_model(family).generate(**inputs, max_new_tokens=count, do_sample=False)
    return output[0, inputs["input_ids"].shape[1] :].tolist()


def pictures(family: str) -> list[torch.Tensor]:
    return [picture(1, 3, 4, family), picture(2, 5, 2, family)]


HALF_CHARACTER = "\ufffd"
SHOWN = "<|vision_start|><|image_pad|><|vision_end|>"


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("count", [1, 2])
def test_tokens_of_transformers_cold_and_warm(
    family: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = pictures(family)[:count]
    channels_first = [image.movedim(-1, 0) for image in images]
    expected = stock_tokens(family, SHOWN * count + "What?", images=channels_first)
    others = [torch.zeros_like(image) for image in channels_first]
    assert expected != stock_tokens(family, SHOWN * count + "What?", images=others)
    model = local_model(family)
    calls = EncoderCalls(model, monkeypatch)
    request = ask(*[IMAGE] * count, "What?")
    plain = LocalEngine(model).answer(request, images)
    assert (list(plain.tokens), calls.take()) == (expected, count)
    engine = LocalEngine(model, EmbeddingCache(), PrefixCache())
    for encoded in (count, 0, 0):
        reply = engine.answer(request, images)
        assert (list(reply.tokens), calls.take()) == (expected, encoded)
    assert calls.stock == 0
    assert reply.reply.text == tokenizer().decode(expected).rstrip(HALF_CHARACTER)
    assert reply.reply.finish_reason == "length"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_video(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.video_utils import VideoMetadata

    sample = sample_frames(40, 10.0, 2, max_frames=6)
    clip = torch.stack([picture(seed, 2, 3, family) for seed in range(6)])
    shown = "<|video_pad|>" if family == "qwen3_vl" else SHOWN.replace("image", "video")
    expected = stock_tokens(
        family,
        "Look. " + shown + "What?",
        videos=[clip.movedim(-1, 1)],
        video_metadata=[VideoMetadata(40, fps=10.0, frames_indices=list(sample.indices))],
    )
    model = local_model(family)
    calls = EncoderCalls(model, monkeypatch)
    engine = LocalEngine(model, EmbeddingCache(), PrefixCache())
    request = ask("Look. ", VideoPart(sample), "What?")
    for encoded in (1, 0):
        assert list(engine.answer(request, [clip]).tokens) == expected
        assert calls.take() == encoded


@pytest.mark.parametrize("family", FAMILIES)
def test_image_and_video_together(family: str) -> None:
    from transformers.video_utils import VideoMetadata

    sample = sample_frames(4, 2.0, 2)
    clip = torch.stack([picture(seed, 2, 3, family) for seed in range(4)])
    image = picture(7, 3, 3, family)
    shown = "<|video_pad|>" if family == "qwen3_vl" else SHOWN.replace("image", "video")
    expected = stock_tokens(
        family,
        "Of " + shown + "and " + SHOWN + "?",
        images=[image.movedim(-1, 0)],
        videos=[clip.movedim(-1, 1)],
        video_metadata=[VideoMetadata(4, fps=2.0, frames_indices=list(sample.indices))],
    )
    request = ask("Of ", VideoPart(sample), "and ", IMAGE, "?")
    reply = LocalEngine(local_model(family)).answer(request, [clip, image])
    assert list(reply.tokens) == expected


def test_a_plain_language_model() -> None:
    model = text_model()
    request = ask("Who are you?")
    prompt = torch.tensor([model.prompts.build(request.turns).ids])
    stock: Any = model.model
    expected = stock.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=8, do_sample=False
    )
    reply = LocalEngine(model, EmbeddingCache(), PrefixCache()).answer(request)
    assert list(reply.tokens) == expected[0, prompt.shape[1] :].tolist()
    with pytest.raises(ValueError, match="takes no images"):
        LocalEngine(model).answer(ask(IMAGE), [picture(1)])


def test_what_is_encoded_and_what_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    model = local_model("qwen3_vl")
    calls = EncoderCalls(model, monkeypatch)
    engine = LocalEngine(model, EmbeddingCache(), PrefixCache())
    first, second = pictures("qwen3_vl")

    def counts(reply: LocalReply) -> tuple[int, bool]:
        """Images encoded, and whether the whole prompt was read."""
        return calls.take(), reply.report.computed_tokens == reply.report.prompt_tokens

    both = ask(IMAGE, "x", IMAGE, "What?")
    assert counts(engine.answer(both, [first, second])) == (2, True)
    again = engine.answer(both, [first, second])
    assert counts(again) == (0, False)
    assert again.report.computed_tokens == len(model.prompts.build(both.turns, GRIDS).ids) - (
        model.prompts.build(both.turns, GRIDS).media_end
    )
    assert counts(engine.answer(ask(IMAGE, "x", IMAGE, "Why?"), [first, second])) == (0, False)
    assert counts(engine.answer(both, [second, first])) == (0, True)
    # It begins as before, up to the first image.
    assert counts(engine.answer(ask(IMAGE, "y", IMAGE, "What?"), [first, second])) == (0, False)
    changed = first.clone()
    changed[0, 0, 0] = 1 - changed[0, 0, 0]
    assert counts(engine.answer(both, [changed, second])) == (1, True)
    assert counts(engine.answer(both, [first, first])) == (0, True)
    other = local_model("qwen2_5_vl")
    other_calls = EncoderCalls(other, monkeypatch)
    LocalEngine(other, engine.embeddings, engine.prefixes).answer(both, [first, second])
    assert other_calls.take() == 2
    assert calls.stock == other_calls.stock == 0


GRIDS = [(1, 6, 8), (1, 10, 4)]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_is_as_its_parts(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = local_model(family)
    first, second = pictures(family)
    sampled = GenerationSettings(5, sampling=Sampling(1.5, seed=7))
    requests = [
        ask(IMAGE, "What?"),
        ask("A longer question about ", IMAGE, "and ", IMAGE, "that needs many words."),
        ask("No image at all?"),
        ask(IMAGE, "Sampled.", settings=sampled),
    ]
    images = [[first], [second, first], [], [second]]
    alone = [
        LocalEngine(model).answer(request, own)
        for request, own in zip(requests, images, strict=True)
    ]
    calls = EncoderCalls(model, monkeypatch)
    pieces = [{"thinking": "", "answer": ""} for _ in requests]

    def on_piece(index: int, piece: Piece) -> None:
        pieces[index][piece.kind] += piece.text

    together = LocalEngine(model).answer_batch(requests, images, on_piece=on_piece)
    assert calls.take() == 2
    assert [reply.tokens for reply in together] == [reply.tokens for reply in alone]
    assert [len(reply.tokens) for reply in together] == [8, 8, 8, 5]
    assert [reply.reply for reply in together] == [reply.reply for reply in alone]
    assert [streamed["answer"] for streamed in pieces] == [reply.reply.text for reply in alone]
    assert [streamed["thinking"].rstrip() for streamed in pieces] == [
        reply.reply.thinking for reply in alone
    ]
    assert LocalEngine(model).answer_batch([], []) == []


@pytest.mark.parametrize("family", OTHER_FAMILIES)
def test_the_other_families(family: str) -> None:
    images = pictures(family)
    expected = stock_tokens(
        family, SHOWN * 2 + "What?", images=[image.movedim(-1, 0) for image in images]
    )
    engine = LocalEngine(local_model(family), EmbeddingCache(), PrefixCache())
    both, one = ask(IMAGE, IMAGE, "What?"), ask("A good deal more of text about ", IMAGE)
    for _ in range(2):
        assert list(engine.answer(both, images).tokens) == expected
    alone = engine.answer(one, images[:1])
    together = engine.answer_batch([one, both], [images[:1], images])
    assert [list(reply.tokens) for reply in together] == [list(alone.tokens), expected]
    assert engine.prefixes is not None
    kept = engine.prefixes.statistics.entries
    assert kept == (0 if family == "qwen3_5" else 2)  # states of linear attention are not kept


def test_the_report_names_every_stage() -> None:
    engine = LocalEngine(local_model("qwen2_5_vl"), EmbeddingCache(), PrefixCache())
    image = picture(1)
    cold = engine.answer(ask(IMAGE, "What?"), [image]).report.markdown()
    for stage in ("hash", "preprocess", "encode", "prefill", "decode"):
        assert f"| {stage} |" in cold
    assert "- image 1: 112x84, 12 tokens\n" in cold
    assert "- images: 0 from the cache, 1 encoded, 0 repeated\n" in cold
    warm = engine.answer(ask(IMAGE, "What?"), [image]).report
    assert "- images: 1 from the cache, 0 encoded, 0 repeated\n" in warm.markdown()
    assert "| encode |" not in warm.markdown()
    kept = warm.prompt_tokens - warm.computed_tokens
    assert kept >= 12
    assert f"{warm.prompt_tokens} tokens, {kept} of them kept" in warm.markdown()
    assert warm.new_tokens == 8


def test_a_bad_image_is_named() -> None:
    engine = LocalEngine(local_model("qwen2_5_vl"))
    with pytest.raises(ValueError, match="Image 2: The image is empty"):
        engine.answer(ask(IMAGE, IMAGE), [picture(1), torch.zeros(0, 5, 3)])
    with pytest.raises(ValueError, match="2 images and videos were placed, 1 given"):
        engine.answer(ask(IMAGE, IMAGE), [picture(1)])

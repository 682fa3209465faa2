"""Kept beginnings of prompts: equal answers, fewer tokens read, bounded, gone with the model."""

from __future__ import annotations

import copy
import gc
from typing import Any

import pytest
import torch
from vivace.devkit.doubles.small_vlm import stock_model, text_model, token_id
from vivace.vlm.decode.language_model import LanguageModel
from vivace.vlm.decode.prefill import prefill
from vivace.vlm.decode.prefix_cache import PrefixCache
from vivace.vlm.text.chat_prompt import IMAGE, Prompt
from vivace.vlm.vision.hashing import EmbeddingKey


def key(name: str) -> EmbeddingKey:
    return EmbeddingKey(name, (1, 4, 4), "bicubic", "model", "0", "float32")


def prompt(images: int = 1, question: int = 3) -> Prompt:
    """Four tokens per image, and a question."""
    pad = token_id("<|image_pad|>")
    beginning = ([1, 2, token_id("<|vision_start|>")] + [pad] * 4) * images
    types = ([0, 0, 0] + [IMAGE] * 4) * images
    after = [token_id("<|vision_end|>"), *range(10, 10 + question)]
    grids = ((1, 4, 4),) * images
    return Prompt(
        (*beginning, *after), (*types, *[0] * len(after)), grids, (1,) * images, (0.0,) * images
    )


def filled(language: LanguageModel, own: Prompt) -> Any:
    """The cache after reading a prompt of which all tokens are taken for text."""
    plain = Prompt(own.ids, (0,) * len(own.ids))
    return prefill(language, [plain], [[]]).cache


SIZE = 7 * 4 * 2 * 2 * 16 * 4  # tokens, layers, keys and values, heads, dim, bytes


@pytest.fixture
def language() -> LanguageModel:
    return text_model().language


def test_a_beginning_is_found_again_and_is_a_copy(language: LanguageModel) -> None:
    cache = PrefixCache()
    whole = filled(language, prompt())
    assert cache.start(language, prompt(), [key("a")]) is None
    cache.keep(language, prompt(), [key("a")], whole)
    assert cache.statistics.nbytes == SIZE
    for _ in range(2):
        found = cache.start(language, prompt(question=5), [key("a")])
        assert found is not None
        assert found.get_seq_length() == prompt().media_end == 7
        for kept, layer in zip(found.layers, whole.layers, strict=True):
            assert torch.equal(kept.keys, layer.keys[..., :7, :])
            assert torch.equal(kept.values, layer.values[..., :7, :])
            kept.keys.zero_()
    assert (cache.statistics.hits, cache.statistics.misses) == (2, 1)
    assert cache.statistics.tokens_saved == 14
    assert whole.get_seq_length() == len(prompt().ids)


def test_what_differs_is_not_found(language: LanguageModel) -> None:
    cache = PrefixCache()
    own = prompt()
    cache.keep(language, own, [key("a")], filled(language, own))
    changed = Prompt((9, *own.ids[1:]), own.types, own.grids, own.kinds, own.seconds)
    assert cache.start(language, own, [key("b")]) is None
    assert cache.start(language, changed, [key("a")]) is None
    assert cache.start(language, prompt(2), [key("a"), key("a")]) is None
    assert cache.start(LanguageModel(stock_model("qwen3_vl")), own, [key("a")]) is None
    assert cache.start(language, own, [key("a")]) is not None


def test_prompts_without_question_or_image_are_not_kept(language: LanguageModel) -> None:
    cache = PrefixCache()
    own = prompt()
    text = Prompt(own.ids, (0,) * len(own.ids))
    cache.keep(language, text, [], filled(language, own))
    cut = Prompt(own.ids[:7], own.types[:7], own.grids, own.kinds, own.seconds)
    cache.keep(language, cut, [key("a")], filled(language, own))
    assert cache.statistics.entries == 0
    assert cache.start(language, text, []) is None
    assert cache.start(language, cut, [key("a")]) is None


def test_the_bytes_are_bounded_and_the_oldest_go(language: LanguageModel) -> None:
    cache = PrefixCache(2 * SIZE)
    whole = filled(language, prompt())
    for name in "ab":
        cache.keep(language, prompt(), [key(name)], whole)
    assert cache.start(language, prompt(), [key("a")]) is not None
    for _ in range(2):
        cache.keep(language, prompt(), [key("c")], whole)
    assert (cache.statistics.entries, cache.statistics.nbytes) == (2, 2 * SIZE)
    assert cache.statistics.evictions == 1
    assert cache.start(language, prompt(), [key("b")]) is None
    assert cache.start(language, prompt(), [key("a")]) is not None
    cache.keep(language, prompt(3), [key("a")] * 3, filled(language, prompt(3)))
    assert cache.statistics.entries == 2
    cache.resize(SIZE)
    assert cache.statistics.entries == 1
    cache.clear()
    assert (cache.statistics.entries, cache.statistics.nbytes) == (0, 0)


def test_a_dropped_model_takes_its_beginnings_along(language: LanguageModel) -> None:
    cache = PrefixCache()
    other = LanguageModel(copy.deepcopy(language.model))
    for own in (language, other):
        cache.keep(own, prompt(), [key("a")], filled(own, prompt()))
    assert cache.statistics.entries == 2
    del own, other
    gc.collect()
    assert (cache.statistics.entries, cache.statistics.nbytes) == (1, SIZE)
    assert cache.start(language, prompt(), [key("a")]) is not None
    cache.clear(language.model)
    assert cache.statistics.entries == 0


def test_other_kinds_of_state_are_not_kept(language: LanguageModel) -> None:
    cache = PrefixCache()
    whole = filled(language, prompt())

    class Linear(type(whole.layers[0])):
        """A layer with a state of its own."""

    whole.layers[1] = Linear()
    cache.keep(language, prompt(), [key("a")], whole)
    assert cache.statistics.entries == 0


def test_a_start_is_for_one_prompt(language: LanguageModel) -> None:
    text = Prompt((1, 2), (0, 0))
    with pytest.raises(ValueError, match="single prompt"):
        prefill(language, [text, text], [[], []], language.new_cache())

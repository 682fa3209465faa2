"""Where decoding cannot be compiled, or is not worth it, it goes on as it is and says why."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from vivace.devkit.doubles.small_vlm import FAMILIES, local_model, picture, text_model
from vivace.vlm.decode.answer_reader import GenerationSettings
from vivace.vlm.decode.decode_graphs import DecodeGraphs, DecodeKey
from vivace.vlm.decode.language_model import LanguageModel
from vivace.vlm.decode.prefill import prefill
from vivace.vlm.decode.static_cache import refusal
from vivace.vlm.decode.stepper import WORTH_TOKENS, unwanted
from vivace.vlm.local_engine import LocalEngine
from vivace.vlm.text.chat_prompt import ImagePart, Prompt

from .test_vlm_compiled import CountingBackend
from .test_vlm_decode_compiled import STEPS, compiled, new_text_model
from .test_vlm_generate import ask, pictures

IMAGE = ImagePart()


@pytest.fixture(autouse=True)
def fresh_compiler() -> None:
    torch._dynamo.reset()


class Broken:
    """A backend that fails to compile."""

    def __init__(self, error: Exception) -> None:
        self.attempts = 0
        self._error = error

    def __call__(self, graph: torch.fx.GraphModule, inputs: Any) -> Callable[..., Any]:
        self.attempts += 1
        raise self._error


def flaky(runs: int) -> Callable[..., Any]:
    """A backend of graphs that fail after some runs."""

    def compile_(graph: torch.fx.GraphModule, inputs: Any) -> Callable[..., Any]:
        left = runs

        def run(*arguments: Any) -> Any:
            nonlocal left
            left -= 1
            found = graph(*arguments)
            if left < 0:
                raise RuntimeError("out of luck")  # the keys and values are there already
            return found

        return run

    return compile_


def test_a_failing_compiler_is_no_error_and_not_tried_again() -> None:
    broken = Broken(RuntimeError("no compiler here\nwith a long explanation"))
    graphs = DecodeGraphs(backend=broken)
    images = pictures("qwen3_vl")
    expected = LocalEngine(local_model("qwen3_vl")).answer(ask(IMAGE, IMAGE, "What?"), images)
    engine = LocalEngine(compiled(local_model("qwen3_vl"), graphs))
    for count, tokens in enumerate((8, 8, 800)):
        request = ask(IMAGE, IMAGE, "What?", settings=GenerationSettings(tokens))
        found = engine.answer(request, images)
        assert found.tokens[:8] == expected.tokens
        reason = "compiling failed (RuntimeError: no compiler here)"
        assert found.report.decode_eager_reason == reason
        assert f"- decode: eager ({reason})\n" in found.report.markdown()
        assert (found.report.decode_warmup_ms > 0) == (count == 0)
    assert broken.attempts == 1
    graphs.clear()
    engine.answer(ask(IMAGE, IMAGE, "What?"), images)
    assert broken.attempts == 2


def test_too_little_memory_is_no_reason_for_ever() -> None:
    broken = Broken(torch.OutOfMemoryError("CUDA out of memory"))
    engine = LocalEngine(compiled(text_model(), DecodeGraphs(backend=broken)))
    expected = LocalEngine(text_model()).answer(ask("a"))
    for _ in range(2):
        found = engine.answer(ask("a"))
        assert found.tokens == expected.tokens
        assert "CUDA out of memory" in str(found.report.decode_eager_reason)
    assert broken.attempts == 2


@pytest.mark.parametrize("runs", [1, 2, 5])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_graph_that_fails_later_is_given_up(family: str, runs: int) -> None:
    images = [pictures(family)[:1], []]
    requests = [ask(IMAGE, "What?"), ask("No image, but more of words, to be the longer of two?")]
    expected = LocalEngine(local_model(family)).answer_batch(requests, images)
    graphs = DecodeGraphs(backend=flaky(runs))
    engine = LocalEngine(compiled(local_model(family), graphs))
    found = engine.answer_batch(requests, images)
    assert [reply.tokens for reply in found] == [reply.tokens for reply in expected]
    reason = "compiling failed (RuntimeError: out of luck)"
    assert found[0].report.decode_eager_reason == reason
    assert not graphs.graphs


def test_states_of_linear_attention_are_not_compiled() -> None:
    backend = CountingBackend()
    images = [picture(1, family="qwen3_5")]
    request = ask(IMAGE, "What?")
    expected = LocalEngine(local_model("qwen3_5")).answer(request, images)
    engine = LocalEngine(compiled(local_model("qwen3_5"), DecodeGraphs(backend=backend)))
    found = engine.answer(request, images)
    assert found.tokens == expected.tokens
    assert found.report.decode_eager_reason == (
        "the model keeps more than keys and values of each token: LinearAttentionLayer"
    )
    assert backend.runs == []


def test_other_layers_and_attentions_are_refused() -> None:
    language = LanguageModel(copy.deepcopy(text_model().model))
    cache = prefill(language, [Prompt((1, 2), (0, 0))], [[]]).cache
    assert refusal(language, cache) is None
    language.model.config._attn_implementation = "flash_attention_2"
    assert refusal(language, cache) == (
        "attention flash_attention_2 cannot leave out the free places of a static cache"
    )
    language.model.config._attn_implementation = "eager"
    assert refusal(language, cache) is None

    class Windowed(type(cache.layers[0])):
        """A layer that forgets."""

    cache.layers[1].__class__ = Windowed
    assert str(refusal(language, cache)).endswith("of each token: Windowed")


def test_plain_attention() -> None:
    """The mask is one that both kinds of attention understand."""
    backend = CountingBackend()
    model = new_text_model()
    stock: Any = model.model
    stock.set_attn_implementation("eager")
    requests = [ask("a"), ask("Something that is longer")]
    expected = LocalEngine(model).answer_batch(requests, [[], []])
    engine = LocalEngine(compiled(model, DecodeGraphs(backend=backend)))
    found = engine.answer_batch(requests, [[], []])
    assert [reply.tokens for reply in found] == [reply.tokens for reply in expected]
    assert backend.runs == [1 + STEPS]


def test_a_static_cache_serves_one_answer_at_a_time() -> None:
    backend = CountingBackend()
    engine = LocalEngine(compiled(text_model(), DecodeGraphs(backend=backend)))
    expected = [LocalEngine(text_model()).answer(ask(text)).tokens for text in ("a", "b")]
    inner = []
    outer = engine.answer(ask("a"), on_piece=lambda _: inner.append(engine.answer(ask("b"))))
    assert outer.tokens == expected[0]
    assert {reply.tokens for reply in inner} == {expected[1]}
    # The first piece comes before the first step, so the graph is not in use yet.
    reasons = [reply.report.decode_eager_reason for reply in inner]
    assert set(reasons[1:]) == {"another answer uses the static cache"}
    assert outer.report.decode_eager_reason is None
    assert len(backend.runs) == 1


def test_auto_and_off_compile_nothing_here() -> None:
    backend = CountingBackend()
    for mode, reason in [("auto", "not worth it on the device cpu"), ("off", "switched off")]:
        model = compiled(text_model(), DecodeGraphs(backend=backend))
        model.compile_decode = mode
        found = LocalEngine(model).answer(ask("a"))
        assert found.report.decode_eager_reason == reason
    assert backend.runs == []


def test_auto_on_cuda_begins_when_enough_tokens_were_asked_for() -> None:
    graphs = DecodeGraphs()
    language = text_model().language
    keys = [
        DecodeKey(id(language.model), batch, 1024, torch.bfloat16, torch.device("cuda"))
        for batch in (1, 2)
    ]
    graphs.ask(language, keys[0], WORTH_TOKENS - 1)
    few = f"fewer than {WORTH_TOKENS} tokens were asked for"
    assert [unwanted("auto", key, graphs) for key in keys] == [few, few]
    graphs.ask(language, keys[0], 1)
    assert [unwanted("auto", key, graphs) for key in keys] == [None, few]
    assert unwanted("on", keys[1], graphs) is None
    assert unwanted("off", keys[0], graphs) == "switched off"

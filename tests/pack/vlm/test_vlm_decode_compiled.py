"""Decoding by a compiled graph: the tokens of eager decoding, few graphs, and what becomes of them.

How it goes on where there can be no graph is in `test_vlm_decode_fallback`.
"""

from __future__ import annotations

import copy
import gc
import shutil
import weakref

import pytest
import torch
from vivace.devkit.doubles.small_vlm import FAMILIES, local_model, picture, stock_model, text_model
from vivace.vlm.decode.answer_reader import GenerationSettings
from vivace.vlm.decode.decode_graphs import DecodeGraphs
from vivace.vlm.decode.prefill import prefill
from vivace.vlm.decode.prefix_cache import PrefixCache
from vivace.vlm.decode.sampling import Sampling
from vivace.vlm.decode.static_cache import StaticCache, bucket, decode_step
from vivace.vlm.local_engine import LocalEngine
from vivace.vlm.local_model import LocalModel
from vivace.vlm.text.chat_prompt import ImagePart, Prompt
from vivace.vlm.vision.embedding_cache import EmbeddingCache

from .test_vlm_compiled import CountingBackend
from .test_vlm_generate import ask, pictures

IMAGE = ImagePart()
STEPS = 7  # of eight tokens, the first comes of reading the prompt


@pytest.fixture
def backend() -> CountingBackend:
    torch._dynamo.reset()
    return CountingBackend()


def compiled(model: LocalModel, graphs: DecodeGraphs) -> LocalModel:
    """The same model with its decoding compiled."""
    own = copy.copy(model)
    own.compile_decode, own.decode_graphs = "on", graphs
    return own


def new_text_model() -> LocalModel:
    """A plain language model that may be changed, or dropped."""
    shared = text_model()
    return LocalModel(copy.deepcopy(shared.model), shared.tokenizer, shared.identity)


@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_of_eager_decoding_with_and_without_a_kept_prefix(
    family: str, backend: CountingBackend
) -> None:
    images = pictures(family)
    request = ask(IMAGE, "x", IMAGE, "What?")
    expected = LocalEngine(local_model(family)).answer(request, images)
    graphs = DecodeGraphs(backend=backend)
    engine = LocalEngine(compiled(local_model(family), graphs), EmbeddingCache(), PrefixCache())
    for count in (1, 2, 3):
        found = engine.answer(request, images)
        assert found.tokens == expected.tokens
        assert (found.report.computed_tokens < found.report.prompt_tokens) == (count > 1)
        assert backend.runs == [1 + count * STEPS]  # once to warm up
        assert [graph.runs for graph in graphs.graphs.values()] == [count * STEPS]
        assert found.report.decode_eager_reason is None
        assert (found.report.decode_warmup_ms > 0) == (count == 1)


@pytest.mark.parametrize("family", [*FAMILIES, "text"])
def test_a_padded_batch(family: str, backend: CountingBackend) -> None:
    model = text_model() if family == "text" else local_model(family)
    seen = (IMAGE,) * (family != "text")
    sampled = GenerationSettings(5, sampling=Sampling(1.5, seed=7))
    requests = [
        ask(*seen, "What?"),
        ask("No image, but a question that needs a good deal more of words, to be longer?"),
        ask(*seen, "Sampled.", settings=sampled),
    ]
    images = [pictures(family)[:1], [], pictures(family)[1:]] if seen else [[], [], []]
    expected = LocalEngine(model).answer_batch(requests, images)
    graphs = DecodeGraphs(backend=backend)
    engine = LocalEngine(compiled(model, graphs))
    for count in (1, 2):
        found = engine.answer_batch(requests, images)
        assert [reply.tokens for reply in found] == [reply.tokens for reply in expected]
        assert backend.runs == [1 + count * STEPS]
    reordered = engine.answer_batch(requests[::-1], images[::-1])
    assert [reply.tokens for reply in reordered] == [reply.tokens for reply in expected[::-1]]
    assert len(backend.runs) == 1


@pytest.mark.parametrize("family", [*FAMILIES, "text"])
def test_there_are_no_graph_breaks(family: str) -> None:
    language = (text_model() if family == "text" else local_model(family)).language
    torch._dynamo.reset()
    state = prefill(language, [Prompt((1, 2, 3), (0,) * 3)], [[]])
    static = StaticCache(len(state.cache.layers), 1, 512, language.device)
    static.fill(state)
    static.place([4], 0)
    with torch.no_grad():
        found = torch._dynamo.explain(decode_step)(language, static.cache, static.inputs)
    assert (found.graph_count, found.graph_break_count) == (1, 0)


def test_prompts_and_answers_of_other_lengths_share_a_graph(backend: CountingBackend) -> None:
    graphs = DecodeGraphs(backend=backend)
    engine = LocalEngine(compiled(text_model(), graphs))
    plain = LocalEngine(text_model())
    for text, tokens in [("a", 40), ("What is " * 9, 3), ("Whether " * 50, 100), ("a", 2)]:
        request = ask(text, settings=GenerationSettings(tokens))
        assert engine.answer(request).tokens == plain.answer(request).tokens
    assert backend.runs == [1 + 39 + 2 + 99 + 1]
    longer = ask("a", settings=GenerationSettings(600, stop=("\n",)))
    assert engine.answer(longer).tokens == plain.answer(longer).tokens
    assert [key.length for key in graphs.graphs] == [512, 1024]


def test_lengths_are_few() -> None:
    assert [bucket(tokens) for tokens in (1, 512, 513, 1024, 3000)] == [512, 512, 1024, 1024, 4096]


def test_a_full_cache(backend: CountingBackend) -> None:
    """Prompt and answer fit to the last place."""
    endless = copy.copy(text_model())
    endless.eos_ids = frozenset()
    room = 512 - len(endless.prompts.build(ask("a").turns).ids)
    request = ask("a", settings=GenerationSettings(room))
    found = LocalEngine(compiled(endless, DecodeGraphs(backend=backend))).answer(request)
    assert found.tokens == LocalEngine(endless).answer(request).tokens
    assert len(found.tokens) == room
    assert backend.runs == [room]


def test_one_token_compiles_nothing(backend: CountingBackend) -> None:
    engine = LocalEngine(compiled(text_model(), DecodeGraphs(backend=backend)))
    found = engine.answer(ask("a", settings=GenerationSettings(1)))
    assert backend.runs == []
    assert found.report.decode_eager_reason == "the first token was the last"


def test_the_number_of_graphs_is_bounded(backend: CountingBackend) -> None:
    graphs = DecodeGraphs(limit=2, backend=backend)
    engine = LocalEngine(compiled(text_model(), graphs))
    for batch in (1, 2, 1, 3):
        engine.answer_batch([ask("a")] * batch, [[]] * batch)
    assert [key.batch for key in graphs.graphs] == [1, 3]  # 2 was used before 1
    assert len(backend.runs) == 3


def test_the_memory_is_bounded(backend: CountingBackend) -> None:
    one = 512 * 4 * 2 * 2 * 16 * 4  # tokens, layers, keys and values, heads, dim, bytes
    graphs = DecodeGraphs(nbytes=3 * one, backend=backend)
    engine = LocalEngine(compiled(text_model(), graphs))
    for batch in (1, 2):
        engine.answer_batch([ask("a")] * batch, [[]] * batch)
    assert [graph.nbytes for graph in graphs.graphs.values()] == [one, 2 * one]
    layers = next(iter(graphs.graphs.values())).static.cache.layers
    assert sum(layer.keys.nbytes + layer.values.nbytes for layer in layers) == one
    engine.answer_batch([ask("a")] * 3, [[]] * 3)
    assert [key.batch for key in graphs.graphs] == [3]
    expected = LocalEngine(text_model()).answer_batch([ask("a")] * 4, [[]] * 4)
    found = engine.answer_batch([ask("a")] * 4, [[]] * 4)
    assert found[3].tokens == expected[3].tokens
    assert found[0].report.decode_eager_reason == "a static cache of 512 tokens would take 2 MiB"


def test_graphs_and_buffers_go_with_the_model(backend: CountingBackend) -> None:
    graphs = DecodeGraphs(backend=backend)
    first, second = (compiled(new_text_model(), graphs) for _ in range(2))
    for model in (first, second):
        LocalEngine(model).answer(ask("a"))
    weights = weakref.ref(next(first.model.parameters()))
    keys = weakref.ref(next(iter(graphs.graphs.values())).static.cache.layers[0].keys)
    del model, first
    gc.collect()
    assert weights() is None
    assert keys() is None
    assert [key.model for key in graphs.graphs] == [id(second.model)]
    assert {key.model for key in graphs.asked} == {id(second.model)}
    graphs.clear(second.model)
    assert not graphs.graphs


def test_a_moved_model_leaves_nothing_behind(backend: CountingBackend) -> None:
    graphs = DecodeGraphs(backend=backend)
    model = compiled(new_text_model(), graphs)
    LocalEngine(model).answer(ask("a"))
    assert len(graphs.graphs) == 1
    model.to(torch.device("meta"))
    assert not graphs.graphs


def test_changed_weights_are_seen(backend: CountingBackend) -> None:
    model = compiled(new_text_model(), DecodeGraphs(backend=backend))
    before = LocalEngine(model).answer(ask("a"))
    with torch.no_grad():
        model.model.get_parameter("model.layers.1.mlp.down_proj.weight").mul_(-3)
    after = LocalEngine(model).answer(ask("a"))
    expected = LocalEngine(LocalModel(model.model, model.tokenizer, model.identity))
    assert after.tokens == expected.answer(ask("a")).tokens != before.tokens
    assert len(backend.runs) == 1


def test_nothing_is_left_of_an_answer_before(backend: CountingBackend) -> None:
    graphs = DecodeGraphs(backend=backend)
    engine = LocalEngine(compiled(text_model(), graphs))
    before = engine.answer(ask("a"))
    for layer in next(iter(graphs.graphs.values())).static.cache.layers:
        layer.keys.fill_(torch.nan)
        layer.values.fill_(torch.nan)
    assert engine.answer(ask("a")).tokens == before.tokens


@pytest.mark.parametrize("loaded_inside", [False, True])
def test_in_the_inference_mode_that_comfyui_runs_nodes_in(
    backend: CountingBackend, loaded_inside: bool
) -> None:
    with torch.inference_mode(loaded_inside):
        model = new_text_model()
    expected = LocalEngine(model).answer(ask("a")).tokens
    engine = LocalEngine(compiled(model, DecodeGraphs(backend=backend)))
    with torch.inference_mode():
        assert engine.answer(ask("a")).tokens == expected
    assert engine.answer(ask("a")).tokens == expected
    assert backend.runs == [1 + 2 * STEPS]


def test_interrupts_come_before_each_token(backend: CountingBackend) -> None:
    class StopHereError(Exception):
        pass

    graphs = DecodeGraphs(backend=backend)
    engine = LocalEngine(compiled(text_model(), graphs))
    calls = 0

    def interrupt() -> None:
        nonlocal calls
        calls += 1
        if calls > 4:
            raise StopHereError

    with pytest.raises(StopHereError):
        engine.answer(ask("a"), interrupt=interrupt)
    # One call before reading the prompt, one before the token that comes of it.
    assert [graph.runs for graph in graphs.graphs.values()] == [3]
    calls = -100
    again = engine.answer(ask("a"), interrupt=interrupt)
    assert again.tokens == LocalEngine(text_model()).answer(ask("a")).tokens
    assert again.report.decode_eager_reason is None
    assert calls == -100 + 1 + 8


def test_the_report_says_how_it_was_decoded(backend: CountingBackend) -> None:
    engine = LocalEngine(compiled(text_model(), DecodeGraphs(backend=backend)))
    cold = engine.answer(ask("a")).report
    assert f"- decode: compiled, warm-up {cold.decode_warmup_ms:.0f} ms\n" in cold.markdown()
    assert "| compile decoding |" in cold.markdown()
    warm = engine.answer(ask("a")).report.markdown()
    assert "- decode: compiled\n" in warm
    assert "| compile decoding |" not in warm
    eager = LocalEngine(text_model()).answer(ask("a")).report
    assert "- decode: eager (not worth it on the device cpu)\n" in eager.markdown()


@pytest.mark.skipif(
    not any(map(shutil.which, ("g++", "clang++", "cl"))), reason="needs a C++ compiler"
)
def test_the_real_compiler() -> None:
    torch._dynamo.reset()
    graphs = DecodeGraphs()
    images = [picture(1, family="qwen3_vl")]
    expected = LocalEngine(local_model("qwen3_vl")).answer(ask(IMAGE, "What?"), images)
    engine = LocalEngine(compiled(local_model("qwen3_vl"), graphs))
    for _ in range(2):
        found = engine.answer(ask(IMAGE, "What?"), images)
        assert found.tokens == expected.tokens
        assert found.report.decode_eager_reason is None
    assert [graph.runs for graph in graphs.graphs.values()] == [2 * STEPS]


def test_a_mixture_of_experts(backend: CountingBackend) -> None:
    stock_model("qwen3_vl_moe")
    images = [picture(1, family="qwen3_vl_moe")]
    request = ask(IMAGE, "What?")
    expected = LocalEngine(local_model("qwen3_vl_moe")).answer(request, images)
    engine = LocalEngine(compiled(local_model("qwen3_vl_moe"), DecodeGraphs(backend=backend)))
    found = engine.answer(request, images)
    assert found.tokens == expected.tokens
    assert found.report.decode_eager_reason is None
    assert backend.runs == [1 + STEPS]

"""The LoRA nodes in a real ComfyUI, over HTTP."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from safetensors.torch import load
from support.graphs import KOHYA, PEFT, SOME_WEIGHT, loader_prompt, node, row, stack_prompt
from vivace.devkit.demo.workflow import Run, build
from vivace.devkit.doubles.demo_models import LORAS, MODEL_FILE, lora_state_dict, save
from vivace.devkit.rig.client import ComfyClient, Prompt, PromptFailedError, PromptRejectedError


def weight(client: ComfyClient, prompt: Prompt) -> torch.Tensor:
    saved = client.run(prompt)["weights"]["files"][0]
    return load(client.fetch(saved))[SOME_WEIGHT]


@pytest.fixture(scope="module")
def base(client: ComfyClient) -> torch.Tensor:
    return weight(client, stack_prompt([]))


def delta(index: int, rows: int) -> torch.Tensor:
    lora = LORAS[index]
    factors, stem = lora_state_dict(lora), lora.stem("attn.to_q")
    scale = (lora.alpha or lora.rank) / lora.rank
    up = factors[f"{stem}.{lora.up}"][:rows].double()
    return scale * up @ factors[f"{stem}.{lora.down}"].double()


@pytest.mark.parametrize(
    "wrap",
    [lambda rows: rows, lambda rows: {"__value__": rows}, json.dumps],
    ids=["plain list", "as the editor sends it", "JSON text"],
)
def test_every_way_to_send_rows_applies_them(
    client: ComfyClient, base: torch.Tensor, wrap: Any
) -> None:
    rows = [row(PEFT, 0.5), row(KOHYA, -0.75)]
    patched = weight(client, stack_prompt(wrap(rows)))
    expected = base.double() + 0.5 * delta(0, 16) - 0.75 * delta(1, 16)
    assert torch.allclose(patched.double(), expected, rtol=0, atol=1e-5)


def test_loader_applies_one_lora(client: ComfyClient, base: torch.Tensor) -> None:
    patched = weight(client, loader_prompt(KOHYA, 2.0))
    assert torch.allclose(patched.double(), base.double() + 2 * delta(1, 16), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [row(PEFT, 0.0)],
        [row(PEFT, 1.0, on=False)],
        [row("not there.safetensors", 1.0, on=False)],
        [row("", 1.0)],
        [row(PEFT, 0.0), row(KOHYA, 1.0, on=False)],
    ],
    ids=["empty", "strength 0", "off", "off and missing", "not filled in", "two"],
)
def test_rows_that_do_nothing_leave_the_model_bit_equal(
    client: ComfyClient, base: torch.Tensor, rows: list[Any]
) -> None:
    assert torch.equal(weight(client, stack_prompt(rows)), base)


def test_branches_of_one_graph_do_not_see_each_other(
    client: ComfyClient, base: torch.Tensor
) -> None:
    prompt = stack_prompt([row(PEFT, 0.9)])
    other = {"rows": [row(KOHYA, 0.9)], "mode": "merge"}
    prompt["other"] = node("VivaceLoraStack", model=["model", 0], **other)
    for name, source in (("a", "other"), ("b", "model"), ("c", "stack")):
        prompt[name] = node("VivaceTestSaveWeights", model=[source, 0], names=SOME_WEIGHT, rows=16)
    outputs = client.run(prompt)
    saved = {n: load(client.fetch(outputs[n]["files"][0]))[SOME_WEIGHT] for n in "abc"}
    assert torch.equal(saved["b"], base)
    assert torch.allclose(saved["a"].double(), base.double() + 0.9 * delta(1, 16), atol=1e-5)
    assert torch.allclose(saved["c"].double(), base.double() + 0.9 * delta(0, 16), atol=1e-5)


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        (stack_prompt([row("vivace-demo-peff.safetensors")]), ["not in ComfyUI's loras", PEFT]),
        (stack_prompt([row("../../etc/passwd")]), ["not in ComfyUI's loras folders"]),
        (stack_prompt([row("/etc/passwd")]), ["not in ComfyUI's loras folders"]),
        (stack_prompt(5), ["rows must be a list", "not 5"]),
        (stack_prompt([{"lora": PEFT, "strength": "strong"}]), ["rows[0].strength", "'strong'"]),
        (stack_prompt("[{"), ["not valid JSON"]),
        (loader_prompt("no-such.safetensors", 1.0), ["'no-such.safetensors' is not in"]),
        (loader_prompt(7, 1.0), ["'7' is not in"]),
        (loader_prompt(PEFT, "strong"), ["Failed to convert", "FLOAT"]),
        (loader_prompt(PEFT, 1000.0), ["bigger than max"]),
    ],
)
def test_bad_input_is_refused_when_queueing(
    client: ComfyClient, prompt: Prompt, words: list[str]
) -> None:
    with pytest.raises(PromptRejectedError) as refusal:
        client.queue(prompt)
    message = refusal.value.messages("stack")
    for word in words:
        assert word in message


def test_a_missing_rows_input_is_refused(client: ComfyClient) -> None:
    prompt = stack_prompt([])
    del prompt["stack"]["inputs"]["rows"]
    with pytest.raises(PromptRejectedError, match="Required input is missing"):
        client.queue(prompt)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"this is not safetensors at all, whatever its name says", "not a valid safetensors"),
        (b"<!DOCTYPE html><html>please log in</html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS pointer"),
    ],
)
def test_a_broken_file_stops_the_run_and_harms_nothing(
    client: ComfyClient, models: Any, base: torch.Tensor, content: bytes, words: str
) -> None:
    broken = models / "loras" / "vivace-test-broken.safetensors"
    broken.write_bytes(content)
    try:
        with pytest.raises(PromptFailedError) as failure:
            client.run(stack_prompt([row(PEFT, 0.3), row(broken.name)]))
    finally:
        broken.unlink()
    assert words in str(failure.value)
    assert broken.name in str(failure.value)
    assert torch.equal(weight(client, stack_prompt([row(PEFT, 0.0)])), base)


def test_a_lora_for_another_model_is_refused_by_name(client: ComfyClient, models: Any) -> None:
    foreign = models / "loras" / "vivace-test-foreign.safetensors"
    save({"lora_unet_down_blocks_0.lora_up.weight": torch.zeros(4, 2)}, foreign)
    try:
        with pytest.raises(PromptFailedError, match=r"foreign\.safetensors"):
            client.run(stack_prompt([row(foreign.name)]))
    finally:
        foreign.unlink()


def test_a_replaced_file_is_read_again(
    client: ComfyClient, models: Any, base: torch.Tensor
) -> None:
    path = models / "loras" / "vivace-test-replaced.safetensors"
    factors = lora_state_dict(LORAS[0])
    try:
        save(factors, path)
        first = weight(client, stack_prompt([row(path.name)]))
        save({k: v * (3 if "lora_B" in k else 1) for k, v in factors.items()}, path)
        second = weight(client, stack_prompt([row(path.name)]))
    finally:
        path.unlink()
    assert torch.allclose(first.double(), base.double() + delta(0, 16), atol=1e-5)
    assert torch.allclose(second.double(), base.double() + 3 * delta(0, 16), atol=1e-4)


def report_of(client: ComfyClient, prompt: Prompt) -> str:
    prompt["shown"] = node("PreviewAny", source=["stack", 1])
    return client.run(prompt)["shown"]["text"][0]


def test_the_report_names_what_was_applied(client: ComfyClient) -> None:
    prompt = stack_prompt([row(PEFT, 0.5), row(KOHYA, 0.25)])
    del prompt["stack"]["inputs"]["mode"]
    report = report_of(client, prompt)
    assert f"| {PEFT} | qwen_image LoRA rank 8 | 4 of 4 |" in report
    assert f"| {KOHYA} | qwen_image LoRA rank 16 | 6 of 6 |" in report
    assert "strength 0.25: 0 modules merged, 6 as a runtime branch" in report
    assert report.startswith("2 LoRAs, 10 modules\n")
    assert report_of(client, stack_prompt([])) == "No LoRA is on."


def test_the_report_tells_what_rounding_does_when_it_merges(client: ComfyClient) -> None:
    report = report_of(client, stack_prompt([row(PEFT, 0.5)]))
    assert (
        "strength 0.5: 4 modules merged, 0 as a runtime branch; rounding leaves 100 % of" in report
    )
    assert "merging rounds the weights: an error of" in report
    assert "use auto" not in report


def test_a_text_encoder_goes_through_and_gets_what_a_file_has_for_it(
    client: ComfyClient, models: Any
) -> None:
    stem = "text_encoders.qwen3_4b.transformer.model.layers.0.self_attn.q_proj"
    path = models / "loras" / "vivace-test-encoder.safetensors"
    tensors = lora_state_dict(LORAS[0])
    tensors |= {f"{stem}.lora_A.weight": torch.ones(2, 64)}
    save(tensors | {f"{stem}.lora_B.weight": torch.ones(256, 2)}, path)
    try:
        prompt = stack_prompt([{**row(path.name, 0.5), "strength_clip": 0.25}], clip=["clip", 0])
        prompt["clip"] = node("VivaceTestClip")
        prompt["text"] = node("CLIPTextEncode", clip=["stack", 5], text="a house")
        prompt["used"] = node("PreviewAny", source=["text", 0])
        report = report_of(client, prompt)
    finally:
        path.unlink()
    assert report.startswith("1 LoRA, 4 modules, 1 of the text encoder\n")
    assert "text encoder at strength 0.25: 1 modules" in report


@pytest.mark.parametrize("mode", ["auto", "branch"])
def test_both_modes_sample_the_same_image(client: ComfyClient, mode: str) -> None:
    def latent(rows: list[Any], mode: str) -> torch.Tensor:
        prompt = build(Run("mode", rows, mode), MODEL_FILE, None, 3584, [])
        saved = client.run(prompt)["latent_file"]["latents"][0]
        return load(client.fetch(saved))["latent_tensor"].float()

    rows = [row(PEFT, 0.5), row(KOHYA, 1.0)]
    base, merged = latent([], "auto"), latent(rows, "merge")
    assert float((merged - base).norm() / base.norm()) > 0.01
    got = latent(rows, mode)
    assert float((got - merged).norm() / merged.norm()) < 1e-4
    assert torch.equal(latent([row(PEFT, 0.0)], mode), base)


def test_an_unknown_mode_is_refused(client: ComfyClient) -> None:
    with pytest.raises(PromptRejectedError) as refusal:
        client.queue(stack_prompt([row(PEFT)], mode="magic"))
    assert "mode: 'magic' not in" in refusal.value.messages("stack")


def test_strict_stops_at_what_cannot_be_applied(client: ComfyClient, models: Any) -> None:
    odd = models / "loras" / "vivace-test-odd.safetensors"
    extra = {"diffusion_model.transformer_blocks.0.attn.nothing.lora_A.weight": torch.ones(2, 2)}
    try:
        save({**lora_state_dict(LORAS[0]), **extra}, odd)
        report = report_of(client, stack_prompt([row(odd.name)]))
        assert "attn.nothing" in report
        with pytest.raises(PromptFailedError, match=r"vivace-test-odd\.safetensors.*attn\.nothing"):
            client.run(stack_prompt([row(odd.name)], strict=True))
    finally:
        odd.unlink()


def test_stacks_of_other_packs_come_in_and_go_out(client: ComfyClient, base: torch.Tensor) -> None:
    prompt = stack_prompt([row(KOHYA, 0.5)])
    prompt["theirs"] = node("VivaceTestLoraStack", name=PEFT, strength=0.25)
    prompt["stack"]["inputs"]["lora_stack"] = ["theirs", 0]
    patched = weight(client, prompt)
    expected = base.double() + 0.25 * delta(0, 16) + 0.5 * delta(1, 16)
    assert torch.allclose(patched.double(), expected, rtol=0, atol=1e-5)
    prompt["shown"] = node("PreviewAny", source=["stack", 2])
    shown = json.loads(client.run(prompt)["shown"]["text"][0])
    assert shown == [[PEFT, 0.25, 0.25], [KOHYA, 0.5, 0.5]]


def test_inspect_reports_without_a_model(client: ComfyClient) -> None:
    outputs = client.run({"look": node("VivaceLoraInspect", lora=KOHYA)})
    text = outputs["look"]["text"][0]
    assert f"| {KOHYA} | qwen_image LoRA rank 16 | 6 of 6 | 0 | 0 | 0 |" in text


def two_sampler_prompt(first: list[Any], second: list[Any], mode: str) -> Prompt:
    """Two stacks on one loaded model, each with its own sampler, in one graph."""
    prompt = build(Run("first", first), MODEL_FILE, None, 3584, [])
    prompt["stack"]["inputs"]["mode"] = mode
    prompt["stack b"] = node("VivaceLoraStack", model=["model", 0], rows=second, mode=mode)
    sampler = {**prompt["sample"]["inputs"], "model": ["stack b", 0]}
    prompt["sample b"] = node("KSampler", **sampler)
    prompt["latent_file b"] = node("SaveLatent", samples=["sample b", 0], filename_prefix="second")
    return prompt


def latents_of(client: ComfyClient, prompt: Prompt) -> list[torch.Tensor]:
    outputs = client.run(prompt)
    names = sorted(name for name in prompt if name.startswith("latent_file"))
    saved = [outputs[name]["latents"][0] for name in names]
    return [load(client.fetch(item))["latent_tensor"] for item in saved]


@pytest.mark.parametrize("mode", ["merge", "branch"])
def test_two_samplers_in_one_graph(client: ComfyClient, mode: str) -> None:
    a, b = [row(PEFT, 0.6)], [row(KOHYA, 0.6)]
    together = latents_of(client, two_sampler_prompt(a, b, mode))
    apart = [latents_of(client, two_sampler_prompt(rows, [], mode))[0] for rows in (a, b)]
    assert not torch.equal(*apart)
    for one, other in zip(together, apart, strict=True):
        assert torch.equal(one, other)


def test_an_interrupted_run_leaves_the_model_clean(client: ComfyClient) -> None:
    def prompt(rows: list[Any], seed: int, steps: int) -> Prompt:
        made = build(Run("interrupted", rows), MODEL_FILE, None, 3584, [])
        made["stack"]["inputs"]["mode"] = "branch"
        made["sample"]["inputs"].update(seed=seed, steps=steps)
        return made

    (before,) = latents_of(client, prompt([], 77, 2))
    prompt_id = client.queue(prompt([row(PEFT, 1.0)], 78, 500))
    while prompt_id not in str(client.get_json("/queue")["queue_running"]):
        assert prompt_id in str(client.get_json("/queue"))
    client.post("/interrupt", {})
    with pytest.raises(PromptFailedError):
        client.wait(prompt_id)
    client.post("/free", {"unload_models": False, "free_memory": True})
    (after,) = latents_of(client, prompt([row(PEFT, 0.0)], 77, 2))
    assert torch.equal(before, after)

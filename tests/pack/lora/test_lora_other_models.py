"""No file of a model that shares names with a supported one is applied.

The files have the names and shapes of the real models, in the spellings of their trainers.
"""

from __future__ import annotations

import pytest
import torch
from support.other_model_reports import NOTE, ONE_BLOCK, OTHERS, VERSION, Look, applied
from support.other_models import COVERAGE, FORMS, Shapes, attention, files, tensors

# All of whose blocks are those of Z-Image, or of Qwen-Image, by name and shape.
COPIES = {
    "Z-Image L2P": "z_image",
    "Zeta-Chroma": "z_image",
    "Ming-Image": "z_image",
    "Mage Flow": "qwen_image",
}
TOLD_APART = [title for title in OTHERS if title not in COPIES]


@pytest.mark.parametrize("title", TOLD_APART)
def test_no_file_is_applied_whatever_it_covers_and_however_it_is_spelled(
    title: str, look: Look
) -> None:
    found = (
        ((coverage, spelling), look(tensors(linears, spelling)))
        for coverage, spelling, linears in files(OTHERS[title])
    )
    assert applied(found) == []


@pytest.mark.parametrize("title", TOLD_APART)
def test_no_file_is_applied_whatever_its_trainer_calls_the_model(title: str, look: Look) -> None:
    found = (
        ((coverage, labels), look(tensors(COVERAGE[coverage](OTHERS[title]), "kohya"), labels))
        for coverage in ("the first block", "every third block")
        for labels in OTHERS[title].labels
    )
    assert applied(found) == []


@pytest.mark.parametrize("title", TOLD_APART)
def test_no_file_is_applied_whatever_its_adapters_are(title: str, look: Look) -> None:
    block = OTHERS[title].of([0])
    found = (
        ((form, spelling), look(tensors(block, spelling, form)))
        for form in FORMS
        for spelling in ("diffusers", "kohya")
    )
    assert applied(found) == []


@pytest.mark.parametrize("title", TOLD_APART)
def test_no_file_of_all_attention_layers_is_applied(title: str, look: Look) -> None:
    linears = attention(OTHERS[title].linears)
    found = (
        ((form, spelling), look(tensors(linears, spelling, form)))
        for form, spelling in (("LoRA", "diffusers"), ("DoRA", "kohya"))
    )
    assert applied(found) == []


def outer(title: str) -> Shapes:
    """The linear layers of a model that are in none of its blocks."""
    model = OTHERS[title]
    inside = COVERAGE["all blocks"](model)
    return {path: shape for path, shape in model.linears.items() if path not in inside}


@pytest.mark.parametrize("title", [title for title in OTHERS if outer(title)])
def test_a_layer_outside_of_the_blocks_says_nothing_against_a_label(title: str, look: Look) -> None:
    """Every model has a `proj_out` or an `x_embedder`."""
    for path, shape in outer(title).items():
        for labels in OTHERS[title].labels:
            report = look(tensors({path: shape}), labels)
            assert not report.modules_matched, report.line()


@pytest.mark.parametrize(
    ("shapes", "reason"),
    [
        ({"layers.0.attention_norm1.diff": (2304,)}, "Lumina-Image 2"),
        ({"noise_refiner.1.ffn_norm1.diff": (4608,)}, "Ideogram 4"),
        (tensors({"x_embedder": (2304, 64)}), "Lumina-Image 2"),
        ({"transformer_blocks.30.attn.to_q.diff_b": (2432,)}, "Stable Diffusion 3.5 Large"),
        ({"transformer_blocks.0.attn.to_q.oft_blocks": (4, 512, 512)}, "HunyuanVideo 1.5"),
        (tensors({"img_in": (6144, 64)}), "Krea 2"),
        # ComfyUI's own FLUX.1 shares the one with Qwen-Image, and not the other.
        (tensors({"img_in": (3072, 64), "txt_in": (3072, 4096)}), "txt_in of size (3072, 4096)"),
        # Of Qwen-Image-2.1, half as many rows.
        (
            tensors(
                {
                    "transformer_blocks.0.attn.to_q": (4096, 4096),
                    "transformer_blocks.0.attn.to_k": (4096, 4096),
                    "norm_out.linear": (8192, 4096),
                }
            ),
            "norm_out.linear of size (8192, 4096)",
        ),
        # CogView4 has the `proj_out` of Qwen-Image-2.1.
        (
            tensors({"proj_out": (64, 4096), "transformer_blocks.0.attn1.to_q": (4096, 4096)}),
            "1 of its modules are in no supported model",
        ),
        # CLIP beside such attention as FLUX.1 has, too.
        (
            {**ONE_BLOCK, "lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_up.weight": (9, 1)},
            "no supported model has the text encoder",
        ),
        (
            {**ONE_BLOCK, "text_encoder.text_model.encoder.layers.0.fc1.lora_A.weight": (1, 9)},
            "no supported model has the text encoder",
        ),
    ],
)
def test_few_layers_tell_another_model(shapes: Shapes, reason: str, look: Look) -> None:
    report = look(shapes)
    assert report.architecture is None
    assert reason in (report.refusal or "")


def test_a_deep_other_model_is_not_taken_for_contradictory(look: Look) -> None:
    """A name of a block that only Qwen-Image has means nothing at another size."""
    krea = look(tensors(OTHERS["Krea 2"].linears))
    assert (krea.refusal or "").startswith("made for Krea 2")
    newbie = look(tensors(attention(OTHERS["NewBie"].linears)))
    assert "NewBie" in (newbie.refusal or "")


@pytest.mark.parametrize("width", [128, 64])
def test_norms_of_a_head_say_nothing_against_a_label(width: int, look: Look) -> None:
    shapes = {f"transformer_blocks.{n}.attn.norm_q.diff": (width,) for n in range(54)}
    report = look(shapes, {VERSION: "hunyuan_video_1_5"})
    assert "made for HunyuanVideo" in (report.refusal or "")
    if width == 128:
        assert look(shapes).notes[0].startswith(NOTE)


@pytest.mark.long
def test_the_table_is_that_of_the_classes() -> None:
    """That is long for what has to be imported."""
    diffusers = pytest.importorskip("diffusers", reason="an oracle of the newest ComfyUI only")
    for title, model in OTHERS.items():
        if isinstance(model.source, str):
            continue
        name, config = model.source
        with torch.device("meta"):
            real = getattr(diffusers, name)(**config)
        found = {
            path: tuple(module.weight.shape)
            for path, module in real.named_modules()
            if isinstance(module, torch.nn.Linear)
        }
        assert found == model.linears, title

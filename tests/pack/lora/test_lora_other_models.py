"""No file of a model that shares names with a supported one is applied, and every own file is.

The files have the names and shapes of the real models, in the spellings of their trainers; what
cannot be told from names and shapes is tested as such.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from itertools import count
from pathlib import Path

import pytest
import torch
from support.other_models import (
    COVERAGE,
    FORMS,
    SPELLINGS,
    Labels,
    Shapes,
    attention,
    files,
    other_models,
    own_model,
    tensors,
    write_hollow,
)
from vivace.byte_lru import ByteLru
from vivace.lora.errors import LoraModelError
from vivace.lora.examine import inspect
from vivace.lora.file_report import Report
from vivace.lora.loader import load_lora
from vivace.lora.mapping.other_models import model_of_label

OTHERS = other_models()
# All of whose blocks are those of Z-Image, or of Qwen-Image, by name and shape.
COPIES = {"Z-Image L2P": "z_image", "Zeta-Chroma": "z_image", "Ming-Image": "z_image"}
COPIES["Mage Flow"] = "qwen_image"
TOLD_APART = [title for title in OTHERS if title not in COPIES]
VERSION = "ss_base_model_version"
# Equal to Qwen-Image in the attention of so many blocks, without a telling number of them.
EQUAL_ATTENTION = {
    "Flex.1-alpha": 8,
    "FLUX.2 klein 4B": 5,
    "LongCat-Image": 10,
    "Ovis-Image": 6,
    "Bria FIBO": 8,
}
NOTE = "its names and sizes fit"

Look = Callable[..., Report]


@pytest.fixture
def look(tmp_path: Path) -> Look:
    """Write a file, and return the report on it; of what is not applied, nothing is loaded."""
    numbers = count()

    def report_on(shapes: Shapes, metadata: Labels | None = None) -> Report:
        path = write_hollow(tmp_path / f"{next(numbers)}.safetensors", shapes, metadata)
        try:
            return _looked_at(path)
        finally:
            path.unlink()

    return report_on


def _looked_at(path: Path) -> Report:
    report = inspect(path)
    # It takes as long again, so the few largest files are only inspected.
    if not report.modules_matched and len(report.keys) < 500:
        with pytest.raises(LoraModelError) as caught:
            load_lora(path, cache=ByteLru(0))
        assert (report.refusal or "") in str(caught.value)
    return report


def applied(reports: Iterable[tuple[object, Report]]) -> list[str]:
    """Those files that are not refused with a reason."""
    return [
        f"{name}: {report.line()}"
        for name, report in reports
        if report.architecture is not None or not report.refusal
    ]


def attention_of(title: str, blocks: Iterable[int]) -> Shapes:
    return attention(OTHERS[title].of(blocks))


ONE_BLOCK = tensors(attention_of("FLUX.1 dev", [0]))


# --- files that names or shapes tell apart


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


# --- files that only a label tells apart


@pytest.mark.parametrize(
    "blocks", [[0], [1], [18], [0, 1], [3, 7, 12], range(18)], ids=lambda blocks: str(list(blocks))
)
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_attention_of_few_blocks_is_anybodys(
    blocks: Iterable[int], spelling: str, look: Look
) -> None:
    """A limit: FLUX.1, Chroma, HunyuanVideo, FramePack, LongCat-Image, Ovis-Image, Bria, FLUX.2 and
    Mage Flow have these layers with the very names and sizes of Qwen-Image's."""
    linears = attention_of("FLUX.1 dev", blocks)
    assert tensors(linears) == tensors(attention(own_model("qwen_image").of(blocks)))
    shapes = tensors(linears, spelling)
    unlabelled = look(shapes)
    assert (unlabelled.architecture, unlabelled.modules_matched) == ("qwen_image", len(linears))
    assert unlabelled.notes == (f"{NOTE} FLUX.1, Chroma and HunyuanVideo too, without a label",)
    own = look(shapes, {VERSION: "qwen_image"})
    assert (own.architecture, own.notes) == ("qwen_image", ())
    assert "made for FLUX.1" in (look(shapes, {VERSION: "flux.1"}).refusal or "")


@pytest.mark.parametrize("title", EQUAL_ATTENTION)
def test_few_whole_depths_of_attention_are_anybodys(title: str, look: Look) -> None:
    """A limit: so many blocks are as likely somebody's choice of Qwen-Image's blocks."""
    assert OTHERS[title].depth == EQUAL_ATTENTION[title]
    report = look(tensors(attention_of(title, range(20))))
    assert report.architecture == "qwen_image"
    assert report.notes[0].startswith(NOTE)
    for labels in OTHERS[title].labels:
        assert look(tensors(attention_of(title, range(20))), labels).refusal


@pytest.mark.parametrize("title", ["FLUX.1 dev", "Chroma", "HunyuanVideo", "FramePack"])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_attention_of_every_block_of_a_known_depth_is_refused(
    title: str, spelling: str, look: Look
) -> None:
    depth = OTHERS[title].depth
    shapes = tensors(attention_of(title, range(depth)), spelling)
    reason = f"the attention of just {depth} blocks, and no label"
    assert reason in (look(shapes).refusal or "")
    assert look(shapes, {VERSION: "qwen_image"}).architecture == "qwen_image"
    reports = [(labels, look(shapes, labels)) for labels in OTHERS[title].labels]
    assert applied(reports) == []


def test_klein_9b_has_attention_of_qwen_image_21(look: Look) -> None:
    """A limit: without its layers of the text stream, which most trainers take along."""
    title, names = "FLUX.2 klein 9B", ("to_q", "to_k", "to_v", "to_out.0")
    both = attention_of(title, range(8))
    one = {path: shape for path, shape in both.items() if path.endswith(names)}
    assert look(tensors(both)).refusal
    report = look(tensors(one))
    assert report.architecture == "qwen_image_21"
    assert report.notes == (f"{NOTE} FLUX.2 too, without a label",)
    assert applied((labels, look(tensors(one), labels)) for labels in OTHERS[title].labels) == []
    assert look(tensors(one), {VERSION: "qwen_image_2"}).notes == ()


@pytest.mark.parametrize("blocks", range(1, 13))
def test_mage_flow_is_known_by_its_twelve_blocks_or_a_label(blocks: int, look: Look) -> None:
    """A limit: all layers of its blocks are in Qwen-Image, with the same names and sizes."""
    mage = OTHERS["Mage Flow"]
    linears = mage.of(range(blocks))
    assert linears == own_model("qwen_image").of(range(blocks))
    spelling = [*SPELLINGS][blocks % len(SPELLINGS)]
    report = look(tensors(linears, spelling))
    if blocks == mage.depth:
        assert "probably made for Mage Flow" in (report.refusal or "")
    else:
        assert report.architecture == "qwen_image"
        assert report.notes == (f"{NOTE} Mage Flow too, without a label",)
    labelled = ((labels, look(tensors(linears, spelling), labels)) for labels in mage.labels)
    assert applied(labelled) == []


def test_a_mage_flow_file_is_known_by_any_layer_outside_of_the_blocks(look: Look) -> None:
    mage = OTHERS["Mage Flow"]
    assert "made for Mage Flow" in (look(tensors(mage.linears)).refusal or "")


def test_mage_flow_without_its_modulation_is_anybodys(look: Look) -> None:
    """A limit: the default of musubi-tuner, which labels its files, leaves the modulation out."""
    shapes = tensors(COVERAGE["all blocks without modulation"](OTHERS["Mage Flow"]), "kohya")
    assert look(shapes).notes == (f"{NOTE} Mage Flow too, without a label",)
    assert look(shapes, {VERSION: "mage_flow"}).refusal


LABELS_OF_COPIES = {
    "Ming-Image": "ming_image",
    "Zeta-Chroma": "zeta_chroma",
    "Z-Image L2P": "zimage_l2p",
}


@pytest.mark.parametrize("title", LABELS_OF_COPIES)
def test_models_that_copy_z_image_are_known_by_a_label(title: str, look: Look) -> None:
    """A limit: they have Z-Image's blocks. Their files are applied unless something else in them
    says whose they are; all Z-Image files look like them, so that a note would say nothing."""
    model = OTHERS[title]
    own = own_model("z_image")
    for coverage in ("the first block", "two blocks", "all blocks"):
        linears = {p: s for p, s in COVERAGE[coverage](model).items() if "dec_net" not in p}
        if title != "Zeta-Chroma":  # its q, k and v are one
            assert linears.items() <= own.linears.items()
        for spelling in SPELLINGS:
            unlabelled = look(tensors(linears, spelling))
            assert (unlabelled.architecture, unlabelled.notes) == ("z_image", ())
            labelled = look(tensors(linears, spelling), {VERSION: LABELS_OF_COPIES[title]})
            assert f"made for {title}" in (labelled.refusal or "")


@pytest.mark.parametrize("title", ["Zeta-Chroma", "Z-Image L2P"])
def test_what_copies_of_z_image_have_outside_of_the_blocks_tells_them(
    title: str, look: Look
) -> None:
    assert f"made for {title}" in (look(tensors(OTHERS[title].linears)).refusal or "")


# --- labels


FOREIGN = {
    "Flux.1-dev/lora": "FLUX.1",
    "FLUX.1-DEV/LORA": "FLUX.1",
    "Flux": "FLUX.1",
    "flux_kontext": "FLUX.1",
    "networks.lora_flux": "FLUX.1",
    "networks.oft_flux": "FLUX.1",
    "FLUX_1_dev": "FLUX.1",
    "  flux.1 ": "FLUX.1",
    "flux2_klein_4b": "FLUX.2",
    "flux2_klein_9b": "FLUX.2",
    "Flux.2 Klein 9B": "FLUX.2",
    "black-forest-labs/FLUX.1-dev": "FLUX.1",
    "black-forest-labs/FLUX.2-klein-4B": "FLUX.2",
    "krea/FLUX.1-Krea-dev": "FLUX.1",
    "models--black-forest-labs--FLUX.1-dev": "FLUX.1",
    "models--black-forest-labs--FLUX.1-dev/snapshots/0a1b2c": "FLUX.1",
    "/models/qwen-image/flux1-dev.safetensors": "FLUX.1",
    "D:\\wan\\flux1-dev.safetensors": "FLUX.1",
    "/home/ming/FLUX.1-dev/transformer": "FLUX.1",
    "FluxTransformer2DModel": "FLUX.1",
    "Flux2Transformer2DModel": "FLUX.2",
    "ostris/Flex.1-alpha": "FLUX.1",
    "lodestones/Chroma1-HD": "Chroma",
    "ChromaTransformer2DModel": "Chroma",
    "Mage-Flow-Edit/lora": "Mage Flow",
    "MageFlowTransformer2DModel": "Mage Flow",
    "AIDC-AI/Ovis-Image-7B": "Ovis-Image",
    "OvisImageTransformer2DModel": "Ovis-Image",
    "meituan-longcat/LongCat-Image": "LongCat-Image",
    "LongCatImageTransformer2DModel": "LongCat-Image",
    "briaai/FIBO": "Bria",
    "BriaFiboTransformer2DModel": "Bria",
    "tencent/HunyuanVideo": "HunyuanVideo",
    "HunyuanVideoTransformer3DModel": "HunyuanVideo",
    "lllyasviel/FramePackI2V_HY": "FramePack",
    "networks.lora_framepack": "FramePack",
    "Motif-Technologies/Motif-Video-2B": "Motif-Video",
}
OWN = {
    "qwen_image": "Qwen-Image",
    "Qwen-Image-Edit-2511/lora": "Qwen-Image",
    "QWEN_IMAGE_EDIT": "Qwen-Image",
    "qwen_image:2512": "Qwen-Image",
    "Qwen/Qwen-Image-Edit": "Qwen-Image",
    "models--Qwen--Qwen-Image/snapshots/0a1b2c": "Qwen-Image",
    "/home/flux/models/Qwen-Image/transformer": "Qwen-Image",
    "C:\\flux\\qwen_image_bf16.safetensors": "Qwen-Image",
    "networks.lora_qwen_image": "Qwen-Image",
    "QwenImageTransformer2DModel": "Qwen-Image",
    "qwen_image_2": "Qwen-Image-2.1",
    "Qwen-Image-2.1/lora": "Qwen-Image-2.1",
    "networks.lora_qwen_image_21": "Qwen-Image-2.1",
    "QwenImage21Transformer2DModel": "Qwen-Image-2.1",
    "Z-image turbo": "Z-Image",
    "/home/ming/Z-Image-Turbo": "Z-Image",
    "ZImageTransformer2DModel": "Z-Image",
}


@pytest.mark.parametrize("text", {**FOREIGN, **OWN})
def test_what_a_label_means(text: str) -> None:
    assert model_of_label(text) == {**FOREIGN, **OWN}[text]


@pytest.mark.parametrize("text", FOREIGN)
def test_a_foreign_label_decides_where_nothing_else_does(text: str, look: Look) -> None:
    adapter = json.dumps({"transformer.auto_mapping": {"base_model_class": text}})
    repository = json.dumps({"transformer.base_model_name_or_path": text})
    headers = [
        {VERSION: text},
        {"modelspec.architecture": text},
        {"ss_network_module": text},
        {"lora_adapter_metadata": adapter},
        {"lora_adapter_metadata": repository},
    ]
    assert applied((header, look(ONE_BLOCK, header)) for header in headers) == []


@pytest.mark.parametrize(
    ("config", "refusal"),
    [
        ({"base_model_name_or_path": "black-forest-labs/FLUX.1-dev"}, "made for FLUX.1"),
        ({"auto_mapping": {"base_model_class": "ChromaTransformer2DModel"}}, "made for Chroma"),
        ({"base_model_name_or_path": "Qwen/Qwen-Image"}, None),
    ],
)
def test_the_configuration_beside_an_adapter_is_a_label(
    config: dict, refusal: str | None, tmp_path: Path
) -> None:
    stated = {"peft_type": "LORA", "r": 1, "lora_alpha": 1, **config}
    (tmp_path / "adapter_config.json").write_text(json.dumps(stated), encoding="utf-8")
    linears = attention_of("FLUX.1 dev", [0])
    path = write_hollow(tmp_path / "adapter_model.safetensors", tensors(linears, "PEFT"))
    report = _looked_at(path)
    assert report.architecture == (None if refusal else "qwen_image")
    assert report.notes == ()
    assert (refusal or "") in (report.refusal or "")


# --- files of the supported models


RIGHT = {"qwen_image": "qwen_image", "qwen_image_21": "qwen_image_2", "z_image": "zimage"}
WRONG = ("flux.1", "sdxl_base_v1-0")


def whole(report: Report, name: str, linears: Shapes) -> bool:
    """Whether all of a file is applied."""
    matched = (report.architecture, report.modules_matched, report.faults)
    return matched == (name, len(linears), ())


@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize("name", RIGHT)
def test_every_file_of_a_supported_model_is_applied(name: str, labelled: bool, look: Look) -> None:
    for coverage, spelling, linears in files(own_model(name)):
        report = look(tensors(linears, spelling), {VERSION: RIGHT[name]} if labelled else {})
        assert whole(report, name, linears), f"{coverage}, {spelling}: {report.line()}"
        anybodys = name == "qwen_image" and coverage in ("the first block", "two blocks")
        assert bool(report.notes) == (anybodys and not labelled), report.line()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", RIGHT)
def test_a_wrong_label_is_noted_where_names_are_distinctive(
    name: str, form: str, look: Look
) -> None:
    linears = own_model(name).of([0, 1])
    for text in WRONG:
        report = look(tensors(linears, form=form), {VERSION: text})
        assert whole(report, name, linears), report.line()
        assert report.notes[0].startswith(f"{VERSION} says {text!r}, but")


@pytest.mark.parametrize("name", RIGHT)
def test_files_of_any_number_of_blocks_are_applied(name: str, look: Look) -> None:
    """But for such as have no label, and just what a whole smaller model has."""
    model = own_model(name)
    refused = {"qwen_image": {("all", 12), ("attention", 19), ("attention", 20)}}.get(name, set())
    for depth in range(1, model.depth + 1):
        blocks = model.of(range(depth))
        for kind, linears in (("all", blocks), ("attention", attention(blocks))):
            shapes = tensors(linears)
            unlabelled = look(shapes)
            assert whole(unlabelled, name, linears) == ((kind, depth) not in refused)
            if (kind, depth) in refused:
                assert whole(look(shapes, {VERSION: RIGHT[name]}), name, linears)


def test_blocks_that_only_qwen_image_has_outweigh_a_label(look: Look) -> None:
    linears = attention(own_model("qwen_image").of([0, 20]))
    assert look(tensors(linears)).notes == ()
    report = look(tensors(linears), {VERSION: "flux.1"})
    assert whole(report, "qwen_image", linears)
    assert report.notes[0].startswith(f"{VERSION} says 'flux.1'")


# --- the table itself


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

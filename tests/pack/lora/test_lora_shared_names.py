"""Files that fit two models by names and shapes: a label decides, or the report says so."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from support.other_model_reports import NOTE, OTHERS, VERSION, Look, applied, attention_of
from support.other_models import COVERAGE, SPELLINGS, attention, own_model, tensors

# Equal to Qwen-Image in the attention of so many blocks, without a telling number of them.
EQUAL_ATTENTION = {
    "Flex.1-alpha": 8,
    "FLUX.2 klein 4B": 5,
    "LongCat-Image": 10,
    "Ovis-Image": 6,
    "Bria FIBO": 8,
}


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

"""Every file of a supported model is applied, whatever it covers and however it is spelled."""

from __future__ import annotations

import pytest
from support.other_model_reports import VERSION, Look
from support.other_models import FORMS, Shapes, attention, files, own_model, tensors
from vivace.lora.file_report import Report

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

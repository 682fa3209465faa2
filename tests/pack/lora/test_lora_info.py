"""What is known of a LoRA from its header and the files beside it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.lora_samples import write
from support.opened_paths import opened_paths
from vivace.byte_lru import ByteLru
from vivace.lora import examine
from vivace.lora.errors import LoraFileError, LoraFormatError
from vivace.lora.files.sidecars import MAX_BYTES, find_preview, previews
from vivace.lora.info import LoraInfo, lora_info, training_tags
from vivace.lora.loader import load_lora
from vivace.lora.text_encoder_part import read_text_encoder

STEM = "diffusion_model.transformer_blocks.0.attn.to_q"
KOHYA = {
    "ss_base_model_version": "qwen_image",
    "ss_output_name": "Ink",
    "ss_network_dim": "4",
    "ss_network_alpha": "2.0",
    "ss_tag_frequency": json.dumps(
        {"10_ink": {"inkstyle": 20, " solo": 7, "cat": "many"}, "5_more": {"solo": 5, "tree": 12}}
    ),
}


def save(path: Path, metadata: dict[str, str] | None = None, **ranks: int) -> Path:
    """A LoRA of one or two modules of the real Qwen-Image."""
    tensors = {}
    for part, rank in (ranks or {"q": 4}).items():
        stem = STEM[:-1] + part
        tensors[f"{stem}.lora_A.weight"] = torch.zeros(rank, 3072)
        tensors[f"{stem}.lora_B.weight"] = torch.zeros(3072, rank)
    return write(path, tensors, metadata)


def beside(lora: Path, ending: str, content: Any) -> Path:
    path = lora.with_name(lora.stem + ending)
    path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    return path


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    return save(tmp_path / "ink v1.5.safetensors", KOHYA)


def test_a_header_alone_says_this(lora: Path) -> None:
    assert lora_info(lora) == LoraInfo(
        name="ink v1.5.safetensors",
        title="Ink",
        base_model="qwen_image",
        architecture="Qwen-Image",
        format="LoRA",
        rank=4,
        rank_lowest=4,
        alpha=2.0,
        modules=1,
        modules_total=1,
        trigger_words=("inkstyle",),
        tags=(("inkstyle", 20), ("solo", 12), ("tree", 12)),
        notes=None,
        size=lora.stat().st_size,
        problems=(),
        warnings=(
            "The header says ss_network_alpha 2 at rank 4, but 1 of 1 modules have no alpha; those"
            " are applied with scale 1.",
        ),
    )


def test_a_bare_file_says_what_its_tensors_say(tmp_path: Path) -> None:
    info = lora_info(save(tmp_path / "bare.safetensors", q=2, k=8))
    assert (info.rank_lowest, info.rank, info.modules, info.modules_total) == (2, 8, 2, 2)
    assert info.title is info.base_model is info.alpha is info.notes is None
    assert info.trigger_words == info.tags == info.problems == ()


def test_it_is_ready_for_json(lora: Path) -> None:
    known = lora_info(lora).as_dict()
    assert json.loads(json.dumps(known)) == known
    assert known["tags"] == [["inkstyle", 20], ["solo", 12], ["tree", 12]]
    assert known["trigger_words"] == ["inkstyle"]


def test_a_lora_for_another_model_says_so(tmp_path: Path) -> None:
    path = tmp_path / "foreign.safetensors"
    foreign = {"lora_unet_down_blocks_0.lora_up.weight": torch.zeros(4, 2)}
    info = lora_info(write(path, foreign, {**KOHYA, "ss_base_model_version": "sdxl_base_v1-0"}))
    assert (info.architecture, info.base_model, info.rank) == (None, "sdxl_base_v1-0", 4)
    assert "fits no supported model" in info.problems[0]


CIVITAI = {
    "name": "v1.5",
    "baseModel": "Qwen",
    "trainedWords": ["inkstyle, ", "black ink", "inkstyle", 7, " "],
    "description": "<p>Use <b>low</b> &amp; slow<br>please</p>",
    "model": {"name": "Ink & Brush", "type": "LORA"},
}


@pytest.mark.parametrize("ending", [".civitai.info", ".info"])
def test_what_civitai_knows(lora: Path, ending: str) -> None:
    beside(lora, ending, CIVITAI)
    info = lora_info(lora)
    assert info.title == "Ink & Brush"
    assert info.base_model == "Qwen"
    assert info.trigger_words == ("inkstyle", "black ink")
    assert info.notes == "Use low & slow\nplease"
    assert info.tags[0] == ("inkstyle", 20)


def test_what_a_web_ui_knows(lora: Path) -> None:
    card = {"activation text": "ink, brush,", "sd version": "Unknown", "notes": "mine"}
    beside(lora, ".json", {**card, "description": "theirs", "preferred weight": 0.8})
    info = lora_info(lora)
    assert info.trigger_words == ("ink", "brush")
    assert info.base_model == "qwen_image"
    assert info.notes == "mine"


def test_what_lora_manager_knows_and_what_goes_before_what(lora: Path) -> None:
    beside(lora, ".civitai.info", {**CIVITAI, "trainedWords": ["downloaded"]})
    beside(
        lora,
        ".metadata.json",
        {"model_name": "My ink", "base_model": "Qwen Image", "notes": "", "civitai": CIVITAI},
    )
    info = lora_info(lora)
    assert (info.title, info.base_model) == ("My ink", "Qwen Image")
    assert info.trigger_words == ("inkstyle", "black ink", "downloaded")
    assert info.notes == "Use low & slow\nplease"
    beside(lora, ".txt", "\ufeff my <own> notes \n")
    assert lora_info(lora).notes == "my <own> notes"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{", "it is no JSON object"),
        ("[]", "it is no JSON object"),
        ("", "it is no JSON object"),
        ("[" * 100_000, "it is no JSON object"),
        ('{"notes": "' + "x" * MAX_BYTES + '"}', "it is larger than 4 MiB"),
    ],
)
def test_a_broken_or_huge_sidecar_is_ignored_with_a_note(
    lora: Path, content: str, problem: str
) -> None:
    beside(lora, ".json", content)
    beside(lora, ".civitai.info", CIVITAI)
    info = lora_info(lora)
    assert info.problems == (f"ink v1.5.json is ignored: {problem}.",)
    assert info.title == "Ink & Brush"


def test_a_sidecar_that_is_no_file_is_none(lora: Path) -> None:
    lora.with_name("ink v1.5.json").mkdir()
    if hasattr(os, "mkfifo"):
        os.mkfifo(lora.with_name("ink v1.5.info"))  # opening it would wait for ever
    assert lora_info(lora).problems == ()


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
FIELDS = (
    *("model_name", "base_model", "notes", "description", "modelDescription", "baseModel"),
    *("civitai", "model", "trainedWords", "activation text", "sd version", "name"),
)


@given(st.dictionaries(st.sampled_from(FIELDS), json_values))
def test_any_sidecar_leaves_values_of_their_types(
    tmp_path_factory: pytest.TempPathFactory, content: dict[str, Any]
) -> None:
    lora = save(tmp_path_factory.mktemp("any") / "x.safetensors")
    beside(lora, ".json", content)
    known = lora_info(lora).as_dict()
    assert known["problems"] == []
    for name in ("title", "base_model", "notes"):
        assert known[name] is None or known[name].strip()
    assert all(isinstance(word, str) and word for word in known["trigger_words"])
    json.dumps(known, ensure_ascii=False).encode()


@given(st.one_of(st.text(), json_values.map(json.dumps)))
def test_any_tag_frequency_is_read_or_none(text: str) -> None:
    tags = training_tags({"ss_tag_frequency": text})
    assert all(tag and count > 0 for tag, count in tags)
    assert [count for _, count in tags] == sorted((count for _, count in tags), reverse=True)


def test_captions_that_occur_once_are_no_trigger_words(tmp_path: Path) -> None:
    captions = json.dumps({"img": {"a cat on a mat": 1, "a dog in fog": 1}})
    info = lora_info(save(tmp_path / "c.safetensors", {"ss_tag_frequency": captions}))
    assert info.trigger_words == ()
    assert len(info.tags) == 2


def test_a_path_of_the_trainer_s_machine_stays_out(tmp_path: Path) -> None:
    metadata = {"ss_sd_model_name": "D:\\people\\anna\\qwen.safetensors"}
    assert lora_info(save(tmp_path / "p.safetensors", metadata)).base_model == "qwen.safetensors"


def test_only_the_lora_file_itself_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LoraFileError, match="no such file"):
        lora_info(tmp_path / "none.safetensors")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"this is not safetensors at all, whatever its name says")
    with pytest.raises(LoraFormatError, match="not a valid safetensors"):
        lora_info(broken)


def test_files_are_read_again_only_if_they_changed(
    lora: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    real = examine.LoraFile
    monkeypatch.setattr(examine, "LoraFile", lambda path: opened.append(path) or real(path))
    first = lora_info(lora)
    assert lora_info(str(lora)) is first
    assert len(opened) == 1
    beside(lora, ".txt", "new")
    assert lora_info(lora).notes == "new"
    save(lora, {**KOHYA, "ss_output_name": "Other"})
    assert lora_info(lora).title == "Other"
    assert len(opened) == 2


def test_a_loaded_file_is_not_opened_again_for_what_is_known_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / "a.safetensors", KOHYA)
    opened = opened_paths(monkeypatch)
    load_lora(path, cache=ByteLru(0), text_encoder=True)
    assert lora_info(path).trigger_words == ("inkstyle",)
    assert examine.inspect(path).modules_matched == 1
    assert read_text_encoder(path) == {}
    assert opened.count(path) == 1


def test_a_changed_file_of_the_same_size_and_time_is_seen(lora: Path) -> None:
    before = lora.stat()
    assert lora_info(lora).title == "Ink"
    other = lora.read_bytes().replace(b'"Ink"', b'"Ash"')
    lora.write_bytes(other)
    os.utime(lora, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert lora.stat().st_size == before.st_size
    assert lora_info(lora).title == "Ash"


def test_no_tensor_is_read(lora: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*_: object) -> None:
        raise AssertionError("a tensor was read")

    monkeypatch.setattr(examine.LoraFile, "read", read)
    assert lora_info(lora).modules == 1


@pytest.mark.parametrize(
    ("files", "preview"),
    [
        (["ink.PNG", "ink.txt"], "ink.PNG"),
        (["ink.preview.webp", "ink.jpeg"], "ink.jpeg"),
        (["ink.preview.jpg"], "ink.preview.jpg"),
        (["ink.mp4", "inks.png", "in.png"], None),
    ],
)
def test_the_preview_is_an_image_of_the_same_name(
    tmp_path: Path, files: list[str], preview: str | None
) -> None:
    for name in files:
        (tmp_path / name).touch()
    (tmp_path / "ink.gif").mkdir()
    found = find_preview(tmp_path / "ink.safetensors")
    assert (found and found.name) == preview
    assert previews(files).get("ink") == preview
    assert find_preview(tmp_path / "no folder" / "ink.safetensors") is None

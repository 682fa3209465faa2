"""Finding model folders, and telling complete ones from all the ways of being incomplete."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from vivace.hub.model_check import INDEX, MARKER, check_complete, check_model
from vivace.hub.model_folders import ModelFolderError, find_models, read_model

QWEN3_VL = {
    "architectures": ["Qwen3VLForConditionalGeneration"],
    "model_type": "qwen3_vl",
    "vision_config": {"patch_size": 16},
}
LLM = {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3"}
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n"
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


def make(path: Path, config: object = QWEN3_VL, sharded: bool = True) -> Path:
    """A folder with all that a model needs, its weights very small."""
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(config))
    (path / "tokenizer.json").write_text("{}")
    (path / "preprocessor_config.json").write_text("{}")
    if not sharded:
        save_file({"a": torch.zeros(3)}, path / "model.safetensors")
        return path
    save_file({"a": torch.zeros(3)}, path / SHARDS[0])
    save_file({"b": torch.zeros(2, 2), "c": torch.zeros(1)}, path / SHARDS[1])
    places = {"a": SHARDS[0], "b": SHARDS[1], "c": SHARDS[1]}
    (path / INDEX).write_text(json.dumps({"weight_map": places}))
    return path


def problem(path: Path) -> ModelFolderError:
    with pytest.raises(ModelFolderError) as caught:
        check_complete(path)
    assert str(caught.value).startswith(f"{path}: ")
    return caught.value


def test_models_are_found_by_what_they_can_do(tmp_path: Path) -> None:
    make(tmp_path / "a" / "Qwen" / "holiday photos", QWEN3_VL)
    make(tmp_path / "a" / "Qwen3-VL-but-text", LLM)
    make(tmp_path / "b" / "gpt", {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2"})
    make(tmp_path / "b" / "own", {**LLM, "auto_map": {"AutoModel": "x.Y"}})
    found = find_models([tmp_path / "a", str(tmp_path / "b"), tmp_path / "missing"])
    assert found.problems == ()
    assert [
        (m.name, m.model_type, m.has_vision, m.has_own_code) for m in found.models.values()
    ] == [
        ("Qwen/holiday photos", "qwen3_vl", True, False),
        ("Qwen3-VL-but-text", "qwen3", False, False),
        ("gpt", "gpt2", False, False),
        ("own", "qwen3", False, True),
    ]
    assert found.models["Qwen/holiday photos"].path == tmp_path / "a" / "Qwen" / "holiday photos"


@pytest.mark.parametrize(
    "config",
    [
        {"architectures": ["CLIPModel"], "vision_config": {}},
        {"architectures": ["T5ForConditionalGeneration"], "model_type": "t5"},
        {"_class_name": "UNet2DConditionModel"},
        {"architectures": "Qwen3ForCausalLM"},
        {"architectures": [None]},
    ],
)
def test_other_models_are_left_out(tmp_path: Path, config: object) -> None:
    path = make(tmp_path / "other", config)
    found = find_models([tmp_path])
    assert (found.models, found.problems) == ({}, ())
    assert "not that of a model that writes text" in str(problem(path))


def test_hidden_partial_and_linked_folders(tmp_path: Path) -> None:
    real = make(tmp_path / "elsewhere" / "real")
    root = tmp_path / "root"
    make(root / ".hidden")
    make(root / "half.partial")
    make(root / "1/2/3/4/5")
    make(root / "1/2/3/4/5b/6")
    (root / "linked").symlink_to(real, target_is_directory=True)
    (root / "loop").symlink_to(root, target_is_directory=True)
    assert list(find_models([root]).models) == ["1/2/3/4/5", "linked"]


def test_the_earlier_root_wins_and_a_root_may_be_a_model(tmp_path: Path) -> None:
    first, second = make(tmp_path / "a" / "m"), make(tmp_path / "b" / "m", LLM)
    assert find_models([tmp_path / "a", tmp_path / "b"]).models["m"].path == first
    assert find_models([second]).models["m"].path == second


def test_unreadable_configs_are_reported_beside_the_others(tmp_path: Path) -> None:
    make(tmp_path / "fine")
    for name, text in [("half", '{"archi'), ("list", "[]"), ("lfs", LFS), ("deep", "[" * 99_999)]:
        (make(tmp_path / name) / "config.json").write_text(text)
    (make(tmp_path / "folder") / "config.json").unlink()
    (tmp_path / "folder" / "config.json").mkdir()
    found = find_models([tmp_path])
    assert list(found.models) == ["fine"]
    problems = {Path(error.path).name: error.problem for error in found.problems}
    assert problems == {
        "half": "config.json is not a JSON object",
        "list": "config.json is not a JSON object",
        "deep": "config.json is not a JSON object",
        "lfs": "config.json: only Git LFS pointers, not the files themselves",
        "folder": "config.json cannot be read (Is a directory)",
    }


def test_a_folder_without_config_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelFolderError, match=r"config\.json is missing\. Download"):
        read_model(tmp_path)


@pytest.mark.parametrize("sharded", [True, False])
def test_a_complete_model(tmp_path: Path, sharded: bool) -> None:
    path = make(tmp_path / "m", sharded=sharded)
    checked = check_complete(path)
    assert [file.name for file in checked.weights] == (
        list(SHARDS) if sharded else ["model.safetensors"]
    )
    assert checked.nbytes == sum(file.stat().st_size for file in path.glob("*.safetensors"))
    assert checked.revision is None


def test_missing_shards_are_all_named(tmp_path: Path) -> None:
    path = make(tmp_path / "m")
    (path / SHARDS[0]).unlink()
    error = problem(path)
    assert error.problem == f"1 of 2 weight files are missing: {SHARDS[0]}"
    assert error.missing == (SHARDS[0],)
    (path / SHARDS[1]).unlink()
    assert problem(path).missing == SHARDS
    twin = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert (str(twin), twin.missing) == (str(error), error.missing)


def test_a_shard_of_the_wrong_size(tmp_path: Path) -> None:
    path = make(tmp_path / "m")
    size = (path / SHARDS[1]).stat().st_size
    for wrong in (size - 1, size + 1):
        os.truncate(path / SHARDS[1], wrong)
        assert problem(path).problem == f"{SHARDS[1]} has {wrong} bytes in place of {size}"
    for wrong in (0, 5):
        os.truncate(path / SHARDS[1], wrong)
        assert problem(path).problem == f"{SHARDS[1]} is no safetensors file ({wrong} bytes)"


@pytest.mark.parametrize(
    "header", [b"{}" + b" " * 20 + b"x", b"[1]", b'{"a": 1}', b'{"a": {"data_offsets": []}}']
)
def test_a_damaged_header(tmp_path: Path, header: bytes) -> None:
    path = make(tmp_path / "m")
    (path / SHARDS[0]).write_bytes(len(header).to_bytes(8, "little") + header)
    assert problem(path).problem == f"{SHARDS[0]} has a damaged header"


def test_shards_of_another_version(tmp_path: Path) -> None:
    path = make(tmp_path / "m")
    save_file({"other": torch.zeros(3)}, path / SHARDS[0])
    assert problem(path).problem == f"{SHARDS[0]} lacks tensors that {INDEX} promises: a"


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("tokenizer.json", "the tokenizer is missing: tokenizer.json or vocab.json and merges"),
        ("preprocessor_config.json", "the image processor is missing: preprocessor_config.json"),
        (INDEX, f"{INDEX} is missing, which says what {SHARDS[0]}, {SHARDS[1]} should hold"),
    ],
)
def test_a_missing_small_file(tmp_path: Path, name: str, what: str) -> None:
    path = make(tmp_path / "m")
    (path / name).unlink()
    error = problem(path)
    assert error.problem.startswith(what)
    assert error.missing == (name,)


def test_a_text_model_needs_no_image_processor(tmp_path: Path) -> None:
    path = make(tmp_path / "m", LLM)
    (path / "preprocessor_config.json").unlink()
    (path / "tokenizer.json").rename(path / "vocab.json")
    assert "the tokenizer is missing" in problem(path).problem
    (path / "merges.txt").write_text("")
    assert check_complete(path).folder.has_vision is False


@pytest.mark.parametrize("name", [SHARDS[1], "tokenizer.json"])
def test_lfs_pointers(tmp_path: Path, name: str) -> None:
    path = make(tmp_path / "m")
    (path / name).write_text(LFS)
    error = problem(path)
    assert error.problem == f"{name}: only Git LFS pointers, not the files themselves"
    assert "git lfs pull" in error.remedy


@pytest.mark.parametrize(
    "name", ["model.safetensors.incomplete", ".cache/huggingface/download/x.abc.incomplete"]
)
def test_an_unfinished_download(tmp_path: Path, name: str) -> None:
    path = make(tmp_path / "m")
    (path / name).parent.mkdir(parents=True, exist_ok=True)
    (path / name).write_text("")
    assert problem(path).problem == f"a download was not finished: {name}"


@pytest.mark.parametrize("outside", ["../x.safetensors", "/x.safetensors", "a\\x.safetensors", 1])
def test_an_index_that_leads_out_of_the_folder(tmp_path: Path, outside: object) -> None:
    path = make(tmp_path / "m")
    (path / INDEX).write_text(json.dumps({"weight_map": {"a": outside}}))
    assert problem(path).problem == f"{INDEX} names a file outside of the folder"


@pytest.mark.parametrize("index", [{}, {"weight_map": {}}, {"weight_map": []}])
def test_an_index_that_says_nothing(tmp_path: Path, index: object) -> None:
    path = make(tmp_path / "m")
    (path / INDEX).write_text(json.dumps(index))
    assert problem(path).problem == f"{INDEX} has no weight_map"


def test_pickled_or_no_weights(tmp_path: Path) -> None:
    path = make(tmp_path / "m", sharded=False)
    (path / "model.safetensors").unlink()
    assert "there are no weights: neither" in problem(path).problem
    (path / "pytorch_model.bin").write_text("")
    assert "the weights are pickles" in problem(path).problem


def test_code_of_the_models_own_is_never_run(tmp_path: Path) -> None:
    config = {**LLM, "model_type": "mystery", "auto_map": {"AutoModel": "modeling.Mystery"}}
    path = make(tmp_path / "m", config)
    (path / "modeling.py").write_text("raise SystemExit")
    with pytest.raises(ModelFolderError, match=r"'mystery' needs Python code .* never run here"):
        check_model(path)
    (path / "config.json").write_text(json.dumps({**LLM, "model_type": "mystery"}))
    with pytest.raises(ModelFolderError, match=r"does not know model type 'mystery'.*Update"):
        check_model(path)
    (path / "config.json").write_text(json.dumps({**config, "model_type": "qwen3"}))
    assert check_model(path).folder.model_type == "qwen3"


def test_identity_follows_every_file(tmp_path: Path) -> None:
    path = make(tmp_path / "m")
    seen = {check_complete(path).identity}
    assert check_complete(path).identity in seen

    def changed() -> bool:
        identity = check_complete(path).identity
        new = identity not in seen
        seen.add(identity)
        return new

    for name in (*SHARDS, "tokenizer.json", "config.json", INDEX):
        os.utime(path / name, ns=(1, 1))
        assert changed(), name
    (path / "config.json").write_text(json.dumps({**QWEN3_VL, "x": 1}))
    os.utime(path / "config.json", ns=(1, 1))
    assert changed()
    shutil.copytree(path, tmp_path / "twin", copy_function=shutil.copy2)
    assert check_complete(tmp_path / "twin").identity not in seen


def test_a_snapshot_of_the_hubs_cache_knows_its_revision(tmp_path: Path) -> None:
    path = make(tmp_path / "models--org--m" / "snapshots" / ("ab" * 20))
    (found,) = find_models([tmp_path]).models.values()
    assert found.path == path
    assert check_complete(path).revision == "ab" * 20


def test_the_hubs_notes_tell_the_revision_until_a_file_changes(tmp_path: Path) -> None:
    path = make(tmp_path / "m")
    notes = path / ".cache" / "huggingface" / "download"
    notes.mkdir(parents=True)
    for file in path.glob("*.*"):
        if file.is_file():
            (notes / f"{file.name}.metadata").write_text(f"{'cd' * 20}\netag\n{time.time()}\n")
    assert check_complete(path).revision == "cd" * 20
    later = time.time() + 60
    os.utime(path / SHARDS[0], (later, later))
    assert check_complete(path).revision is None
    (notes / f"{SHARDS[0]}.metadata").write_text(f"{'ef' * 20}\netag\n{later}\n")
    assert check_complete(path).revision is None


def test_our_notes_tell_the_revision_until_a_file_changes(tmp_path: Path) -> None:
    path = make(tmp_path / "m")
    files = {file.name: file.stat().st_size for file in path.iterdir()}
    (path / MARKER).write_text(json.dumps({"revision": "12" * 20, "files": files}))
    assert check_complete(path).revision == "12" * 20
    save_file({"a": torch.zeros(4)}, path / SHARDS[0])
    assert check_complete(path).revision is None

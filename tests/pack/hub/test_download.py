"""Downloading a model from a hub on localhost: cut, resumed, cancelled, refused."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from support.hub_server import COMMIT, HubServer
from vivace.hub.download import (
    CHUNK_BYTES,
    DownloadCancelledError,
    DownloadSettings,
    Progress,
    download_model,
)
from vivace.hub.model_check import INDEX, CheckedModel
from vivace.hub.model_folders import ModelFolderError, find_models

SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
SMALL = ("config.json", INDEX, "tokenizer.json", "preprocessor_config.json", "chat_template.jinja")
FAST = DownloadSettings(timeout=2, tries=2, pause=0.01)


@pytest.fixture
def hub(tmp_path: Path):
    """A hub with a model of 3 MiB, and with files that nobody needs."""
    source = tmp_path / "source"
    source.mkdir()
    config = {
        "architectures": ["Qwen3VLForConditionalGeneration"],
        "model_type": "qwen3_vl",
        "vision_config": {},
    }
    (source / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "preprocessor_config.json"):
        (source / name).write_text("{}")
    (source / "chat_template.jinja").write_text("{{ messages }}")
    save_file({"a": torch.rand(2**18)}, source / SHARDS[0])
    save_file({"b": torch.rand(2**19)}, source / SHARDS[1])
    (source / INDEX).write_text(json.dumps({"weight_map": {"a": SHARDS[0], "b": SHARDS[1]}}))
    for name in ("consolidated.safetensors", "pytorch_model.bin", "modeling.py", ".gitattributes"):
        (source / name).write_text("not wanted")
    with HubServer(source) as server:
        yield server


def fetch(hub: HubServer, folder: Path, revision: str = "main", **options) -> CheckedModel:
    return download_model(
        "org/tiny", folder, revision, hub.url, settings=options.pop("settings", FAST), **options
    )


def sizes(hub: HubServer) -> dict[str, int]:
    return {name: (hub.folder / name).stat().st_size for name in (*SMALL, *SHARDS)}


def test_a_model_arrives_whole_and_only_what_is_needed(hub: HubServer, tmp_path: Path) -> None:
    target = tmp_path / "models" / "tiny"
    steps: list[Progress] = []
    checked = fetch(hub, target, on_progress=steps.append)
    assert checked.folder.has_vision
    assert checked.revision == COMMIT
    assert hub.served == sizes(hub)
    for name in hub.served:
        assert (target / name).read_bytes() == (hub.folder / name).read_bytes()
    total = sum(hub.served.values())
    assert steps[-1] == Progress(SHARDS[1], total, total)
    assert [step.done for step in steps] == sorted(step.done for step in steps)
    assert len(steps) >= total / CHUNK_BYTES
    visible = [path.name for path in target.parent.iterdir() if not path.name.startswith(".")]
    assert visible == ["tiny"]


def test_a_model_that_is_there_costs_no_request(hub: HubServer, tmp_path: Path) -> None:
    fetch(hub, tmp_path / "tiny")
    hub.lookups, hub.served = 0, {}
    for revision in ("main", COMMIT):
        assert fetch(hub, tmp_path / "tiny", revision).revision == COMMIT
    assert (hub.lookups, hub.served) == (0, {})
    (tmp_path / "tiny" / SHARDS[0]).unlink()
    with pytest.raises(ModelFolderError, match="1 of 2 weight files are missing"):
        fetch(hub, tmp_path / "tiny")


def test_a_cut_connection_goes_on_where_it_was(hub: HubServer, tmp_path: Path) -> None:
    hub.cut_after = {SHARDS[1]: [700_000, 100_000, 500_000]}
    fetch(hub, tmp_path / "tiny")
    assert 0 <= sum(hub.served.values()) - sum(sizes(hub).values()) <= 3 * CHUNK_BYTES
    first, *others = hub.ranges[SHARDS[1]]
    assert first is None
    begins = [int((header or "").removeprefix("bytes=").rstrip("-")) for header in others]
    sent_up_to = (700_000, begins[0] + 100_000, begins[1] + 500_000)
    for begin, sent in zip(begins, sent_up_to, strict=True):
        assert sent - CHUNK_BYTES < begin <= sent


def test_the_next_call_goes_on_where_the_last_failed(hub: HubServer, tmp_path: Path) -> None:
    target = tmp_path / "tiny"
    hub.cut_after = {SHARDS[1]: [700_000, 0, 0]}
    with pytest.raises(ModelFolderError, match=r"the rest is kept.*hf download org/tiny") as caught:
        fetch(hub, target)
    assert caught.value.missing == (SHARDS[1],)
    assert str(target) in caught.value.remedy
    assert not target.exists()
    assert find_models([tmp_path]).models.keys() == {"source"}
    here = (tmp_path / "tiny.partial" / f"{SHARDS[1]}.incomplete").stat().st_size
    assert 700_000 - CHUNK_BYTES < here <= 700_000
    assert fetch(hub, target).revision == COMMIT
    assert hub.served == {**sizes(hub), SHARDS[1]: sizes(hub)[SHARDS[1]] + 700_000 - here}
    assert hub.ranges[SHARDS[0]] == [None]
    assert hub.ranges[SHARDS[1]] == [None, *[f"bytes={here}-"] * 3]


def test_a_hub_without_ranges_starts_a_file_over(hub: HubServer, tmp_path: Path) -> None:
    hub.with_ranges = False
    hub.cut_after = {SHARDS[1]: [700_000]}
    fetch(hub, tmp_path / "tiny")
    assert hub.served[SHARDS[1]] == 700_000 + sizes(hub)[SHARDS[1]]


@pytest.mark.parametrize("at", [0, 1_500_000])
def test_cancelling_keeps_what_has_come(hub: HubServer, tmp_path: Path, at: int) -> None:
    target = tmp_path / "tiny"
    steps = [Progress("", -1, 0)]
    with pytest.raises(DownloadCancelledError, match="org/tiny was cancelled"):
        fetch(hub, target, on_progress=steps.append, cancelled=lambda: steps[-1].done >= at)
    assert not target.exists()
    kept = (tmp_path / "tiny.partial").glob("[!.]*")
    here = sum(path.stat().st_size for path in kept)
    assert at <= here < at + 2 * CHUNK_BYTES
    hub.served = {}
    fetch(hub, target)
    assert sum(hub.served.values()) == sum(sizes(hub).values()) - here


def test_a_new_commit_starts_over(hub: HubServer, tmp_path: Path) -> None:
    hub.cut_after = {SHARDS[1]: [700_000, 0, 0]}
    with pytest.raises(ModelFolderError):
        fetch(hub, tmp_path / "tiny")
    hub.commit = "f" * 40
    hub.served = {}
    assert fetch(hub, tmp_path / "tiny").revision == "f" * 40
    assert hub.served == sizes(hub)


def test_wrong_bytes_are_found_and_dropped(hub: HubServer, tmp_path: Path) -> None:
    hub.corrupt = {SHARDS[1]}
    with pytest.raises(ModelFolderError, match=f"{SHARDS[1]} came with other content"):
        fetch(hub, tmp_path / "tiny")
    assert not (tmp_path / "tiny").exists()
    hub.corrupt = set()
    fetch(hub, tmp_path / "tiny")
    assert hub.served[SHARDS[1]] == 2 * sizes(hub)[SHARDS[1]]
    assert hub.served[SHARDS[0]] == sizes(hub)[SHARDS[0]]


@pytest.mark.parametrize(
    ("refuse", "problem"),
    [
        ((401, "GatedRepo"), "access has to be asked for. Accept its terms"),
        ((404, "RepoNotFound"), "no such model, or it is private"),
        ((404, "RevisionNotFound"), "no such revision. Give a branch"),
        ((500, ""), r"cannot be reached \(HTTP 500\). Download org/tiny on a machine that can"),
    ],
)
def test_refusals_are_explained(
    hub: HubServer, tmp_path: Path, refuse: tuple[int, str], problem: str
) -> None:
    hub.refuse = refuse
    with pytest.raises(ModelFolderError, match=problem):
        fetch(hub, tmp_path / "new" / "tiny")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(("status", "requests"), [(403, 1), (404, 1), (503, 2), (429, 2)])
def test_a_refused_file(hub: HubServer, tmp_path: Path, status: int, requests: int) -> None:
    hub.file_status = {"config.json": status}
    with pytest.raises(ModelFolderError, match=rf"config\.json cannot be .* \(HTTP {status}\)"):
        fetch(hub, tmp_path / "tiny")
    assert len(hub.ranges["config.json"]) == requests


def test_an_unreachable_hub_and_offline_mode(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "tiny"
    with pytest.raises(ModelFolderError, match=rf"cannot be reached.*copy .* to {target}"):
        download_model("org/tiny", target, endpoint="http://127.0.0.1:9", settings=FAST)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelFolderError, match=rf"HF_HUB_OFFLINE forbids.*copy .* to {target}"):
        fetch(hub, target)
    assert hub.lookups == 0


@pytest.mark.parametrize("repo", ["", "tiny", "../x", "org/../x", "a/b/c", "org/ti ny"])
def test_bad_names_are_refused(hub: HubServer, tmp_path: Path, repo: str) -> None:
    with pytest.raises(ModelFolderError, match="is not the name of a model on the hub"):
        download_model(repo, tmp_path / "tiny", endpoint=hub.url)
    assert hub.lookups == 0


def test_models_that_cannot_be_used_are_refused_early(hub: HubServer, tmp_path: Path) -> None:
    (hub.folder / SHARDS[1]).unlink()
    with pytest.raises(ModelFolderError, match="lacks weight files that it names itself"):
        fetch(hub, tmp_path / "tiny")
    assert SHARDS[0] not in hub.served
    for file in hub.folder.glob("*.safetensors"):
        file.unlink()
    with pytest.raises(ModelFolderError, match="no safetensors weights"):
        fetch(hub, tmp_path / "other")


def test_other_folders_are_left_alone(hub: HubServer, tmp_path: Path) -> None:
    target = tmp_path / "tiny"
    target.mkdir()
    with pytest.raises(ModelFolderError, match="there is a folder already, which is not org/tiny"):
        fetch(hub, target)
    target.rename(tmp_path / "tiny.partial")
    with pytest.raises(ModelFolderError, match=r"tiny\.partial beside it was not made by this"):
        fetch(hub, target)
    assert list((tmp_path / "tiny.partial").iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelFolderError, match="cannot be written"):
        fetch(hub, tmp_path / "file" / "tiny")


def test_a_full_disk_is_noticed_before(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=2**26)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(ModelFolderError, match=r"needs 0\.0 GiB, but the disk has 0\.1 GiB"):
        fetch(hub, tmp_path / "tiny")
    assert hub.served.keys() == set(SMALL)


def test_only_one_downloads_at_a_time(hub: HubServer, tmp_path: Path) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def wait(_: Progress) -> None:
        inside.set()
        assert go_on.wait(10)

    first = threading.Thread(
        target=fetch, args=(hub, tmp_path / "tiny"), kwargs={"on_progress": wait}
    )
    first.start()
    assert inside.wait(10)
    try:
        with pytest.raises(ModelFolderError, match="is being downloaded by another process"):
            fetch(hub, tmp_path / "tiny")
    finally:
        go_on.set()
        first.join()
    assert fetch(hub, tmp_path / "tiny").revision == COMMIT
    assert hub.served == sizes(hub)

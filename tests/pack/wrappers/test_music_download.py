"""QwenVL Download fetches a MusicGen, too, and says which node it is for."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from support.hub_server import HubServer
from support.small_music import save_model
from vivace.hub.download import download_model
from vivace.hub.model_folders import ModelFolderError
from vivace.music.music_model import load_music_model

pytestmark = pytest.mark.usefixtures("comfyui")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return save_model("melody", tmp_path / "source")


def download(source: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    from vivace.wrappers.vlm import vlm_download

    with HubServer(source) as hub:
        here = partial(download_model, endpoint=hub.url)
        monkeypatch.setattr(vlm_download, "download_model", here)
        return vlm_download.download("org/tiny", "main", root)


def test_it_arrives_and_can_be_loaded(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, line = download(source, tmp_path / "LLM", monkeypatch)
    assert name == "tiny"
    assert line.endswith("Press R to see it in Generate Music.")
    model = load_music_model(tmp_path / "LLM" / "tiny", torch.float32, torch.device("cpu"))
    assert model.takes_melody


def test_one_that_lacks_files_is_refused(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (source / "preprocessor_config.json").unlink()
    with pytest.raises(ModelFolderError, match=r"preprocessor_config\.json is missing"):
        download(source, tmp_path / "LLM", monkeypatch)
    assert not (tmp_path / "LLM" / "tiny").exists()

"""Questions, captions and caches as the nodes use them, in this process and without a server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from support.openai_server import OpenAIServer, answer, stream
from vivace.devkit.doubles.small_vlm import FAMILIES, picture, save_model
from vivace.vlm.decode.sampling import Sampling
from vivace.vlm.loading.load_options import LoadOptions
from vivace.vlm.question import AnswerSettings, Question, chat_request, local_request

pytestmark = pytest.mark.usefixtures("comfyui")

GREEDY = AnswerSettings(6, None, Sampling())


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("models")
    return {family: save_model(family, place / family) for family in FAMILIES}


@pytest.fixture
def session(folders: dict[str, Path]) -> Iterator[Any]:
    """Opens sessions with small models and empty caches."""
    from vivace.wrappers.vlm import vlm_session

    vlm_session.EMBEDDINGS.clear()
    vlm_session.PREFIXES.clear()

    def opened(family: str = "qwen3_vl", quality: str = "balanced", cache: bool = True) -> Any:
        options = LoadOptions(dtype="float32", compile_vision="off")
        choice = vlm_session.LocalChoice(folders[family], options)
        return vlm_session.open_session(choice, GREEDY, quality, cache)

    yield opened
    for patcher in list(vlm_session.POOL.patchers.values()):
        vlm_session.POOL.drop(patcher)


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each run of a vision encoder had, but for the check when it is loaded."""
    from vivace.vlm import local_model
    from vivace.vlm.vision.vision_tower import VisionTower

    monkeypatch.setattr(local_model, "check_tower", lambda tower: None)

    runs: list[int] = []
    encode = VisionTower.encode

    def counted(self: Any, pixels: Any, grid: Any, images: int = 1) -> Any:
        runs.append(images)
        return encode(self, pixels, grid, images)

    monkeypatch.setattr(VisionTower, "encode", counted)
    return runs


def ask(session: Any, *questions: Question) -> list[str]:
    replies = session.ask(questions, lambda index, piece: None, lambda: None)
    return [reply.text for reply in replies]


@pytest.mark.parametrize("family", FAMILIES)
def test_an_image_outlives_the_model(session: Any, family: str, encoded: list[int]) -> None:
    from vivace.wrappers.vlm.vlm_session import POOL

    image = picture(1, family=family)
    first = ask(session(family), Question("What?", images=(image,)))
    assert encoded == [1]
    for patcher in list(POOL.patchers.values()):
        POOL.drop(patcher)
    # Another preset of the same grid, another prompt, another copy of the model.
    assert ask(session(family, "ultra"), Question("What?", images=(image.clone(),))) == first
    ask(session(family), Question("And?", "Be brief.", (image,)))
    assert encoded == [1]
    ask(session(family, cache=False), Question("What?", images=(image,)))
    assert encoded == [1, 1]


def test_a_batch_encodes_distinct_images_together_and_answers_as_one_by_one(
    session: Any, encoded: list[int]
) -> None:
    images = [picture(seed, family="qwen3_vl") for seed in (1, 2, 1)]
    questions = [Question("What?", images=(image,)) for image in images]
    together = ask(session(), *questions)
    assert encoded == [2]
    alone = [ask(session(), question)[0] for question in questions]
    assert together == alone
    assert encoded == [2]


def test_inference_mode_leaves_caches_of_use(session: Any, encoded: list[int]) -> None:
    with torch.inference_mode():
        image = picture(3, family="qwen3_vl") * 1
        inside = ask(session(), Question("What?", images=(image,)))
    outside = ask(session(), Question("What?", images=(image.clone(),)))
    assert (inside, encoded) == (outside, [1])


def test_an_interrupt_stops_at_the_next_token(
    session: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from comfy import model_management

    ticks = []

    def tick() -> None:
        ticks.append(1)
        if len(ticks) == 3:
            model_management.interrupt_current_processing()

    opened = session()
    with pytest.raises(model_management.InterruptProcessingException):
        opened.ask([Question("What?")], lambda index, piece: None, tick)
    assert len(ticks) == 3
    assert ask(session(), Question("What?"))  # the flag is down again


def test_reports_of_several_calls_add_up(session: Any) -> None:
    opened = session()
    for seed in range(10):
        ask(opened, Question("What?", images=(picture(seed, family="qwen3_vl"),)))
    report = opened.report()
    assert "0 from the cache, 10 encoded" in report
    assert "- image 8:" in report
    assert "- image 9:" not in report
    assert "- and 2 more images" in report
    assert "not compiled (switched off)" in report


def test_auto_shows_its_choice(session: Any) -> None:
    opened = session(quality="auto")
    ask(opened, Question("What?", images=(torch.full((96, 96, 3), 0.5),)))
    assert "; auto chose fast, which keeps 100%" in opened.report()


def test_what_is_not_set_is_the_model_s_own() -> None:
    question, own = Question("What?", "Be brief."), Sampling(temperature=0.7, top_p=0.8, top_k=20)
    request = local_request(question, AnswerSettings(9, 5, None, 3), own)
    assert request.settings.sampling == Sampling(0.7, 0.8, 20, seed=3)
    assert (request.settings.max_new_tokens, request.settings.thinking_budget) == (9, 5)
    assert request.template_options == {}
    sent = chat_request(question, AnswerSettings(9, 0, None, 2**40 + 3), [])
    assert (sent.temperature, sent.top_p, sent.top_k, sent.seed) == (None, None, None, 3)
    assert sent.max_tokens == 9
    assert sent.extra == {"chat_template_kwargs": {"enable_thinking": False}}
    assert [message.role for message in sent.messages] == ["system", "user"]


def test_a_server_is_told_when_frames_were_taken() -> None:
    from vivace.wrappers.vlm.vlm_answer import question_of

    video = torch.rand(9, 32, 32, 3)
    question = question_of("What?", "", [], video, (4.0, 2.0, 8))
    assert question.clip is not None
    assert question.clip.sample.indices == (0, 3, 5, 8)
    text = chat_request(question, GREEDY, ["a", "b", "c", "d"]).messages[0].text
    assert text.startswith("The last 4 images are frames of a video, at 0.0 s, 0.8 s, 1.2 s, 2.0 s")


def test_an_empty_batch_is_an_error() -> None:
    from vivace.wrappers.vlm.vlm_answer import question_of

    with pytest.raises(ValueError, match="image 2 is an empty batch"):
        question_of("What?", "", [torch.rand(1, 8, 8, 3), torch.rand(0, 8, 8, 3)])


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for number, color in enumerate(("red", "green", "blue")):
        Image.new("RGB", (64, 64), color).save(tmp_path / f"{number}.png")
    return tmp_path


def caption(server: OpenAIServer, folder: Path, size: int, existing: str = "skip") -> Any:
    from vivace.vlm.caption_folder import ImageFolder
    from vivace.wrappers.vlm.vlm_batch import BatchPrompt, caption_folder
    from vivace.wrappers.vlm.vlm_session import ServerChoice, open_session

    choice = ServerChoice(server.url, "tiny", timeout=5.0, concurrency=1)
    opened = open_session(choice, GREEDY, "fast", True)
    prompt = BatchPrompt("Describe.", batch_size=size)
    return caption_folder(opened, prompt, ImageFolder(str(folder)), existing)


def test_one_refused_image_does_not_stop_the_others(pictures: Path) -> None:
    refusal = answer(400, {"error": {"message": "too colourful"}})
    with OpenAIServer(stream("one"), refusal, stream("three")) as server:
        found = caption(server, pictures, 3)
    assert found.texts == ["one", "three"]
    assert list(found.failed) == ["1.png"]
    assert "too colourful" in found.lines()
    assert not (pictures / "1.txt").exists()


def test_a_server_that_is_gone_stops_the_folder_and_keeps_what_is_written(pictures: Path) -> None:
    from vivace.vlm.remote.remote_errors import RemoteError

    refused = answer(401, {"error": {"message": "who are you?"}})
    with OpenAIServer(stream("one"), refused) as server:
        with pytest.raises(RemoteError, match="401"):
            caption(server, pictures, 1)
        assert len(server.requests) == 2  # the third was not tried
    assert (pictures / "0.txt").read_text(encoding="utf-8") == "one\n"
    with OpenAIServer(stream("more")) as server:
        found = caption(server, pictures, 1)
        assert len(server.requests) == 2
    assert (found.texts, found.skipped) == (["more", "more"], 1)


def test_captions_can_be_appended(pictures: Path) -> None:
    for text in ("first", "second"):
        with OpenAIServer(stream(text)) as server:
            caption(server, pictures, 2, "append")
    assert (pictures / "0.txt").read_text(encoding="utf-8") == "first\nsecond\n"

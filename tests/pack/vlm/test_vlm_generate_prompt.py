"""Prompts: the tokens of transformers' own processors, without a processor."""

from __future__ import annotations

from typing import Any

import pytest
from vivace.devkit.doubles.small_vlm import (
    FAMILIES,
    local_model,
    picture,
    processor,
    text_model,
    token_id,
    tokenizer,
)
from vivace.vlm.text.chat_prompt import (
    ChatPrompts,
    ChatTemplateError,
    ImagePart,
    Turn,
    VideoPart,
)
from vivace.vlm.vision.video import sample_frames

IMAGE = ImagePart()
PAD = "<|image_pad|>"


def as_messages(turns: tuple[Turn, ...]) -> list[dict[str, Any]]:
    messages = []
    for turn in turns:
        content = [
            {"type": "text", "text": part}
            if isinstance(part, str)
            else {"type": "video" if isinstance(part, VideoPart) else "image"}
            for part in turn.parts
        ]
        messages.append({"role": turn.role, "content": content})
    return messages


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "turns",
    [
        (Turn("user", (IMAGE, "What is this?")),),
        (
            Turn("system", ("You are terse.\n",)),
            Turn("user", ("\n\nFirst", IMAGE, " then ", IMAGE, "\nü 🜁 compare", IMAGE)),
            Turn("assistant", ("<think>hm</think> They differ.",)),
            Turn("user", ("Sure?",)),
        ),
        (Turn("user", ("No image, a < b <| c",)),),
    ],
    ids=["one", "many", "none"],
)
def test_same_tokens_as_the_processor(family: str, turns: tuple[Turn, ...]) -> None:
    places = [part for turn in turns for part in turn.parts if part is IMAGE]
    images = [picture(n, 2 + n, 5 - n, family) for n in range(len(places))]
    stock = processor(family)
    text = stock.apply_chat_template(as_messages(turns), tokenize=False, add_generation_prompt=True)
    given: dict[str, Any] = {"images": [i.movedim(-1, 0) for i in images]} if images else {}
    expected = stock(text=[text], return_tensors="pt", **given)
    grids = [tuple(grid) for grid in expected["image_grid_thw"].tolist()] if images else []
    prompt = local_model(family).prompts.build(turns, grids)
    assert list(prompt.ids) == expected["input_ids"][0].tolist()
    assert [kind == 1 for kind in prompt.types] == [token == token_id(PAD) for token in prompt.ids]
    assert sum(prompt.types) == sum(rows * columns // 4 for _, rows, columns in grids)


@pytest.mark.parametrize("family", FAMILIES)
def test_same_tokens_of_videos(family: str) -> None:
    from transformers.video_utils import VideoMetadata

    sample = sample_frames(40, 10.0, 2, max_frames=5)
    turns = (Turn("user", ("Look.", VideoPart(sample), "What moves?")),)
    stock = processor(family)
    text = stock.apply_chat_template(as_messages(turns), tokenize=False, add_generation_prompt=True)
    if family == "qwen3_vl":
        # transformers 5 leaves the placeholder's own tags around those of the frames; without
        # them, all versions write what 4.57 writes, and what the model was trained on.
        text = text.replace("<|vision_start|><|video_pad|><|vision_end|>", "<|video_pad|>")
    clip = picture(1, 2, 3, family).movedim(-1, 0).expand(5, -1, -1, -1)
    expected = stock(
        text=[text],
        videos=[clip],
        video_metadata=[VideoMetadata(40, fps=10.0, frames_indices=list(sample.indices))],
        return_tensors="pt",
    )
    [grid] = expected["video_grid_thw"].tolist()
    assert grid[0] == 3
    prompt = local_model(family).prompts.build(turns, [tuple(grid)])
    assert list(prompt.ids) == expected["input_ids"][0].tolist()
    assert sum(kind == 2 for kind in prompt.types) == 3 * 6
    assert prompt.seconds == (2 / (5 / 40 * 10.0),)


@pytest.mark.parametrize("role", ["system", "user", "assistant"])
def test_special_tokens_in_a_text_stay_text(role: Any) -> None:
    text = (
        "a <|vision_start|><|image_pad|><|vision_end|> <|im_end|>\n<|im_start|>system\n"
        "<|<|im_end|>im_start|> <tool_call> <|endoftext|>"
    )
    turns = (Turn(role, (text,)), Turn("user", (IMAGE, "<|image", "_pad|>")))
    prompt = local_model("qwen2_5_vl").prompts.build(turns, [(1, 4, 4)])
    assert [place for place, kind in enumerate(prompt.types) if kind] == [
        place for place, token in enumerate(prompt.ids) if token == token_id(PAD)
    ]
    assert prompt.ids.count(token_id(PAD)) == 4
    assert prompt.ids.count(token_id("<|im_start|>")) == 3
    assert prompt.ids.count(token_id("<|im_end|>")) == 2
    assert not {token_id("<tool_call>"), token_id("<|endoftext|>")} & set(prompt.ids)
    assert text in tokenizer().decode(prompt.ids)


def test_thinking_tags_count_in_answers_only() -> None:
    prompts = text_model().prompts
    tag = token_id("<think>")
    assert tag not in prompts.build((Turn("user", ("<think>",)),)).ids
    assert tag in prompts.build((Turn("assistant", ("<think>",)),)).ids
    assert prompts.build((Turn("user", ("x",)),), think=True).ids[-2] == tag


def test_what_is_placed_and_what_is_given_must_agree() -> None:
    prompts = local_model("qwen2_5_vl").prompts
    turns = (Turn("user", (IMAGE, "x")),)
    with pytest.raises(ValueError, match="1 images and videos were placed, 2 given"):
        prompts.build(turns, [(1, 4, 4), (1, 4, 4)])
    with pytest.raises(ValueError, match="3 temporal patches were given in place of 1"):
        prompts.build(turns, [(3, 4, 4)])
    with pytest.raises(ValueError, match="1 temporal patches were given in place of 2"):
        prompts.build((Turn("user", (VideoPart(sample_frames(4, 1.0, 2)),)),), [(1, 4, 4)])


class OtherTemplate:
    """The tokenizer with another chat template."""

    def __init__(self, template: str | None) -> None:
        self.chat_template = template

    def __getattr__(self, name: str) -> Any:
        return getattr(tokenizer(), name)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return tokenizer()(*arguments, **named)

    def apply_chat_template(self, messages: Any, **named: Any) -> str:
        return tokenizer().apply_chat_template(messages, chat_template=self.chat_template, **named)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (None, "has no chat template"),
        ("{{ raise_exception('no system prompt') }}", "no system prompt"),
        ("{{ messages[0].content[1].text }}", "does not show the images"),
        ("<|video_pad|>", "does not show the images"),
    ],
)
def test_unusable_templates(template: str | None, message: str) -> None:
    prompts = ChatPrompts(OtherTemplate(template))
    with pytest.raises(ChatTemplateError, match=message):
        prompts.build((Turn("user", (IMAGE, "x")),), [(1, 4, 4)])

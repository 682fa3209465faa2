"""Conversations: immutable, branching, shown as text, and in the form of either engine."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from vivace.vlm.decode.sampling import Sampling
from vivace.vlm.question import AnswerSettings, Question, chat_request, local_request
from vivace.vlm.text.chat import Chat
from vivace.vlm.text.chat_prompt import ImagePart

IMAGE = torch.zeros(2, 3, 3)


def test_branches_do_not_see_each_other() -> None:
    start = Chat("Be brief.").asked("Hi").answered("Hello")
    one, other = start.asked("One?").answered("1"), start.asked("Two?")
    assert [m.text for m in start.messages] == ["Hi", "Hello"]
    assert [m.text for m in one.messages] == ["Hi", "Hello", "One?", "1"]
    assert [m.text for m in other.messages] == ["Hi", "Hello", "Two?"]
    assert one.messages[0] is other.messages[0]
    with pytest.raises(dataclasses.FrozenInstanceError):
        start.messages[0].text = "changed"  # pyright: ignore[reportAttributeAccessIssue]


def test_images_are_copies() -> None:
    image = IMAGE.clone()
    chat = Chat().asked("What?", (image,))
    image.fill_(1)
    assert torch.equal(chat.messages[0].images[0], IMAGE)


def test_the_text_form_shows_everything() -> None:
    chat = Chat("Be brief.").asked("What?", (IMAGE, IMAGE)).answered("A cat.", "Fur.\nEars.")
    assert str(chat) == (
        "### system\n\nBe brief.\n\n"
        "### user\n\n[image 3x2]\n\n[image 3x2]\n\nWhat?\n\n"
        "### assistant\n\n> Fur.\n> Ears.\n\nA cat.\n"
    )
    assert str(Chat()) == ""
    assert repr(chat) == "<Chat: 2 messages>"


def test_the_history_comes_before_the_question() -> None:
    history = Chat().asked("What?", (IMAGE,)).answered("A cat.", "Fur.").messages
    question = Question("And now?", "Be brief.", (IMAGE + 1,), history=history)
    assert [float(image.max()) for image in question.stills] == [0, 1]
    assert len(question.media) == 2
    sent = chat_request(question, AnswerSettings(stop=("END",)), ["a", "b"])
    assert [(m.role, m.text, m.images) for m in sent.messages] == [
        ("system", "Be brief.", ()),
        ("user", "What?", ("a",)),
        ("assistant", "A cat.", ()),
        ("user", "And now?", ("b",)),
    ]
    assert sent.stop == ("END",)
    local = local_request(question, AnswerSettings(stop=("END",)), Sampling())
    assert [(turn.role, turn.parts) for turn in local.turns] == [
        ("system", ("Be brief.",)),
        ("user", (ImagePart(), "What?")),
        ("assistant", ("A cat.",)),
        ("user", (ImagePart(), "And now?")),
    ]
    assert local.settings.stop == ("END",)
    assert local.keep_whole
    assert not local_request(Question("Hi"), AnswerSettings(), Sampling()).keep_whole

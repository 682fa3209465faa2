"""Turns of a conversation in this process: keys, texts that are shown, values that stay."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.openai_server import OpenAIServer, hang, stream
from vivace.toolkit.json_schema import JsonSchema
from vivace.vlm.json_answer import JsonForm
from vivace.vlm.question import AnswerSettings
from vivace.vlm.remote.secret import Secret
from vivace.vlm.text.chat import Chat

pytestmark = pytest.mark.usefixtures("comfyui")


def turn(server: OpenAIServer, chat: Chat, key: Any = None, **settings: Any) -> Any:
    from vivace.wrappers.vlm.text_answer import TurnSettings, take_turn
    from vivace.wrappers.vlm.vlm_session import ServerChoice

    choice = ServerChoice(server.url, "tiny", key)
    chosen = TurnSettings(settings.pop("answer", AnswerSettings()), **settings)
    return take_turn(choice, chat, "Hi", [torch.zeros(1, 32, 32, 3)], chosen, None)


def test_the_key_is_sent_and_shown_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINE_API_KEY", "canary")
    with OpenAIServer(stream("Hello")) as server:
        found = turn(server, Chat(), Secret.from_environment("MINE_API_KEY"))
        assert server.posts[0].authorization == "Bearer canary"
    assert "canary" not in repr(found) + str(found.chat) + found.report + found.tokens.json()


def test_the_conversation_before_stays_as_it_was() -> None:
    before = Chat("Be brief.").asked("One?").answered("1")
    with OpenAIServer(stream("Hello")) as server:
        one, other = turn(server, before), turn(server, before)
    assert len(before.messages) == 2
    assert len(one.chat.messages) == len(other.chat.messages) == 4
    assert one.chat.messages[2].images[0].shape == (32, 32, 3)
    assert one.chat.messages[:2] == other.chat.messages[:2] == before.messages


def test_a_text_that_is_asked_for_again_takes_the_place_of_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from vivace.wrappers.vlm import vlm_answer
    from vivace.wrappers.vlm.live_text import LiveText

    seen: list[tuple[str, str]] = []

    class Watched(LiveText):
        """Notes what is shown after each piece."""

        def push(self, piece: Any) -> None:
            super().push(piece)
            seen.append((self.answer, self.thinking))

    monkeypatch.setattr(vlm_answer, "LiveText", Watched)
    schema = JsonSchema({"type": "object"})
    with OpenAIServer(stream("<think>hm</think>", "[1]"), stream("{", "}")) as server:
        found = turn(server, Chat(), json=JsonForm(schema))
    assert seen == [("", "hm"), ("[1]", "hm"), ("{", ""), ("{}", "")]
    assert (found.reply.text, found.tokens.requests) == ("{}", 2)
    assert [message.role for message in found.chat.messages] == ["user", "assistant"]


def test_the_report_says_what_was_not_counted_or_cut_off() -> None:
    with OpenAIServer(hang("one END")) as server:
        found = turn(server, Chat(), answer=AnswerSettings(stop=("END",)))
    assert "not counted by the server: the tokens of 1 answers" in found.report
    assert "no sum and no cost" in found.report


def test_nodes_take_keys_and_conversations_only() -> None:
    from vivace.nodes import generate_text, vlm_values

    server = {"engine": "server", "address": "http://localhost:1/v1", "server_model": "tiny"}
    for broken in ("sk-canary", {"value": "sk-canary"}):
        with pytest.raises(ValueError, match="takes what the node API Key hands on") as error:
            vlm_values.engine_choice(server, broken)
        assert "canary" not in str(error.value)
    read: Any = generate_text
    with pytest.raises(ValueError, match="chat is no conversation"):
        read.conversation_of("Hi", "")
    chat = Chat("Be brief.").asked("One?")
    assert read.conversation_of(chat, "") is chat
    assert read.conversation_of(chat, "Be long.").system == "Be long."
    assert chat.system == "Be brief."


@pytest.mark.parametrize(
    ("text", "stops"),
    [
        ("", ()),
        ("END\n\n###\r", ("END", "###\r")),
        ("\\n\\n\n\\tx", ("\n\n", "\tx")),
        ("\\\\n\n\\q\n\\", ("\\n", "\\q", "\\")),
        ("a b \n", ("a b ",)),
    ],
)
def test_stop_strings_are_lines(text: str, stops: tuple[str, ...]) -> None:
    from vivace.nodes.generate_text import stop_strings

    assert stop_strings(text) == stops

"""Stop strings with servers: those that know them, those that do not, and across chunks."""

from __future__ import annotations

import pytest
from support.openai_server import (
    USAGE,
    OpenAIServer,
    answer,
    delta,
    hang,
    stop,
    stream,
    stream_exactly,
)
from vivace.vlm.remote.openai_reply import Reply, Usage
from vivace.vlm.remote.openai_request import ChatRequest, Message
from vivace.vlm.remote.remote_engine import RemoteEngine
from vivace.vlm.text.thinking import Piece


def ask(server: OpenAIServer, *stops: str) -> tuple[Reply, list[Piece]]:
    pieces: list[Piece] = []
    request = ChatRequest((Message("user", "Hi"),), stop=stops)
    return RemoteEngine(server.url, "tiny").generate(request, on_piece=pieces.append), pieces


@pytest.mark.parametrize("chunks", [("one END two",), ("one E", "N", "D two"), ("one EN", "D")])
def test_the_answer_ends_before_it_across_chunks(chunks: tuple[str, ...]) -> None:
    with OpenAIServer(hang(*chunks)) as server:  # the server knows nothing of it, and goes on
        reply, pieces = ask(server, "END", "other")
        assert server.disconnected.wait(10)
    assert (reply.text, reply.finish_reason) == ("one ", "stop")
    assert "".join(piece.text for piece in pieces) == "one "
    assert not reply.counted  # what the server sends at the end did not come


def test_what_only_begins_like_one_belongs_to_the_answer() -> None:
    with OpenAIServer(stream("one E", "N", "E", " EN")) as server:
        reply, pieces = ask(server, "END")
    assert reply.text == "one ENE EN" == "".join(piece.text for piece in pieces)
    assert (reply.counted, reply.usage.completion) == (True, 7)


def test_a_server_that_stops_itself_also_counts() -> None:
    behaviour = stream_exactly("one ", stop(), USAGE, "[DONE]")
    with OpenAIServer(behaviour) as server:
        reply, _ = ask(server, "1", "2", "3", "4", "5")
        assert server.posts[0].json["stop"] == ["1", "2", "3", "4"]  # more are an error in OpenAI's
    assert (reply.text, reply.counted) == ("one ", True)


def test_thinking_is_not_searched() -> None:
    with OpenAIServer(stream("<think>", "an END", "</think>", "Hi END")) as server:
        reply, _ = ask(server, "END")
    assert (reply.thinking, reply.text) == ("an END", "Hi ")
    with OpenAIServer(stream(delta(reasoning_content="END"), "Hi")) as server:
        reply, _ = ask(server, "END")
    assert (reply.thinking, reply.text) == ("END", "Hi")


def test_thinking_that_is_found_out_late_is_taken_back() -> None:
    with OpenAIServer(stream("hm E", "h</think>", "Hi E", "!", " END")) as server:
        reply, pieces = ask(server, "END")
    assert (reply.thinking, reply.text) == ("hm Eh", "Hi E! ")
    assert pieces.index(Piece("retract", "hm Eh")) > 0


def test_a_whole_reply_is_cut_and_its_tokens_are_counted() -> None:
    content = {
        "choices": [{"message": {"content": "one END two"}, "finish_reason": "length"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 9},
    }
    with OpenAIServer(answer(200, content)) as server:
        reply, _ = ask(server, "END")
    assert (reply.text, reply.finish_reason) == ("one ", "stop")
    assert (reply.counted, reply.usage) == (True, Usage(3, 9))

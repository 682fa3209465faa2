"""The remote engine against a real server: what is sent, what comes back, how it streams."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
import time

import pytest
from support.openai_server import (
    Exchange,
    OpenAIServer,
    answer,
    delta,
    stop,
    stream,
)
from vivace.vlm.remote.openai_reply import Reply, Usage
from vivace.vlm.remote.openai_request import ChatRequest, Message
from vivace.vlm.remote.remote_engine import RemoteEngine
from vivace.vlm.text.thinking import Piece

PNG = b"\x89PNG\r\n\x1a\n" + b"pixels"
JPEG = b"\xff\xd8\xff" + b"pixels"


def ask(text: str = "Hi", **fields: object) -> ChatRequest:
    return ChatRequest((Message("user", text),), **fields)  # pyright: ignore[reportArgumentType]


def test_everything_asked_for_is_sent() -> None:
    request = ChatRequest(
        (
            Message("system", "Be brief."),
            Message("user", "What is it?", ("a",)),
            Message("assistant", "A cat."),
            Message("user", "And now?", ("b", "a")),
        ),
        max_tokens=64,
        temperature=0.5,
        top_p=0.9,
        top_k=20,
        seed=7,
        stop=("\n\n", "END"),
        json_schema={"type": "object"},
        extra={"chat_template_kwargs": {"enable_thinking": False}},
    )
    with OpenAIServer() as server:
        RemoteEngine(server.url, "tiny").generate(request, {"a": PNG, "b": JPEG})
        (sent,) = server.posts
    png = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    jpeg = f"data:image/jpeg;base64,{base64.b64encode(JPEG).decode()}"
    assert sent.path == "/v1/chat/completions"
    assert sent.authorization is None
    assert sent.json == {
        "model": "tiny",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": png}},
                    {"type": "text", "text": "What is it?"},
                ],
            },
            {"role": "assistant", "content": "A cat."},
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": jpeg}},
                    {"type": "image_url", "image_url": {"url": png}},
                    {"type": "text", "text": "And now?"},
                ],
            },
        ],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 64,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 20,
        "seed": 7,
        "stop": ["\n\n", "END"],
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "answer", "strict": True, "schema": {"type": "object"}},
        },
        "chat_template_kwargs": {"enable_thinking": False},
    }


def test_what_is_not_asked_for_is_left_to_the_server() -> None:
    with OpenAIServer() as server:
        RemoteEngine(server.url, "tiny").generate(ask())
        RemoteEngine(server.url, "tiny").generate(ask(json_mode=True))
        plain, as_json = (post.json for post in server.posts)
    assert set(plain) == {"model", "messages", "stream", "stream_options"}
    assert as_json["response_format"] == {"type": "json_object"}


def test_text_streams_piece_by_piece_in_the_callers_thread() -> None:
    go_on = threading.Event()

    def behave(exchange: Exchange) -> None:
        exchange.start_stream()
        exchange.event(delta(role="assistant", content=""))
        exchange.event(delta(content="One"))
        assert go_on.wait(5)  # the rest is sent only once the first piece has arrived
        exchange.event(delta(content=" two"))
        exchange.event(stop("length"))
        exchange.event("[DONE]")
        exchange.chunk(b"")

    pieces: list[tuple[Piece, int]] = []

    def on_piece(piece: Piece) -> None:
        pieces.append((piece, threading.get_ident()))
        go_on.set()

    with OpenAIServer(behave) as server:
        reply = RemoteEngine(server.url, "tiny").generate(ask(), on_piece=on_piece)
    here = threading.get_ident()
    assert pieces == [(Piece("answer", "One"), here), (Piece("answer", " two"), here)]
    assert reply == Reply("One two", "", "length", Usage(), "tiny", counted=False)


@pytest.mark.parametrize(
    "events",
    [
        (delta(reasoning_content="Let me"), delta(reasoning_content=" see."), "Yes."),
        (delta(reasoning="Let me"), delta(reasoning=" see.", content=None), "\n\nYes."),
        ("<thi", "nk>\nLet me", " see.\n</th", "ink>\n\nYes."),
        ("Let me", " see.\n</think>\n\n", "Yes."),  # the template had opened it
    ],
)
def test_thinking_is_split_off(events: tuple[object, ...]) -> None:
    pieces: list[Piece] = []
    with OpenAIServer(stream(*events)) as server:
        reply = RemoteEngine(server.url, "tiny").generate(ask(), on_piece=pieces.append)
    assert (reply.thinking, reply.text) == ("Let me see.", "Yes.")
    shown = {"thinking": "", "answer": ""}
    for piece in pieces:
        if piece.kind == "retract":
            shown = {"thinking": piece.text, "answer": ""}
        else:
            shown[piece.kind] += piece.text
    assert shown == {"thinking": "Let me see.", "answer": "Yes."}


def test_half_characters_and_impossible_counts_are_not_handed_on() -> None:
    body = {
        "model": "\udfff",
        "choices": [{"message": {"content": "a\ud800b"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": -3, "completion_tokens": True},
    }
    with OpenAIServer(answer(200, body)) as server:
        reply = RemoteEngine(server.url, "tiny").generate(ask())
    assert reply == Reply("a?b", "", "stop", Usage(), "?")


def test_a_whole_reply_is_taken_from_a_server_that_does_not_stream() -> None:
    message = {"role": "assistant", "content": "Hello", "reasoning_content": "Greet."}
    body = {
        "model": "other",
        "choices": [{"message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2},
    }
    with OpenAIServer(answer(200, body)) as server:
        reply = RemoteEngine(server.url, "tiny").generate(ask())
    assert reply == Reply("Hello", "Greet.", "stop", Usage(3, 2), "other")


def test_events_may_arrive_in_any_cut_and_framing() -> None:
    text = "data: " + '{"choices":[{"delta":{"content":"grün 🐈"}}]}' + "\r\n\r\n: ping\r\n\r\n"
    text += 'event: x\r\ndata:{"choices":[{"delta":{},"finish_reason":"stop"}]}\r\n\r\n'

    def behave(exchange: Exchange) -> None:
        exchange.head(200, "text/event-stream", Connection="close")  # no [DONE] and no length
        for byte in text.encode():
            exchange.raw(bytes([byte]))
        exchange.close()

    with OpenAIServer(behave) as server:
        assert RemoteEngine(server.url, "tiny").generate(ask()).text == "grün 🐈"


def test_a_stream_that_stays_open_behind_its_end_is_not_waited_for() -> None:
    def behave(exchange: Exchange) -> None:
        exchange.start_stream()
        for event in (delta(content="Hello"), stop(), "[DONE]"):
            exchange.event(event)
        exchange.wait_for_disconnect()

    with OpenAIServer(behave) as server:
        assert RemoteEngine(server.url, "tiny").generate(ask()).text == "Hello"
        assert server.disconnected.wait(5)


def test_what_comes_behind_the_end_is_not_looked_at() -> None:
    """Even where it comes in the same bytes."""

    def behave(exchange: Exchange) -> None:
        exchange.head(200, "text/event-stream", Connection="close")
        events = [delta(content="Hello"), stop()]
        lines = [b"data: " + json.dumps(event).encode() + b"\n\n" for event in events]
        exchange.raw(b"".join(lines) + b"data: [DONE]\n\ndata: \xff\n\n")

    with OpenAIServer(behave) as server:
        assert RemoteEngine(server.url, "tiny").generate(ask()).text == "Hello"


def test_one_connection_serves_one_request_after_the_other() -> None:
    with OpenAIServer(stream("ok")) as server:
        RemoteEngine(server.url, "tiny").generate_batch([ask()] * 20, concurrency=1)
        assert len(server.posts) == 20
        assert server.connections == 1


def test_tokens_are_counted() -> None:
    with OpenAIServer(stream("Hello")) as server:
        engine = RemoteEngine(server.url, "tiny")
        assert engine.generate(ask()).usage == Usage(11, 7, 3, 5)
        engine.generate_batch([ask(), ask()])
    assert engine.usage == Usage(33, 21, 9, 15)
    assert engine.requests == 3


def test_each_image_is_encoded_once_for_a_whole_batch() -> None:
    requests = [
        ChatRequest((Message("user", str(number), ("same", "same", f"own{number % 2}")),))
        for number in range(6)
    ]
    images = {"same": PNG, "own0": JPEG, "own1": PNG + b"1", "unused": PNG}
    with OpenAIServer(stream("ok")) as server:
        engine = RemoteEngine(server.url, "tiny")
        engine.generate_batch(requests, images, concurrency=3)
        urls = [
            [part["image_url"]["url"] for part in post.json["messages"][0]["content"][:-1]]
            for post in server.posts
        ]
    assert engine.images_encoded == 3
    assert sum(len(group) for group in urls) == 18
    assert len({url for group in urls for url in group}) == 3


def test_images_are_checked_before_anything_is_sent() -> None:
    asking = ChatRequest((Message("user", "What?", ("a",)),))
    with OpenAIServer() as server:
        engine = RemoteEngine(server.url, "tiny")
        with pytest.raises(ValueError, match="image 'a', which was not given"):
            engine.generate(asking)
        with pytest.raises(ValueError, match="'a' is neither PNG nor JPEG"):
            engine.generate(asking, {"a": b"GIF89a"})
        with pytest.raises(ValueError, match="not JSON compliant"):
            engine.generate(ask(temperature=float("nan")))
        assert server.requests == []


def test_batches_are_as_concurrent_as_allowed() -> None:
    """The server answers only when three requests are there at once."""
    barrier = threading.Barrier(3)

    def behave(exchange: Exchange) -> None:
        barrier.wait(5)
        stream("ok")(exchange)

    finished: list[int] = []
    with OpenAIServer(behave) as server:
        outcomes = RemoteEngine(server.url, "tiny").generate_batch(
            [ask(str(number)) for number in range(9)],
            concurrency=3,
            on_outcome=lambda index, _: finished.append(index),
        )
        assert server.most_at_once == 3
        assert server.connections == 3
        assert len(server.posts) == 9
    assert all(isinstance(outcome, Reply) for outcome in outcomes)
    assert sorted(finished) == list(range(9))


def test_batch_outcomes_belong_to_their_requests() -> None:
    """Later requests are answered first; one fails, which does not stop the others."""

    def behave(exchange: Exchange) -> None:
        number = int(exchange.request.json["messages"][0]["content"])
        time.sleep(0.05 * (4 - number % 4))
        if number == 5:
            answer(400, {"error": {"message": "too long"}})(exchange)
        else:
            stream(f"answer {number}")(exchange)

    pieces: dict[int, str] = {}

    def on_piece(index: int, piece: Piece) -> None:
        pieces[index] = piece.text

    with OpenAIServer(behave) as server:
        outcomes = RemoteEngine(server.url, "tiny").generate_batch(
            [ask(str(number)) for number in range(8)], concurrency=4, on_piece=on_piece
        )
    expected = {number: f"answer {number}" for number in range(8) if number != 5}
    assert pieces == expected
    assert [o.text if isinstance(o, Reply) else o.kind for o in outcomes] == [
        expected.get(number, "rejected") for number in range(8)
    ]


def test_an_empty_batch_sends_nothing() -> None:
    with OpenAIServer() as server:
        assert RemoteEngine(server.url, "tiny").generate_batch([]) == []
        with pytest.raises(ValueError, match="concurrency is 0"):
            RemoteEngine(server.url, "tiny").generate_batch([ask()], concurrency=0)
        assert server.connections == 0


def test_it_works_inside_a_running_event_loop() -> None:
    """As ComfyUI's nodes do."""

    async def node() -> str:
        return RemoteEngine(server.url, "tiny").generate(ask()).text

    with OpenAIServer() as server:
        assert asyncio.run(node()) == "Hello"

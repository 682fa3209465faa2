"""A request that is cancelled ends at once, with its connection and its threads."""

from __future__ import annotations

import threading
import time

import pytest
from support.openai_server import (
    Behaviour,
    OpenAIServer,
    answer,
    hang,
    stream,
)
from vivace.vlm.remote.openai_request import ChatRequest, Message
from vivace.vlm.remote.remote_engine import RemoteEngine
from vivace.vlm.remote.remote_errors import RemoteCancelledError
from vivace.vlm.remote.remote_retry import RemoteSettings
from vivace.vlm.text.thinking import Piece

FAST = RemoteSettings(first_delay=0.01, max_delay=0.02, read_timeout=5)


def ask(text: str = "Hi", **fields: object) -> ChatRequest:
    return ChatRequest((Message("user", text),), **fields)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("behaviour", [hang(), hang("some", " text")])
def test_cancelling_closes_the_connection(behaviour: Behaviour) -> None:
    with OpenAIServer(behaviour) as server:
        engine = RemoteEngine(server.url, "tiny")
        started = threading.Event()
        threading.Timer(0.3, started.set).start()
        with pytest.raises(RemoteCancelledError):
            engine.generate(ask(), cancelled=started.is_set)
        assert server.disconnected.wait(5)
        assert len(server.posts) == 1
        assert server.disconnects == 1


def test_cancelled_before_it_began() -> None:
    with OpenAIServer() as server:
        with pytest.raises(RemoteCancelledError):
            RemoteEngine(server.url, "tiny").generate(ask(), cancelled=lambda: True)
        assert server.connections == 0


def test_cancelling_between_pieces_stops_at_that_piece() -> None:
    pieces: list[Piece] = []
    with OpenAIServer(stream(*"abcdefgh")) as server, pytest.raises(RemoteCancelledError):
        RemoteEngine(server.url, "tiny").generate(
            ask(), on_piece=pieces.append, cancelled=lambda: len(pieces) >= 3
        )
    assert [piece.text for piece in pieces] == ["a", "b", "c"]


def test_cancelling_a_batch_closes_every_connection_and_sends_no_more() -> None:
    with OpenAIServer(hang()) as server:

        def cancelled() -> bool:
            return len(server.posts) == 3

        with pytest.raises(RemoteCancelledError):
            RemoteEngine(server.url, "tiny").generate_batch(
                [ask()] * 10, concurrency=3, cancelled=cancelled
            )
        deadline = time.monotonic() + 5
        while server.disconnects < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert server.disconnects == 3
        assert len(server.posts) == 3


def test_cancelling_ends_the_pause_before_a_retry() -> None:
    busy = answer(503, "", Retry_After="30")
    with OpenAIServer(busy) as server:
        begun = time.monotonic()
        with pytest.raises(RemoteCancelledError):
            RemoteEngine(server.url, "tiny").generate(ask(), cancelled=lambda: bool(server.posts))
        assert time.monotonic() - begun < 5
        assert len(server.posts) == 1


class Interrupted(BaseException):
    """As ComfyUI's: not an Exception."""


@pytest.mark.parametrize("where", ["cancelled", "on_piece"])
def test_what_a_callback_raises_comes_out_and_closes_the_connection(where: str) -> None:
    def interrupt(*_: object) -> bool:
        if server.posts:
            raise Interrupted
        return False

    with OpenAIServer(hang("text")) as server:
        engine = RemoteEngine(server.url, "tiny")
        with pytest.raises(Interrupted):
            engine.generate(ask(), **{where: interrupt})  # pyright: ignore[reportArgumentType]
        assert server.disconnected.wait(5)


def test_no_thread_is_left_behind() -> None:
    with OpenAIServer(stream("ok")) as server:
        engine = RemoteEngine(server.url, "tiny")
        for _ in range(3):
            engine.generate(ask())
        deadline = time.monotonic() + 5
        while _network_threads() and time.monotonic() < deadline:
            time.sleep(0.01)
    assert _network_threads() == []


def _network_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "vivace-remote"]

"""What the remote engine says and does when the server does not do its part."""

from __future__ import annotations

import pickle
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest
from support.openai_server import (
    Behaviour,
    Exchange,
    OpenAIServer,
    answer,
    cut,
    delta,
    drop,
    hang,
    raw,
    stop,
    stream,
    stream_exactly,
)
from vivace.vlm.remote.openai_request import ChatRequest, Message
from vivace.vlm.remote.remote_engine import RemoteEngine
from vivace.vlm.remote.remote_errors import RemoteError
from vivace.vlm.remote.remote_retry import RemoteSettings, parse_retry_after, retry_delay
from vivace.vlm.text.thinking import Piece

ASK = ChatRequest((Message("user", "Hi"),))
FAST = RemoteSettings(1, 0.3, tries=3, first_delay=0.01, max_delay=0.02, max_retry_after=0.5)
TOO_LONG = {"error": {"message": "This model's maximum context length is 4096 tokens"}}
NO_MODEL = {"object": "error", "message": "The model `x` does not exist.", "code": 404}


def failure(server: OpenAIServer, pieces: list[Piece] | None = None) -> RemoteError:
    engine = RemoteEngine(server.url, "tiny", settings=FAST)
    with pytest.raises(RemoteError) as caught:
        engine.generate(ASK, on_piece=None if pieces is None else pieces.append)
    assert str(caught.value).startswith(f"{server.url}: ")
    return caught.value


@pytest.mark.parametrize(
    ("behaviour", "kind", "problem", "remedy", "requests"),
    [
        (answer(401, {"error": "who?"}), "unauthorized", "wants an API key", "Give the name", 1),
        (answer(403, ""), "unauthorized", "does not allow", "Check what the key's", 1),
        (answer(404, "Not Found", "text/plain"), "not found", "saying: Not Found", "in /v1", 1),
        (answer(400, TOO_LONG), "rejected", "saying: This model's maximum context", "Change", 1),
        (answer(422, {"detail": [{"loc": "seed"}]}), "rejected", '"seed"', "Change", 1),
        (answer(413, ""), "rejected", "too large", "lower image quality", 1),
        (answer(429, ""), "busy", "too busy", "less concurrency", 3),
        (answer(500, {"error": {"message": "CUDA"}}), "failed", "saying: CUDA", "server's log", 3),
        (answer(502, "<html>Bad gateway"), "failed", "HTTP 502", "server's log", 3),
        (answer(501, ""), "failed", "HTTP 501", "server's log", 1),
        (answer(302, "", Location="http://b/v1?k"), "not found", "to http://b/v1", "that addr", 1),
        (answer(200, "<html>Hi", "text/html"), "garbage", "of type text/html: <html>", "/v1", 1),
        (answer(200, "{"), "garbage", "not JSON: {", "OpenAI-compatible", 1),
        (answer(200, "[" * 100_000), "garbage", "not JSON", "OpenAI-compatible", 1),
        (answer(200, []), "garbage", "not a JSON object", "OpenAI-compatible", 1),
        (answer(200, {"ok": 1}), "garbage", "without choices", "OpenAI-compatible", 1),
        (answer(200, {"choices": []}), "garbage", "without any choice", "OpenAI-compatible", 1),
        (answer(200, {"choices": [1]}), "garbage", "choice that is not", "OpenAI-comp", 1),
        (answer(200, {"error": {"message": "no"}}), "failed", "an error: no", "server's log", 1),
        (stream_exactly("[DONE]"), "garbage", "without any choice", "OpenAI-compatible", 1),
        (stream_exactly({"choices": []}, "[DONE]"), "garbage", "without any", "OpenAI-comp", 1),
        (stream_exactly(delta(content=1)), "garbage", "text that is not", "OpenAI-comp", 1),
        (stream_exactly(), "cut", "before it answered", "server's log", 3),
        (raw(b"SSH-2.0-OpenSSH_9.6\r\n"), "garbage", "not HTTP", "Check the port", 1),
        (drop, "cut", "before it answered", "server's log", 3),
        (hang(), "slow", "sent nothing for 0.3 s, before", "allow more time", 1),
    ],
)
def test_faults_are_named_and_retried_where_that_helps(
    behaviour: Behaviour, kind: str, problem: str, remedy: str, requests: int
) -> None:
    with OpenAIServer(behaviour) as server:
        error = failure(server)
        assert error.kind == kind
        assert problem in error.problem
        assert remedy in error.remedy
        assert len(server.requests) == requests
    assert str(pickle.loads(pickle.dumps(error))) == str(error)  # noqa: S301


@pytest.mark.parametrize(
    ("behaviour", "kind"),
    [
        (cut("One", " two"), "cut"),
        (stream_exactly("One", " two"), "cut"),  # a proper end, but without a finish reason
        (hang("One", " two"), "slow"),
        (stream_exactly("One", " two", {"error": {"message": "CUDA"}}), "failed"),
    ],
)
def test_a_fault_after_text_is_never_retried(behaviour: Behaviour, kind: str) -> None:
    pieces: list[Piece] = []
    with OpenAIServer(behaviour, stream("again")) as server:
        error = failure(server, pieces)
        assert error.kind == kind
        assert len(server.requests) == 1
    assert [piece.text for piece in pieces] == ["One", " two"]
    if kind != "failed":
        assert "in the middle of the answer" in error.problem


@pytest.mark.parametrize(
    "fault", [answer(429, "", Retry_After="0"), answer(500, ""), answer(503, "x"), drop]
)
def test_a_passing_fault_is_not_noticed(fault: Behaviour) -> None:
    with OpenAIServer(fault, fault, stream("Hello")) as server:
        engine = RemoteEngine(server.url, "tiny", settings=FAST)
        reply = engine.generate(ASK)
        assert (reply.text, reply.attempts) == ("Hello", 3)
        assert len(server.posts) == 3
        assert len({post.body for post in server.posts}) == 1
    assert engine.requests == 3


def test_a_server_that_asks_for_too_long_a_pause_is_not_waited_for() -> None:
    with OpenAIServer(answer(429, "", Retry_After="3600")) as server:
        error = failure(server)
        assert len(server.requests) == 1
    assert "asks to wait 3600 s" in error.problem
    assert error.retry_after == 3600


def test_pauses_grow_keep_their_bounds_and_honour_the_server() -> None:
    settings = RemoteSettings(first_delay=1, max_delay=8)
    for attempt, longest in [(1, 1), (2, 2), (3, 4), (4, 8), (9, 8)]:
        pauses = [retry_delay(settings, attempt, None) for _ in range(200)]
        assert longest / 2 <= min(pauses) < max(pauses) <= longest
        assert len(set(pauses)) > 100
        assert all(retry_delay(settings, attempt, 30) > 30 for _ in range(20))


def test_retry_after_may_be_seconds_or_a_date() -> None:
    assert parse_retry_after("2.5") == 2.5
    assert parse_retry_after("-1") == 0
    assert parse_retry_after("Sun, 06 Nov 1994 08:49:37 GMT") == 0
    assert (parse_retry_after("Wed, 01 Jan 2190 00:00:00 GMT") or 1e9) > 1e8
    for value in (None, "", "soon", "nan", "1e99", "Foo, 99 Bar 0000"):
        assert parse_retry_after(value) is None


def test_a_missing_model_is_answered_with_those_there_are() -> None:
    with OpenAIServer(answer(404, NO_MODEL), models=["qwen-a", "qwen-b"]) as server:
        error = failure(server)
        assert [request.method for request in server.requests] == ["POST", "GET"]
    assert error.kind == "model"
    assert "does not have this model (HTTP 404, saying: The model `x`" in error.problem
    assert error.remedy == "Choose one of its models: qwen-a, qwen-b"


@pytest.mark.parametrize("models", [answer(404, ""), answer(200, {"models": []})])
def test_a_missing_model_is_reported_where_models_cannot_be_listed(models: Behaviour) -> None:
    with OpenAIServer(answer(404, NO_MODEL)) as server:
        server.models_answer = models
        error = failure(server)
    assert (error.kind, error.remedy) == ("model", "Check the model's name")


@pytest.fixture
def unused_port() -> Iterator[int]:
    """A port that is taken, but that nobody listens on."""
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def test_an_unreachable_server(unused_port: int) -> None:
    engine = RemoteEngine(f"http://127.0.0.1:{unused_port}", "tiny", settings=FAST)
    with pytest.raises(RemoteError, match=r"cannot be reached \(.*Check the address") as caught:
        engine.generate(ASK)
    assert caught.value.kind == "unreachable"
    assert engine.requests == 3


def test_an_unknown_host() -> None:
    engine = RemoteEngine("http://no-such-host.invalid", "tiny", settings=FAST)
    with pytest.raises(RemoteError, match="cannot be reached") as caught:
        engine.generate(ASK)
    assert caught.value.kind == "unreachable"


def test_a_server_that_does_not_accept() -> None:
    """A full backlog: the connection never stands."""
    with closing(socket.socket()) as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        settings = RemoteSettings(connect_timeout=0.2, tries=1)
        with pytest.raises(RemoteError, match=r"no connection within 0\.2 s") as caught:
            RemoteEngine(f"http://127.0.0.1:{port}", "tiny", settings=settings).generate(ASK)
        for filler in fillers:
            filler.close()
    assert caught.value.kind == "unreachable"


def test_https_towards_a_plain_server() -> None:
    with OpenAIServer() as server:
        url = server.url.replace("http:", "https:")
        with pytest.raises(RemoteError, match=r"no secure connection .* http://") as caught:
            RemoteEngine(url, "tiny", settings=FAST).generate(ASK)
        assert server.connections == 1
    assert caught.value.kind == "unreachable"


def test_an_endless_event_is_refused() -> None:
    def behave(exchange: Exchange) -> None:
        exchange.start_stream()
        while True:
            exchange.chunk(b"data: " + b"x" * 2**20)

    with OpenAIServer(behave) as server:
        error = failure(server)
    assert (error.kind, error.problem) == ("garbage", "answered with an event of over 16 MiB")


def test_an_endless_answer_is_refused() -> None:
    event = delta(content="x" * 2**20)

    def behave(exchange: Exchange) -> None:
        exchange.start_stream()
        while True:
            exchange.event(event)

    with OpenAIServer(behave) as server:
        assert "an answer of more than 64 MiB" in failure(server).problem


def test_control_characters_of_a_server_do_not_reach_the_message() -> None:
    with OpenAIServer(answer(400, "a\x1b[31m\r\nb\u202e" + "c" * 1000, "text/plain")) as server:
        error = failure(server)
    assert "saying: a[31m bccc" in error.problem
    assert len(error.problem) < 400


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_batch_stops_at_what_would_meet_every_request(status: int) -> None:
    with OpenAIServer(answer(status, "no", "text/plain")) as server:
        engine = RemoteEngine(server.url, "tiny", settings=FAST)
        outcomes = engine.generate_batch([ASK] * 50, concurrency=2)
        assert len(server.posts) <= 2
    assert len(outcomes) == 50
    assert all(isinstance(o, RemoteError) and o.status == status for o in outcomes)


def test_one_failure_of_a_batch_leaves_the_others_alone() -> None:
    script = [stream("a"), answer(400, "no", "text/plain"), stream("b"), cut("c")]
    with OpenAIServer(*script, stream("d")) as server:
        engine = RemoteEngine(server.url, "tiny", settings=FAST)
        outcomes = engine.generate_batch([ASK] * 5, concurrency=1)
    shown = [o.kind if isinstance(o, RemoteError) else o.text for o in outcomes]
    assert shown == ["a", "rejected", "b", "cut", "d"]


def test_a_kept_connection_that_the_server_closed_is_opened_again() -> None:
    def once(exchange: Exchange) -> None:
        stream("first")(exchange)
        exchange.close()

    with OpenAIServer(once, stream("second")) as server:
        engine = RemoteEngine(server.url, "tiny", settings=FAST)
        outcomes = engine.generate_batch([ASK, ASK], concurrency=1)
        assert server.connections == 2
    assert [o if isinstance(o, RemoteError) else o.text for o in outcomes] == ["first", "second"]


def test_the_end_of_a_stream_without_done_is_enough() -> None:
    with OpenAIServer(stream_exactly("Hello", stop())) as server:
        assert RemoteEngine(server.url, "tiny", settings=FAST).generate(ASK).text == "Hello"

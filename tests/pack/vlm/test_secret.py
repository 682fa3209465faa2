"""Keys: where they come from, and that their value shows up nowhere but in the one header."""

from __future__ import annotations

import base64
import copy
import gc
import json
import logging
import os
import pickle
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import keyring
import keyring.errors
import pytest
from keyring.backend import KeyringBackend
from support.openai_server import (
    Behaviour,
    Exchange,
    OpenAIServer,
    answer,
    cut,
    drop,
    hang,
    raw,
    stream,
    stream_exactly,
)
from vivace.vlm.remote.openai_request import ChatRequest, Message
from vivace.vlm.remote.remote_engine import RemoteEngine
from vivace.vlm.remote.remote_errors import RemoteError
from vivace.vlm.remote.remote_retry import RemoteSettings
from vivace.vlm.remote.secret import KEYRING_SERVICE, PLACEHOLDER, Secret, SecretError, redact

CANARY = "sk-canary-7f3a/+9Q=="
NAME = "VIVACE_TEST_API_KEY"
ASK = ChatRequest((Message("user", "Hi"),))


@pytest.fixture
def secret(monkeypatch: pytest.MonkeyPatch) -> Secret:
    monkeypatch.setenv(NAME, f" {CANARY}\n")
    return Secret.from_environment(NAME)


def private(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path


def test_a_key_from_the_environment(secret: Secret) -> None:
    assert secret.reveal() == CANARY


def test_a_handle_never_holds_the_value(secret: Secret) -> None:
    for text in (repr(secret), str(secret), f"{secret}", f"{secret!r:>80}", str([secret])):
        assert NAME in text
        assert CANARY not in text
    assert CANARY not in str(gc.get_referents(secret))
    assert CANARY.encode() not in pickle.dumps(secret)
    for twin in (copy.copy(secret), copy.deepcopy(secret), pickle.loads(pickle.dumps(secret))):  # noqa: S301
        assert twin == secret
        assert CANARY not in str(vars(twin))
    with pytest.raises(TypeError):
        json.dumps(secret)
    assert CANARY not in json.dumps(secret, default=str)
    assert CANARY not in json.dumps(vars(secret))


def test_a_key_that_is_gone_is_reported(secret: Secret, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(NAME)
    with pytest.raises(SecretError, match=rf"environment variable '{NAME}': it is not set"):
        secret.reveal()
    with pytest.raises(SecretError, match="Set it before ComfyUI is started"):
        Secret.from_environment(NAME)
    monkeypatch.setenv(NAME, " ")
    with pytest.raises(SecretError, match="not set, or empty"):
        Secret.from_environment(NAME)


@pytest.mark.parametrize("name", ["PATH", "AWS_SECRET_ACCESS_KEY", "_API_KEY;", "", CANARY])
def test_other_variables_are_not_read_and_not_shown(name: str) -> None:
    """People paste the key where its name belongs, so what they gave is not repeated."""
    with pytest.raises(SecretError, match="name ends in _API_KEY") as caught:
        Secret.from_environment(name)
    assert not name or name not in str(caught.value).replace("_API_KEY", "")


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"mine": CANARY, "other": "x"}),
        f"# keys\n\nother=x\nmine={CANARY}\n",
        f"export mine = '{CANARY}'\r\n",
        f'\ufeffmine="{CANARY}"',
    ],
)
def test_a_key_from_a_file(tmp_path: Path, text: str) -> None:
    path = private(tmp_path / "keys", text)
    secret = Secret.from_file(path, "mine")
    assert secret.reveal() == CANARY
    assert str(secret) == f"secrets file entry 'mine' of {path}"


@pytest.mark.parametrize(
    "text",
    [
        '{"mine": "' + CANARY,
        json.dumps({"mine": {"key": CANARY}}),
        "{" * 100_000,
        f"mine {CANARY}",
        f"={CANARY}",
        CANARY.replace("=", ""),
    ],
)
def test_a_malformed_file_is_not_quoted(tmp_path: Path, text: str) -> None:
    path = private(tmp_path / "keys", text)
    with pytest.raises(SecretError, match=r"keys: neither JSON nor NAME=value lines") as caught:
        Secret.from_file(path, "mine")
    assert_clean(caught.value)


def test_missing_files_and_entries(tmp_path: Path) -> None:
    with pytest.raises(SecretError, match="no such file"):
        Secret.from_file(tmp_path / "keys", "mine")
    with pytest.raises(SecretError, match="cannot be read"):
        Secret.from_file(tmp_path, "mine")
    path = private(tmp_path / "keys", f"mine=\nthird={CANARY}\n")
    for name in ("mine", "other"):
        with pytest.raises(SecretError, match=f"no entry '{name}', or it is empty") as caught:
            Secret.from_file(path, name)
        assert_clean(caught.value)
    private(path, "x" * (2**20 + 1))
    with pytest.raises(SecretError, match="larger than 1 MiB"):
        Secret.from_file(path, "mine")


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX")
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o610, 0o644])
def test_a_file_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = private(tmp_path / "keys", f"mine={CANARY}", mode)
    with pytest.raises(SecretError, match=f"others may read it .mode {mode:04o}.*chmod 600"):
        Secret.from_file(path, "mine")


class Ring(KeyringBackend):
    """A backend that asks a function."""

    priority = 1  # pyright: ignore[reportAssignmentType]

    def __init__(self, get: Callable[[str, str], str | None]) -> None:
        super().__init__()
        self._get = get

    def get_password(self, service: str, username: str) -> str | None:
        return self._get(service, username)

    def set_password(self, service: str, username: str, password: str) -> None:
        raise NotImplementedError


@pytest.fixture
def use_ring() -> Iterator[Callable[[Callable[[str, str], str | None]], None]]:
    before = keyring.get_keyring()
    yield lambda get: keyring.set_keyring(Ring(get))
    keyring.set_keyring(before)


def test_a_key_from_the_keyring(use_ring: Any) -> None:
    use_ring(lambda *entry: {(KEYRING_SERVICE, "mine"): CANARY}.get(entry))
    assert Secret.from_keyring("mine").reveal() == CANARY
    with pytest.raises(SecretError, match="keyring set ComfyUI-Vivace other"):
        Secret.from_keyring("other")


def test_a_keyring_that_is_missing_or_locked(
    use_ring: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def locked(*_: str) -> None:
        raise keyring.errors.KeyringLocked(CANARY)

    use_ring(locked)
    with pytest.raises(SecretError, match=r"cannot be read \(KeyringLocked\)") as caught:
        Secret.from_keyring("mine")
    assert_clean(caught.value)
    monkeypatch.setitem(sys.modules, "keyring", None)
    with pytest.raises(SecretError, match="pip install keyring"):
        Secret.from_keyring("mine")


def test_redact_finds_every_written_form(secret: Secret) -> None:
    forms = [
        CANARY,
        json.dumps(CANARY),
        quote(CANARY, safe=""),
        base64.b64encode(CANARY.encode()).decode(),
    ]
    cleaned = redact("|".join(forms) + "|rest", [secret])
    assert cleaned.count(PLACEHOLDER) == 4
    assert cleaned.endswith("|rest")
    assert "canary" not in cleaned


def test_redact_without_a_readable_key(secret: Secret, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(NAME)
    assert redact("text", [secret]) == "text"


def vars_of(frame: traceback.FrameSummary) -> tuple[object, ...]:
    return frame.filename, frame.line, frame.locals


def assert_clean(error: BaseException | None, value: str = CANARY) -> None:
    """Search an exception, all it refers to, and every local variable of its traceback."""
    while error is not None:
        assert value not in f"{error} {error!r} {error.args} {vars(error)}"
        assert value.encode() not in pickle.dumps(error)
        for locals_too in (False, True):
            report = traceback.TracebackException.from_exception(error, capture_locals=locals_too)
            frames = [frame for frame in report.stack if frame.filename != __file__]
            assert value not in str([vars_of(frame) for frame in frames])
        error = error.__context__


def echo(status: int) -> Behaviour:
    """A server that repeats the key in its error, far behind and cut as well."""

    def behave(exchange: Exchange) -> None:
        key = (exchange.request.authorization or "").removeprefix("Bearer ")
        words = f"Incorrect API key provided: {key}. " + "x" * 245 + key
        answer(status, {"error": {"message": words}})(exchange)

    return behave


@pytest.mark.parametrize(
    "behaviour",
    [
        echo(200),
        echo(401),
        echo(429),
        echo(500),
        answer(200, "{"),
        answer(200, f"<p>{CANARY}", "text/html"),
        stream_exactly(f"{CANARY}", {"error": CANARY}),
        stream_exactly({"no choices": CANARY}),
        answer(307, "", Location=f"http://127.0.0.1:9/{CANARY}"),
        cut("text"),
        raw(f"{CANARY}\r\n".encode()),
        drop,
        hang(),
    ],
)
def test_a_key_shows_up_in_no_error(
    behaviour: Behaviour, secret: Secret, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    settings = RemoteSettings(1, 0.2, tries=2, first_delay=0.01)
    with OpenAIServer(behaviour) as server:
        engine = RemoteEngine(server.url, "tiny", secret, settings)
        with pytest.raises(RemoteError) as caught:
            engine.generate(ASK)
        assert_clean(caught.value)
        (outcome,) = engine.generate_batch([ASK])
        assert isinstance(outcome, RemoteError)
        assert_clean(outcome)
        assert CANARY not in f"{engine!r} {engine}"
        assert {request.authorization for request in server.requests} == {f"Bearer {CANARY}"}
        for request in server.requests:
            assert CANARY not in f"{request.path} {request.headers} {request.body}"
    with OpenAIServer(answer(404, "model not found")) as server:
        server.models_answer = behaviour
        with pytest.raises(RemoteError) as caught:
            RemoteEngine(server.url, "tiny", secret, settings).generate(ASK)
        assert_clean(caught.value)
    assert CANARY not in caplog.text
    assert CANARY not in str([vars(record) for record in caplog.records])


def test_a_key_shows_up_in_no_name_of_a_model(secret: Secret) -> None:
    with OpenAIServer(answer(404, "model not found"), models=[f"a {CANARY}", "b"]) as server:
        with pytest.raises(RemoteError, match=r"one of its models: a \[secret\], b") as caught:
            RemoteEngine(server.url, "tiny", secret).generate(ASK)
        assert_clean(caught.value)


@pytest.mark.parametrize("name", [CANARY, "Kq7x00zZ99pP55mM11nN"])
def test_a_key_in_place_of_its_name_is_refused(tmp_path: Path, name: str) -> None:
    path = private(tmp_path / "keys", f"mine={CANARY}")
    for make in (Secret.from_keyring, lambda name: Secret.from_file(path, name)):
        with pytest.raises(SecretError, match="looks like a key itself") as caught:
            make(name)
        assert name not in f"{caught.value} {caught.value!r} {vars(caught.value)}"


def test_a_key_is_sent_as_a_header_only(secret: Secret) -> None:
    with OpenAIServer(stream("Hello")) as server:
        engine = RemoteEngine(server.url, "tiny", secret)
        assert engine.generate(ASK).text == "Hello"
    assert [request.authorization for request in server.requests] == [f"Bearer {CANARY}"]
    for request in server.requests:
        assert CANARY not in f"{request.path} {request.headers} {request.body}"


def test_a_refused_key_is_named_not_shown(secret: Secret) -> None:
    with OpenAIServer(answer(401, "")) as server, pytest.raises(RemoteError) as caught:
        RemoteEngine(server.url, "tiny", secret).generate(ASK)
    assert caught.value.remedy == f"Check the environment variable '{NAME}'"


def test_a_key_does_not_follow_a_redirect(secret: Secret) -> None:
    with OpenAIServer() as other, OpenAIServer(answer(307, "", Location=other.url)) as server:
        with pytest.raises(RemoteError, match="keys do not follow redirects"):
            RemoteEngine(server.url, "tiny", secret).generate(ASK)
        assert other.connections == 0


@pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "käse", "two words", "a\x00b"])
def test_a_key_that_no_header_may_have(value: str, tmp_path: Path) -> None:
    path = private(tmp_path / "keys", json.dumps({"mine": value}))
    secret = Secret.from_file(path, "mine")
    with OpenAIServer() as server:
        with pytest.raises(SecretError, match="no HTTP header may have") as caught:
            RemoteEngine(server.url, "tiny", secret).generate(ASK)
        assert server.posts == []
    assert_clean(caught.value, value)
    assert_clean(caught.value, ascii(value)[1:-1])

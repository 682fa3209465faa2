"""Servers that want the bound of the answer under its newer name."""

from __future__ import annotations

import pytest
from support.openai_server import OpenAIServer, answer, stream
from vivace.vlm.remote.openai_request import ChatRequest, Message
from vivace.vlm.remote.remote_engine import RemoteEngine
from vivace.vlm.remote.remote_errors import RemoteError

REFUSED = {
    "error": {
        "message": "Unsupported parameter: 'max_tokens' is not supported with this model."
        " Use 'max_completion_tokens' instead.",
        "type": "invalid_request_error",
    }
}
TEXT = 'Say "max_tokens": 3 \u00e9'


def ask(bound: int | None = 64) -> ChatRequest:
    return ChatRequest((Message("user", TEXT),), max_tokens=bound)


def test_the_bound_is_sent_again_under_its_other_name() -> None:
    with OpenAIServer(answer(400, REFUSED), stream("Yes")) as server:
        reply = RemoteEngine(server.url, "tiny").generate(ask(), {})
        first, second = [item.json for item in server.posts]
    assert (reply.text, reply.attempts) == ("Yes", 2)
    assert first["max_tokens"] == second["max_completion_tokens"] == 64
    assert "max_tokens" not in second
    assert first["messages"] == second["messages"] == [{"role": "user", "content": TEXT}]


@pytest.mark.parametrize(("bound", "requests"), [(64, 2), (None, 1)])
def test_a_server_that_refuses_either_is_not_asked_for_ever(
    bound: int | None, requests: int
) -> None:
    with OpenAIServer(answer(400, REFUSED)) as server:
        with pytest.raises(RemoteError, match="rejected the request"):
            RemoteEngine(server.url, "tiny").generate(ask(bound), {})
        assert len(server.posts) == requests

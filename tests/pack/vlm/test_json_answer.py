"""JSON answers: what counts as one, asking again, and servers that do not know the mode."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from support.openai_server import OpenAIServer, answer, stream
from vivace.toolkit.json_schema import JsonSchema
from vivace.vlm.json_answer import JsonAnswerError, JsonForm, ask_json, json_text
from vivace.vlm.question import AnswerSettings, Question, chat_request
from vivace.vlm.remote.openai_reply import Reply, Usage
from vivace.vlm.remote.remote_engine import RemoteEngine
from vivace.vlm.remote.remote_errors import RemoteError
from vivace.vlm.text.chat import ChatMessage

SCHEMA = JsonSchema({"type": "object", "properties": {"n": {"type": "integer"}}})
REFUSAL = answer(400, {"error": {"message": "response_format is not supported"}})


class Model:
    """Answers with these texts in turn."""

    def __init__(self, *texts: str, reason: str = "stop") -> None:
        self.texts, self.reason = list(texts), reason
        self.questions: list[Question] = []

    def __call__(self, question: Question) -> Reply:
        self.questions.append(question)
        return Reply(self.texts.pop(0), "", self.reason, Usage(1, 1), "model")


@pytest.mark.parametrize(
    "text", ['{"n": 1}', ' {"n": 1}\n', '```json\n{"n": 1}\n```', '```\n{"n": 1}```']
)
def test_json_alone_or_in_one_block(text: str) -> None:
    assert json_text(text, SCHEMA) == '{"n": 1}'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1, column 1"),
        ('Here: {"n": 1}', "line 1, column 1"),
        ('{\n  "n": 1,,\n}', "line 2, column 10"),
        ('{"n": NaN}', "NaN is not JSON"),
        ('{"n": 1e999}', "too large"),
        ("[" * 100_000, "nested too deeply"),
        ("[1]", "$: [1] is not of type 'object'"),
        ('{"n": "x"}', "$.n: 'x' is not of type 'integer'"),
    ],
)
def test_everything_else_is_not(text: str, message: str) -> None:
    with pytest.raises(JsonAnswerError) as error:
        json_text(text, SCHEMA)
    assert message in str(error.value)
    with pytest.raises(JsonAnswerError):
        json_text("[1]")


def test_a_wrong_answer_is_asked_for_again_with_the_place() -> None:
    model = Model('{"n": "x"}', '{"n": 2}')
    history = (ChatMessage("user", "Hi"), ChatMessage("assistant", "Yes?"))
    reply, question = ask_json(model, Question("Count.", history=history), JsonForm(SCHEMA))
    first, second = model.questions
    assert reply.text == '{"n": 2}'
    assert question is first
    assert first.text.startswith("Count.\n\nAnswer with JSON")
    assert json.dumps(SCHEMA.schema) in first.text
    assert (first.json_mode, first.json_schema) == (True, SCHEMA.schema)
    assert first.history == history
    assert second.history is not None
    assert [m.text for m in second.history[2:]] == [first.text, '{"n": "x"}']
    assert "$.n: 'x' is not of type 'integer'" in second.text
    assert second.json_schema is not None


def test_too_many_wrong_answers_are_an_error_with_place_and_answer() -> None:
    model = Model("no", "never", "no more")
    with pytest.raises(JsonAnswerError, match=r"line 1, column 1.*It was: no more"):
        ask_json(model, Question("?"), JsonForm(retries=2))
    assert len(model.questions) == 3
    with pytest.raises(JsonAnswerError, match=r"It was: no$"):
        ask_json(Model("no"), Question("?"), JsonForm(retries=0))


def test_an_answer_that_was_cut_off_is_not_asked_for_again() -> None:
    model = Model('{"n": ', reason="length")
    with pytest.raises(JsonAnswerError, match="cut off at max_tokens"):
        ask_json(model, Question("?"), JsonForm(SCHEMA, 5))
    assert len(model.questions) == 1


@pytest.fixture
def asking() -> Callable[[OpenAIServer], Callable[[Question], Reply]]:
    def of(server: OpenAIServer) -> Callable[[Question], Reply]:
        engine = RemoteEngine(server.url, "tiny")
        return lambda question: engine.generate(chat_request(question, AnswerSettings(), []))

    return of


def formats(server: OpenAIServer) -> list[str | None]:
    return [(p.json.get("response_format") or {}).get("type") for p in server.posts]


def test_a_server_is_asked_for_the_schema_and_then_for_less(
    asking: Callable[[OpenAIServer], Callable[[Question], Reply]],
) -> None:
    with OpenAIServer(REFUSAL, REFUSAL, stream('{"n": ', "1}")) as server:
        reply, _ = ask_json(asking(server), Question("?"), JsonForm(SCHEMA))
        assert reply.text == '{"n": 1}'
        assert formats(server) == ["json_schema", "json_object", None]
    with OpenAIServer(REFUSAL, stream("no"), stream('{"n": 1}')) as server:
        ask_json(asking(server), Question("?"), JsonForm(SCHEMA))
        assert formats(server) == ["json_schema", "json_object", "json_object"]  # not tried again


def test_other_errors_are_not_taken_for_that(
    asking: Callable[[OpenAIServer], Callable[[Question], Reply]],
) -> None:
    with OpenAIServer(answer(401, {})) as server, pytest.raises(RemoteError):
        ask_json(asking(server), Question("?"), JsonForm(SCHEMA))
    assert len(server.posts) == 1
    too_long = answer(400, {"error": {"message": "the prompt is too long"}})
    with OpenAIServer(too_long) as server, pytest.raises(RemoteError, match="too long"):
        ask_json(asking(server), Question("?"), JsonForm(SCHEMA))
    assert len(server.posts) == 3

"""Answers that are JSON: asked for in words, checked, and asked for once more where they are not.

Servers are also asked in the protocol's own way, `response_format`; those that do not know it are
asked without.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from .question import Question
from .remote.openai_reply import Reply
from .remote.remote_errors import RemoteError
from .text.chat import ChatMessage

_FENCED = re.compile(r"```(?:json)?[ \t]*\n(.*?)\n?```", re.DOTALL | re.IGNORECASE)
_NOT_TAKEN = frozenset({400, 415, 422, 501})
_SHOWN = 200  # characters of an answer in an error


class Schema(Protocol):
    """What an answer shall be like."""

    schema: Mapping[str, Any]

    def fault(self, value: Any) -> str | None:
        """Say where and why a value does not fit; None if it does."""
        ...


@dataclass(frozen=True)
class JsonForm:
    """JSON of any kind, or of a schema; a wrong answer is asked for again up to `retries` times."""

    schema: Schema | None = None
    retries: int = 1


class JsonAnswerError(ValueError):
    """An answer that is not the JSON that was asked for; the message names the place in it."""


def ask_json(
    ask: Callable[[Question], Reply], question: Question, form: JsonForm
) -> tuple[Reply, Question]:
    """Ask until the answer is the JSON that was asked for.

    Args:
        ask: sends one question.

    Returns:
        The last reply, whose text is the JSON alone, and the question in its first form.

    Raises:
        JsonAnswerError: the last answer is not that JSON either, or was cut off.
        RemoteError: as `ask`.
    """
    first = _formed(question, form)
    asked = first
    for left in range(form.retries, -1, -1):
        reply, asked = _ask(ask, asked)
        try:
            return replace(reply, text=json_text(reply.text, form.schema)), first
        except JsonAnswerError as error:
            if reply.finish_reason == "length":
                problem = "it was cut off at max_tokens. Allow more of them"
                raise JsonAnswerError(_failure(problem, reply, form)) from None
            if not left:
                raise JsonAnswerError(_failure(str(error), reply, form)) from None
            asked = _again(asked, reply, str(error))
    raise AssertionError("the last try returns or raises")  # pragma: no cover


def json_text(text: str, schema: Schema | None = None) -> str:
    """The JSON of an answer: all of it, or all of one code block that it consists of.

    Raises:
        JsonAnswerError: it is not JSON, or does not fit the schema.
    """
    text = text.strip()
    if fenced := _FENCED.fullmatch(text):
        text = fenced[1].strip()
    try:
        value = json.loads(text, parse_constant=_refuse, parse_float=_finite)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise JsonAnswerError(f"{place}: {error.msg}") from None
    except RecursionError:
        raise JsonAnswerError("it is nested too deeply") from None
    except ValueError as error:
        raise JsonAnswerError(str(error)) from None
    if schema is None and not isinstance(value, dict):
        raise JsonAnswerError("$ is not an object")
    fault = schema.fault(value) if schema is not None else None
    if fault is not None:
        raise JsonAnswerError(fault)
    return text


def _formed(question: Question, form: JsonForm) -> Question:
    if form.schema is None:
        wish = "Answer with one JSON object and nothing else."
        return replace(question, text=f"{question.text}\n\n{wish}", json_mode=True)
    schema = form.schema.schema
    written = json.dumps(schema, ensure_ascii=False)
    wish = f"Answer with JSON and nothing else. It must fit this JSON Schema:\n{written}"
    return replace(question, text=f"{question.text}\n\n{wish}", json_mode=True, json_schema=schema)


def _ask(ask: Callable[[Question], Reply], question: Question) -> tuple[Reply, Question]:
    """Ask as strictly as the server takes it; return also how it took it."""
    try:
        return ask(question), question
    except RemoteError as error:
        asked = question.json_mode or question.json_schema is not None
        if not asked or error.kind != "rejected" or error.status not in _NOT_TAKEN:
            raise
    if question.json_schema is not None:
        return _ask(ask, replace(question, json_schema=None))
    return _ask(ask, replace(question, json_mode=False))


def _again(question: Question, reply: Reply, problem: str) -> Question:
    """The next question, in a conversation that shows what was wrong with the answer."""
    asked = ChatMessage("user", question.text, question.images)
    answered = ChatMessage("assistant", reply.text)
    return replace(
        question,
        text=(
            f"That is not the JSON that was asked for: {problem}. Answer again, with the corrected "
            "JSON and nothing else."
        ),
        images=(),
        history=(*(question.history or ()), asked, answered),
    )


def _failure(problem: str, reply: Reply, form: JsonForm) -> str:
    shown = " ".join(reply.text.split())
    shown = shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."
    wanted = "JSON" if form.schema is None else "JSON of the schema"
    return f"The answer is not {wanted}: {problem}. It was: {shown}"


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"the number {text} is too large")
    return value

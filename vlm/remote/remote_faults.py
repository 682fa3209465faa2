"""Puts HTTP statuses and faults of the connection into words."""

from __future__ import annotations

import asyncio
import re

import aiohttp

from .remote_errors import Kind, RemoteError
from .remote_retry import RemoteSettings
from .secret import Secret

_MAX_EXCERPT = 300  # characters of a server's own words
_RETRIED = frozenset({408, 429, 500, 502, 503, 504, 529})
_NO_MODEL = re.compile(
    r"model.*(not found|not exist|not loaded)|(unknown|invalid|no such) model",
    re.IGNORECASE,
)


def excerpt(text: str) -> str:
    """The beginning of a text from a server, on one line, without control characters."""
    start = " ".join(text[: 4 * _MAX_EXCERPT].split())
    shown = "".join(character for character in start if character.isprintable())
    return shown if len(shown) <= _MAX_EXCERPT else f"{shown[:_MAX_EXCERPT]}..."


def status_fault(
    url: str,
    status: int,
    words: str,
    key: Secret | None,
    location: str,
    retry_after: float | None,
) -> RemoteError:
    """The error for an answer of another status than 200; `words` are the server's own."""
    said = f", saying: {words}" if words else ""

    def error(problem: str, remedy: str, kind: Kind, wait: bool = False) -> RemoteError:
        return RemoteError(
            url,
            f"{problem} (HTTP {status}{said})",
            remedy,
            kind,
            status,
            wait,
            retry_after,
        )

    if status == 401:
        if key is None:
            remedy = "Give the name of the environment variable or keyring entry that holds one"
            return error("wants an API key", remedy, "unauthorized")
        return error("refused the API key", f"Check the {key}", "unauthorized")
    if status == 403:
        remedy = "Check what the key's account may use, and the server's access rules"
        return error("does not allow this request", remedy, "unauthorized")
    if status in (400, 404, 422) and _NO_MODEL.search(words):
        return error("does not have this model", "Check the model's name", "model")
    if status == 404:
        remedy = "Check the address; it usually ends in /v1"
        return error("has nothing at this address", remedy, "not found")
    if status == 413:
        remedy = "Choose a lower image quality, or send fewer images"
        return error("finds the request too large", remedy, "rejected")
    if status == 429:
        asked = f"; it asks to wait {retry_after:.0f} s" if retry_after else ""
        remedy = "Try again later, or with less concurrency"
        return error(f"is too busy{asked}", remedy, "busy", wait=True)
    if 300 <= status < 400:
        target = excerpt((location or "another address").partition("?")[0])
        remedy = "Give that address itself; keys do not follow redirects"
        return error(f"redirects to {target}", remedy, "not found")
    if status >= 500 or status in _RETRIED:
        remedy = "See the server's log, and try again later"
        return error("failed", remedy, "failed", wait=status in _RETRIED)
    return error("rejected the request", "Change the request accordingly", "rejected")


def connection_fault(
    url: str, error: BaseException, settings: RemoteSettings, begun: bool
) -> RemoteError:
    """The error for a connection that failed; `begun` says that text had come."""
    where = "in the middle of the answer" if begun else "before it answered"
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        problem = f"no connection within {settings.connect_timeout:g} s"
        remedy = "Check the address, and that the server runs and no firewall is between"
        return RemoteError(url, problem, remedy, "unreachable", retryable=True)
    if isinstance(error, asyncio.TimeoutError):
        problem = f"sent nothing for {settings.read_timeout:g} s, {where}"
        remedy = "Look at the server's load, or allow more time"
        return RemoteError(url, problem, remedy, "slow")
    if isinstance(error, (aiohttp.ClientSSLError, aiohttp.ServerFingerprintMismatch)):
        problem = f"no secure connection ({_reason(error)})"
        remedy = "Check the server's certificate, or whether the address should begin with http://"
        return RemoteError(url, problem, remedy, "unreachable")
    if isinstance(error, aiohttp.ClientConnectorError):
        problem = f"cannot be reached ({_reason(error)})"
        remedy = "Check the address, and that the server runs"
        return RemoteError(url, problem, remedy, "unreachable", retryable=True)
    if isinstance(error, aiohttp.ClientResponseError):
        problem = "answered with something that is not HTTP"
        remedy = "Check the port, and whether the address should begin with https://"
        return RemoteError(url, problem, remedy, "garbage")
    problem = f"the connection was cut {where}"
    return RemoteError(url, problem, "See the server's log", "cut", retryable=True)


def _reason(error: aiohttp.ClientConnectorError | aiohttp.ClientError) -> str:
    cause = getattr(error, "os_error", None) or getattr(error, "certificate_error", None)
    return excerpt(getattr(cause, "strerror", None) or str(cause or type(error).__name__))

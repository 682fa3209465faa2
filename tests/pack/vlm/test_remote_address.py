"""Addresses of servers: completed, refused, and their secrets never shown."""

from __future__ import annotations

import pytest
from vivace.vlm.remote.remote_engine import RemoteEngine, server_address
from vivace.vlm.remote.remote_errors import RemoteError


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("http://localhost:8000", "http://localhost:8000/v1"),
        (" https://example.org/api/v1/ ", "https://example.org/api/v1"),
        ("http://[::1]:8000/", "http://[::1]:8000/v1"),
        ("HTTP://Example.org/V1", "http://example.org/V1"),
    ],
)
def test_addresses(text: str, address: str) -> None:
    assert server_address(text) == address


@pytest.mark.parametrize(
    "text", ["", "localhost:8000", "ftp://a/v1", "http://", "http://a:99999999/v1", "http://[/v1"]
)
def test_bad_addresses_are_refused(text: str) -> None:
    with pytest.raises(RemoteError, match="not an http:// or https:// address") as caught:
        RemoteEngine(text, "tiny")
    assert caught.value.kind == "address"


@pytest.mark.parametrize(
    "text",
    ["http://me:hidden@a/v1", "http://hidden@a/v1", "http://a/v1?k=hidden", "http://a#hidden"],
)
def test_addresses_with_secrets_are_refused_without_showing_them(text: str) -> None:
    with pytest.raises(RemoteError, match="more than a server and a path") as caught:
        RemoteEngine(text, "tiny")
    assert "hidden" not in str(caught.value)

"""What is taken for a key, and what for the name of one."""

from __future__ import annotations

import base64
import random
import uuid

import pytest
from vivace.vlm.remote.key_shape import looks_like_key

KEYS = [
    "sk-canary-7f3a/+9Q==",
    "sk-proj-Ab3dEf6hIj9kLm2nOp5qRs8t",
    "sk-ant-api03-Zz9Yy8Xx7Ww6Vv5Uu4",
    " gsk_1a2B3c4D5e6F7g8H9i0J \n",
    "hf_AbCdEfGhIjKlMnOpQrStUvWxYz123456",
    "AIzaSyD-9tSrke72PouQMnMX-a7eZSW0jkFMBWY",
    "Bearer abcdefgh",
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIx.c2ln",
    "0123456789abcdef0123456789abcdef",
    "12345678901234567890",
]
NAMES = [
    "",
    "OPENAI_API_KEY",
    "MY_2ND_SERVER_1_2_3_4_5_6_7_8_API_KEY",
    "openai",
    "openai-work-laptop-2024",
    "MyCompanyOpenRouterAccountKey",
    "key for the lab's vLLM (building 7)",
    "skynet-production-server",
    "hf_personal_read_token",
    "pk-werkstatt",
]


@pytest.mark.parametrize("text", KEYS)
def test_keys(text: str) -> None:
    assert looks_like_key(text)


@pytest.mark.parametrize("text", NAMES)
def test_names(text: str) -> None:
    assert not looks_like_key(text)


def test_nearly_all_random_keys_are_recognized() -> None:
    source = random.Random(7)  # noqa: S311
    kinds = {
        "hex": lambda: source.randbytes(16).hex(),
        "base64": lambda: base64.b64encode(source.randbytes(32)).decode(),
        "url": lambda: base64.urlsafe_b64encode(source.randbytes(32)).decode().rstrip("="),
        "uuid": lambda: str(uuid.UUID(bytes=source.randbytes(16))),
    }
    missed = {
        kind: sum(not looks_like_key(make()) for _ in range(1000)) for kind, make in kinds.items()
    }
    assert max(missed.values()) <= 20, missed

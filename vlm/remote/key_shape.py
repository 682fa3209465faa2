"""Tells an API key from the name of one: people paste the key where its name belongs."""

from __future__ import annotations

import re

REMOVED = "[a key was given here; it was removed]"
# How the keys of well-known services begin.
_PREFIX = re.compile(
    r"(sk|pk|rk|xai|gsk|r8|hf|fw|fal|pplx|nvapi|csk|tgp|glpat|ghp|gho|ghs|ghu|github_pat|AIza|AKIA)"
    r"[-_]?(?=[A-Za-z0-9+/_-]*[0-9])[A-Za-z0-9+/=_-]{12,}"
    r"|sk-[^\s]{8,}|(Bearer|Basic)\s.{6,}|eyJ[\w-]{10,}.*"
)
_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]*_API_KEY")
_UUID = re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
_LONG_RUN = re.compile(r"[A-Za-z0-9]{20,}")
_CHANGE = re.compile(r"(?<=[A-Za-z])(?=[0-9])|(?<=[0-9])(?=[A-Za-z])")
_LONG = 20
_MANY_CHANGES = 4
_MAX_NAME = 100


def looks_like_key(text: str) -> bool:
    """Whether a text is rather a key than a name: a known beginning, or long and random."""
    text = text.strip()
    if _VARIABLE.fullmatch(text) and len(text) <= _MAX_NAME:
        return False
    if len(text) > _MAX_NAME or _PREFIX.fullmatch(text) or _UUID.search(text):
        return True
    # Words have few digits, mostly at their ends; random characters mix them with letters.
    if any(sum(map(str.isdigit, run)) >= 3 for run in _LONG_RUN.findall(text)):
        return True
    return len(text) >= _LONG and len(_CHANGE.findall(text)) >= _MANY_CHANGES

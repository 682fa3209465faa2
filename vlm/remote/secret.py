"""API keys by name: what is handed on says where a key lies, and never holds the key itself.

A handle may end up in a cache, a saved workflow or an error message. So it keeps only the name;
the value is read when a request is sent, and forgotten again.
"""

from __future__ import annotations

import base64
import json
import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from .key_shape import looks_like_key

KEYRING_SERVICE = "ComfyUI-Vivace"
PLACEHOLDER = "[secret]"
# A workflow names the variable and the server. Were any variable allowed, a workflow from a
# stranger could send him whatever the environment holds.
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*_API_KEY")
_LINE = re.compile(r"(?:export\s+)?([^\s=#]+)\s*=\s*(.*?)\s*")
_MAX_FILE_BYTES = 2**20


class SecretError(ValueError):
    """A key that cannot be had; the message names the source and the remedy, never a value."""

    def __init__(self, source: str, problem: str, remedy: str) -> None:
        self.source = source
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{source}: {problem}. {remedy}")

    def __reduce__(self) -> tuple[type[SecretError], tuple[str, str, str]]:
        return type(self), (self.source, self.problem, self.remedy)


@dataclass(frozen=True)
class Secret:
    """Where a key is to be found. Printing, copying, pickling or comparing it shows only that.

    Made by `from_environment`, `from_keyring` and `from_file`, which check that the key is there.
    """

    kind: Literal["environment variable", "keyring entry", "secrets file entry"]
    name: str
    path: str | None = None

    @classmethod
    def from_environment(cls, name: str) -> Secret:
        """The key in the environment variable `name`, which must end in ``_API_KEY``.

        Raises:
            SecretError: another name, or the variable is not set or empty.
        """
        return cls("environment variable", name)._checked()

    @classmethod
    def from_keyring(cls, name: str) -> Secret:
        """The key that the operating system's keyring has for service ``ComfyUI-Vivace``.

        Raises:
            SecretError: the `keyring` package or the entry is missing, the keyring is locked, or
                the name looks like a key itself.
        """
        return cls("keyring entry", name)._checked()

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], name: str) -> Secret:
        """The key `name` in a secrets file: a JSON object, or lines of ``NAME=value``.

        Raises:
            SecretError: the file is missing, readable by others, malformed, or lacks the entry; or
                the name looks like a key itself.
        """
        return cls("secrets file entry", name, os.fspath(path))._checked()

    def __str__(self) -> str:
        place = f"{self.kind} '{self.name}'"
        return f"{place} of {self.path}" if self.path else place

    def __repr__(self) -> str:
        return f"<Secret: {self}>"

    def reveal(self) -> str:
        """Read the key. Keep the result out of attributes, messages and logs.

        Raises:
            SecretError: it is no longer there.
        """
        if self.kind == "environment variable":
            return _from_environment(self)
        if self.kind == "keyring entry":
            return _from_keyring(self)
        return _from_file(self)

    def _checked(self) -> Secret:
        if self.kind != "environment variable" and looks_like_key(self.name):
            # It is not shown, nor are its length and beginning.
            problem = "what was given as its name looks like a key itself"
            raise SecretError(
                self.kind, problem, "Store the key there under a short name, and give that"
            )
        self.reveal()
        return self


def redact(text: str, secrets: Iterable[Secret]) -> str:
    """Replace each key in `text`, plain or as JSON, a URL or base64 would write it."""
    forms = [form for secret in secrets for form in _written_forms(secret)]
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, PLACEHOLDER)
    return text


def _written_forms(secret: Secret) -> set[str]:
    try:
        value = secret.reveal()
    except SecretError:
        return set()  # a key that cannot be read was not sent either
    coded = base64.b64encode(value.encode()).decode().rstrip("=")
    return {value, json.dumps(value)[1:-1], quote(value, safe=""), coded}


def _from_environment(secret: Secret) -> str:
    if not _VARIABLE.fullmatch(secret.name):
        # The name is not shown: people paste the key itself here.
        raise SecretError(
            secret.kind,
            "only variables whose name ends in _API_KEY are read",
            "Put the key into a variable such as MY_SERVER_API_KEY and give that name, not the key",
        )
    if not os.environ.get(secret.name, "").strip():
        remedy = "Set it before ComfyUI is started, then start ComfyUI again"
        raise SecretError(str(secret), "it is not set, or empty", remedy)
    return os.environ[secret.name].strip()


def _from_keyring(secret: Secret) -> str:
    try:
        import keyring
        import keyring.errors
    except ImportError:
        remedy = "Run `pip install keyring` in ComfyUI's Python, or use an environment variable"
        raise SecretError(str(secret), "the keyring package is not installed", remedy) from None
    locked = ""
    found = None
    try:
        found = keyring.get_password(KEYRING_SERVICE, secret.name)
    except keyring.errors.KeyringError as error:
        locked = type(error).__name__
    if locked:  # outside of the handler, so that the error does not keep the keyring's own
        problem = f"the keyring cannot be read ({locked})"
        raise SecretError(str(secret), problem, "Unlock it, or use an environment variable")
    if not found or not found.strip():
        remedy = f"Run `keyring set {KEYRING_SERVICE} {secret.name}` and type the key"
        raise SecretError(str(secret), "there is no such entry", remedy)
    return found.strip()


def _from_file(secret: Secret) -> str:
    path = Path(secret.path or "")
    value = _entry(_read_private(path), secret.name)
    if value is None:
        remedy = "Write a JSON object of strings, or one NAME=value a line"
        raise SecretError(str(path), "neither JSON nor NAME=value lines", remedy)
    if not value:
        raise SecretError(str(path), f"no entry '{secret.name}', or it is empty", "Add it")
    return value


def _entry(text: str, name: str) -> str | None:
    """One value, empty if missing, None if the text is malformed.

    Nothing is raised here, nor where the result is used: a traceback may show local variables.
    """
    entries = _parse(text)
    return None if entries is None else entries.get(name, "")


def _read_private(path: Path) -> str:
    """Read the file, if nobody but its owner can: checked on the open file, not on its name."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            content = file.read(_MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise SecretError(str(path), "no such file", "Create it with mode 0600") from None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        remedy = "Check the path and its permissions"
        raise SecretError(str(path), f"cannot be read ({reason})", remedy) from None
    if os.name == "posix" and stat.S_IMODE(status.st_mode) & 0o077:
        mode = f"{stat.S_IMODE(status.st_mode):04o}"
        remedy = f"Run `chmod 600 {path}`"
        raise SecretError(str(path), f"others may read it (mode {mode})", remedy)
    if len(content) > _MAX_FILE_BYTES:
        raise SecretError(str(path), "larger than 1 MiB, so no secrets file", "Check the path")
    return content.decode("utf-8-sig", errors="replace")


def _parse(text: str) -> dict[str, str] | None:
    """The entries, or None if malformed: a parser's own exception would quote the file."""
    if text.lstrip().startswith("{"):
        try:
            content = json.loads(text)
        except (ValueError, RecursionError):
            return None
        if not all(isinstance(value, str) for value in content.values()):
            return None
        return {name: value.strip() for name, value in content.items()}
    entries: dict[str, str] = {}
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None:
            return None
        name, value = match.groups()
        quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
        entries[name] = value[1:-1] if quoted else value
    return entries

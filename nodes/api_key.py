"""API Key: names a key for the nodes that ask servers, and never holds it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import folder_paths
from comfy_api.latest import io

from ..defaults import DEFAULTS

SECRETS_FILE = "secrets.env"
SOURCES = [ENVIRONMENT, KEYRING, FILE] = ["environment variable", "keyring", "secrets file"]
_ITSELF = (
    "this looks like a key itself, not like the name of one, and was not kept. Store the key where"
    " source says, and give its name. A key that was pasted here may be in the browser's or the"
    " clipboard's history: consider a new one"
)
_DEFAULTS = DEFAULTS["VivaceApiKey"]


@io.comfytype(io_type="VIVACE_API_KEY")
class ApiKeyHandle(io.ComfyTypeIO):
    """Where a key lies: a `vlm.secret.Secret`, which reads it when a request is sent."""

    Type = Any


class ApiKey(io.ComfyNode):
    """A key by the name of where it lies."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VivaceApiKey",
            display_name="API Key",
            category="Vivace/Text",
            description=(
                "Names an API key that lies on the server: in an environment variable, the"
                " operating system's keyring or a secrets file. What it hands on is not the key,"
                " which is read only when a request is sent and never gets into a workflow, an"
                " image, the history or the log."
            ),
            search_aliases=["api key", "token", "secret", "credentials", "openai", "vivace"],
            inputs=[
                io.Combo.Input(
                    "source",
                    options=SOURCES,
                    default=_DEFAULTS["source"],
                    tooltip=(
                        "environment variable: of ComfyUI's process. keyring: the operating"
                        " system's, service ComfyUI-Vivace; needs the package keyring. secrets"
                        f" file: __vivace/{SECRETS_FILE} in ComfyUI's user folder, mode 0600."
                    ),
                ),
                io.String.Input(
                    "key_name",
                    default=_DEFAULTS["key_name"],
                    socketless=True,
                    tooltip=(
                        "Name of the variable, which must end in _API_KEY, or of the entry; never"
                        " the key itself."
                    ),
                ),
            ],
            outputs=[
                ApiKeyHandle.Output(
                    display_name="api_key",
                    tooltip="For the input api_key of nodes that ask servers. Not the key itself.",
                )
            ],
        )

    @classmethod
    def validate_inputs(cls, source: Any = None, key_name: Any = None) -> bool | str:
        from ..vlm.remote.key_shape import REMOVED, looks_like_key

        if source not in SOURCES:
            # Not shown either: a key may have been pasted there.
            return f"source must be one of {', '.join(SOURCES)}"
        name = "" if key_name is None else str(key_name).strip()
        if looks_like_key(name) or name == REMOVED:
            return _ITSELF
        return True if name else "key_name is empty. Give the name of a variable or of an entry"

    @classmethod
    def execute(cls, source: str, key_name: str) -> io.NodeOutput:
        from ..vlm.remote.secret import Secret

        name = key_name.strip()
        if source == ENVIRONMENT:
            return io.NodeOutput(Secret.from_environment(name))
        if source == KEYRING:
            return io.NodeOutput(Secret.from_keyring(name))
        return io.NodeOutput(Secret.from_file(secrets_path(), name))


def secrets_path() -> Path:
    """The secrets file: in a folder of which ComfyUI hands out nothing over HTTP."""
    return Path(folder_paths.get_system_user_directory("vivace")) / SECRETS_FILE

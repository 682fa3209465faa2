"""Models that ComfyUI's nodes save without telling their names."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from pathlib import Path

from ..errors import CliError
from .http import RequestRefusedError, Server

FOLDER = "vivace"


@dataclass(frozen=True)
class MadeModel:
    """A safetensors file in the server's output folder.

    Attributes:
        prefix: what the node that saves it is given; no other file begins with it, so that the
            number behind it is known.
    """

    prefix: str

    @classmethod
    def new(cls, name: str) -> MadeModel:
        """A name that nobody else has, below `FOLDER`."""
        plain = re.sub(r"[^\w.-]+", "_", name).strip("._") or "model"
        return cls(f"{FOLDER}/{uuid.uuid4().hex[:12]}/{plain}")

    @property
    def filename(self) -> str:
        """The file's name without folders."""
        return f"{self.prefix.rpartition('/')[2]}_00001_.safetensors"

    @property
    def on_server(self) -> str:
        """The file below the server's output folder."""
        return f"{self.prefix.rpartition('/')[0]}/{self.filename}"

    def download(self, server: Server, target: Path) -> None:
        """Write the file to `target`, whole or not at all.

        Raises:
            CliError: it is not there, or the download broke off.
        """
        folder = self.prefix.rpartition("/")[0]
        item = {"filename": self.filename, "subfolder": folder, "type": "output"}
        try:
            server.download(item, target)
        except RequestRefusedError as error:
            if error.status != 404:
                raise
            problem = f"The server {server.url} does not have {self.on_server} that it saved"
            raise CliError(problem, "See its log, and its output folder") from None

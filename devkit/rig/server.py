"""Starts and stops a real ComfyUI server for the demo, the tests and by hand."""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from .layout import MODELS, TEST_NODES, DevError, child_environment

READY_SECONDS = 240


def free_port() -> int:
    """A TCP port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def has_gpu(python: Path, kind: str = "accelerator") -> bool:
    """Whether torch in that environment sees an accelerator that ComfyUI can use.

    `kind`: torch's name for those that count, ``"cuda"`` say; any unless given.
    """
    code = f"import torch; print(torch.{kind}.is_available())"
    output = subprocess.run(
        [str(python), "-c", code],
        env=child_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    return output.stdout.strip() == "True"


class ComfyServer:
    """A ComfyUI process with its own input, output, temp and user folders below `work`.

    Args:
        python: the environment's Python.
        comfyui: the ComfyUI folder; the pack is linked into its `custom_nodes`.
        work: folder for everything that this server writes.
        port: TCP port on the loopback interface; a free one by default.
        cpu: whether to run without the GPU.
        arguments: further command line arguments for ComfyUI.
        test_nodes: whether to load the helper nodes of the tests.
        model_dirs: further model folders, by ComfyUI's folder names.
        variables: further environment variables.
        log: where output goes; None leaves it on the terminal.
    """

    def __init__(
        self,
        python: Path,
        comfyui: Path,
        work: Path,
        *,
        port: int | None = None,
        cpu: bool = True,
        arguments: Sequence[str] = (),
        test_nodes: bool = False,
        model_dirs: Mapping[str, Sequence[Path]] | None = None,
        variables: Mapping[str, str] | None = None,
        log: Path | None,
    ) -> None:
        self.python = python
        self.comfyui = comfyui
        self.work = work
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = log
        self._options = ["--cpu"] if cpu else []
        self._options += list(arguments)
        self._test_nodes = test_nodes
        self._model_dirs = model_dirs or {}
        self._variables = variables or {}
        self._process: subprocess.Popen[bytes] | None = None
        self._log_file: IO[bytes] | None = None

    @property
    def output(self) -> Path:
        """Where SaveImage writes."""
        return self.work / "output"

    def command(self) -> list[str]:
        """The arguments of `main.py`, after making the folders that they name."""
        for name in ("input", "output", "temp", "user"):
            (self.work / name).mkdir(parents=True, exist_ok=True)
        command = ["--listen", "127.0.0.1", "--port", str(self.port)]
        command += ["--disable-auto-launch", "--disable-api-nodes"]
        for name in ("input", "output", "temp", "user"):
            command += [f"--{name}-directory", str(self.work / name)]
        command += ["--database-url", "sqlite:///:memory:"]
        command += ["--extra-model-paths-config", str(self._write_paths())]
        return [*command, *self._options]

    def __enter__(self) -> ComfyServer:
        command = [str(self.python), "main.py", *self.command()]
        if self.log:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            self._log_file = self.log.open("wb")
        self._process = subprocess.Popen(
            command,
            cwd=self.comfyui,
            env={**child_environment(), **self._variables},
            stdout=self._log_file,
            stderr=subprocess.STDOUT if self._log_file else None,
        )
        return self

    def __exit__(self, *_: object) -> None:
        if self._process and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._log_file:
            self._log_file.close()

    @property
    def pid(self) -> int:
        """The id of its process."""
        assert self._process is not None  # noqa: S101 - only called inside `with`
        return self._process.pid

    def kill(self) -> None:
        """End it at once, in the middle of whatever it does."""
        assert self._process is not None  # noqa: S101 - only called inside `with`
        self._process.kill()

    def wait(self) -> int:
        """Wait for the server to end by itself; its exit status."""
        assert self._process is not None  # noqa: S101 - only called inside `with`
        return self._process.wait()

    def wait_until_ready(self) -> None:
        """Wait until the server answers.

        Raises:
            DevError: it ended or did not answer in time; the message has the end of its log.
        """
        assert self._process is not None  # noqa: S101 - only called inside `with`
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise DevError(
                    f"ComfyUI ended with status {self._process.returncode}. {self.tail()}"
                )
            try:
                with urllib.request.urlopen(f"{self.url}/system_stats", timeout=5):  # noqa: S310
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.25)
        raise DevError(f"ComfyUI did not answer within {READY_SECONDS} s. {self.tail()}")

    def tail(self, lines: int = 30) -> str:
        """The end of the log, for messages."""
        if not self.log or not self.log.exists():
            return "See its output above."
        text = self.log.read_text(errors="replace").splitlines()[-lines:]
        return f"The end of {self.log}:\n" + "\n".join(text)

    def _write_paths(self) -> Path:
        """ComfyUI's extra paths file; YAML, of which JSON is a part, so nothing needs quoting."""
        folders: dict[str, list[Path]] = {
            name: [MODELS / name] for name in ("diffusion_models", "loras", "vae", "text_encoders")
        }
        for name, extra in self._model_dirs.items():
            folders.setdefault(name, []).extend(extra)
        if self._test_nodes:
            folders.setdefault("custom_nodes", []).append(TEST_NODES)
        section = {name: "\n".join(map(str, paths)) for name, paths in folders.items()}
        path = self.work / "extra_model_paths.yaml"
        path.write_text(json.dumps({"vivace": section}, indent=2))
        return path

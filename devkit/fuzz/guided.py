"""The process of one target: ``python -m vivace.devkit.fuzz.guided TARGET SECONDS SEED REPORT``.

libFuzzer, by `atheris`, keeps the inputs that reach new code, in a folder that the next run begins
with, and hands them to the target's own `mutate`.
"""

from __future__ import annotations

import os
import random
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from .hunt import FOLDER, REGRESSIONS, Recorder
from .session import MAX_BYTES, Session
from .targets import find

PACKAGES = ("hub", "lora", "migrate", "svdquant", "toolkit", "vlm")


def main(name: str, seconds: float, seed: int, report: Path) -> None:
    """Run until the time is over or Ctrl+C; never returns."""
    atheris: Any = import_module("atheris")
    pack = (__package__ or "").partition(".")[0]
    with atheris.instrument_imports(include=[f"{pack}.{package}" for package in PACKAGES]):
        target = find(name)
        session = Session(name, target.target)
        session.warm_up(target.seeds())  # which imports the rest
    recorder = Recorder(session, seconds, report)

    def run(data: bytes) -> None:
        try:
            more = recorder.run(data)
        except KeyboardInterrupt:
            recorder.write()
            more = False
        if not more:  # libFuzzer would end the process without a chance to say anything
            os._exit(0)

    def mutate(data: bytes, longest: int, number: int) -> bytes:
        return target.mutate(data, random.Random(number))[:longest]  # noqa: S311

    corpus = FOLDER / "corpus" / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(target.seeds()):
        (corpus / f"seed-{number}").write_bytes(data)
    # The bounds of time and memory are the session's own.
    arguments = [f"-seed={seed}", f"-max_len={MAX_BYTES}", "-handle_int=0", "-timeout=100000"]
    arguments += ["-rss_limit_mb=0", f"-artifact_prefix={FOLDER}/"]
    folders = [str(corpus), *([str(REGRESSIONS / name)] if (REGRESSIONS / name).is_dir() else [])]
    atheris.Setup([sys.argv[0], *arguments, *folders], run, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))

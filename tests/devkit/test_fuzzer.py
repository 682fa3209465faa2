"""The fuzzer itself: what it takes for a finding, how it shrinks it, and its command."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import pytest
from vivace.devkit import commands
from vivace.devkit.fuzz import __main__ as command
from vivace.devkit.fuzz import hunt, mutations, scratch, sketch
from vivace.devkit.fuzz.refusals import may_refuse
from vivace.devkit.fuzz.session import Session, inputs
from vivace.lora.files.header import HeaderError, parse_header


def _header(data: bytes) -> None:
    with may_refuse(HeaderError):
        parse_header(data, 8 + len(data))


def _unguarded(data: bytes) -> None:
    """A defect that only a certain change of a valid input reaches."""
    with may_refuse(HeaderError):
        if parse_header(data, 8 + len(data) + 4).tensors["a"].dtype == "F32":
            raise KeyError("planted")


class Planted:
    """A target with `_unguarded`."""

    target = staticmethod(_unguarded)

    def seeds(self) -> list[bytes]:
        tensor = {"dtype": "I32", "shape": [1], "data_offsets": [0, 4]}
        return [json.dumps({"a": tensor}).encode()]

    def mutate(self, data: bytes, chance: random.Random) -> bytes:
        return mutations.json_of(data, chance, ["F32", "I32", "U8"])


def test_a_planted_defect_is_found_and_its_input_shrunk() -> None:
    session = Session("planted", _unguarded)
    for data in islice(inputs(Planted(), 1), 600):
        session.run(data)
    wrong = {f.place: f for f in session.findings.values() if "planted" in f.trace}
    assert [place.partition(" at ")[0] for place in wrong] == ["KeyError"]
    (finding,) = wrong.values()
    padded = session.replay(finding.data.replace(b": ", b":" + b" " * 50))
    assert padded is not None
    shrunk = session.shrink(padded)
    assert shrunk.place == padded.place
    assert len(shrunk.data) <= len(finding.data)
    assert session.inputs == 600


def _other_error(data: bytes) -> None:
    with may_refuse(HeaderError):
        raise IndexError


def _derived_error(data: bytes) -> None:
    with may_refuse(ValueError):
        raise HeaderError("derived from ValueError")


def _endless(data: bytes) -> None:
    while True:
        try:
            sum(range(1000))
        except Exception:  # noqa: BLE001, S112  (what a blanket handler in the pack would do)
            continue


def _open_file(data: bytes) -> None:
    with scratch.file(data, "x") as path:
        _OPEN.append(path.open("rb"))


_OPEN: list = []


@pytest.mark.parametrize(
    ("target", "verdict"),
    [
        (_other_error, "IndexError"),
        (_derived_error, "HeaderError"),
        pytest.param(
            _endless,
            "TooSlow",
            marks=pytest.mark.skipif(sys.platform == "win32", reason="no clock of this kind"),
        ),
        pytest.param(
            _open_file,
            "AssertionError",
            marks=pytest.mark.skipif(sys.platform != "linux", reason="open files are not told"),
        ),
    ],
)
def test_what_is_not_documented_is_a_finding(target: Callable[[bytes], None], verdict: str) -> None:
    session = Session("planted", target, seconds=0.05)
    finding = session.run(b"x")
    assert finding is not None
    assert finding.place.startswith(verdict)
    assert not session.refusals
    for file in _OPEN:
        file.close()


@pytest.mark.skipif(sys.platform == "win32", reason="the peak is not told")
def test_memory_out_of_proportion_is_a_finding() -> None:
    """In a process of its own, whose peak is low."""
    code = """
from vivace.devkit.fuzz.session import SPARE_BYTES, Session
session = Session("planted", lambda data: b"x" * (SPARE_BYTES * len(data) // 4) and None)
print(session.run(b"x"), session.run(b"x" * 6).place)
"""
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("None TooLarge at ")


def test_a_refusal_is_known_by_its_line() -> None:
    session = Session("header", _header)
    for data in (b"{", b"[]", b"{}", b"[1]"):
        assert session.run(data) is None
    assert sorted(session.refusals.values()) == [1, 2]
    assert all(
        place.startswith(("HeaderError at lora/files/header.py:",)) for place in session.refusals
    )


def test_changed_json_is_mostly_json() -> None:
    chance = random.Random(1)  # noqa: S311
    words = ["dtype", "shape"]
    valid = 0
    for _ in range(300):
        changed = mutations.json_of(b'{"a": {"dtype": "F32", "shape": [1, 2]}}', chance, words)
        try:
            valid += json.loads(changed) is not None
        except (ValueError, RecursionError):
            continue
    assert valid > 200


def test_a_description_becomes_a_file() -> None:
    tensors = {"a": ["BF16", [2, 3]], "b": ["U8", [5], "xy"], "c": {"dtype": "no"}}
    content = sketch.file_of({"metadata": {"k": "v"}, "tensors": tensors})
    assert content is not None
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    assert header["b"] == {"dtype": "U8", "shape": [5], "data_offsets": [12, 17]}
    assert header["c"] == {"dtype": "no"}
    assert content[8 + length :] == b"\x3c" * 12 + b"xyxyx"
    assert sketch.file_of({"tensors": {"a": ["F32", [2**40]]}}) == sketch.with_header(
        b'{"__metadata__": null, "a": ["F32", [1099511627776]]}', b""
    )


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The command with one target, which has a defect, and without atheris."""
    monkeypatch.setattr(command, "NAMES", ("planted",))
    monkeypatch.setattr(command, "find", lambda name: Planted())
    monkeypatch.setattr(hunt, "is_guided", lambda: False)
    monkeypatch.setattr(hunt, "FOLDER", tmp_path)
    return tmp_path


def test_the_command_saves_what_it_finds_and_replays_it(
    planted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = planted / "log.json"
    assert command.main(["--seconds", "1", "--log", str(log)]) == 1
    output = capsys.readouterr().out
    saved = [Path(line.split()[-1]) for line in output.splitlines() if "--replay" in line]
    report = json.loads(log.read_text())
    (result,) = report["results"]
    assert result["target"] == "planted"
    assert len(result["findings"]) == len(saved) >= 1
    assert result["inputs"] > 0
    assert any(
        place.startswith("HeaderError at lora/files/header.py") for place in result["refusals"]
    )
    assert str(planted) not in json.dumps(report)
    assert {"date", "seed", "coverage", "seconds"} < result.keys()
    report["results"] += [{"target": "another"}, {**result, "inputs": -1}]
    log.write_text(json.dumps(report))
    command.main(["--seconds", "0.1", "--log", str(log)])
    merged = json.loads(log.read_text())["results"]
    assert [one["target"] for one in merged] == ["planted", "another"]
    assert merged[0]["inputs"] > 0
    assert "python" in report["versions"]
    for file in saved:
        assert file.parent == planted / "findings" / "planted"
        assert command.main(["--replay", str(file)]) == 1
    assert "KeyError" in capsys.readouterr().out


def test_a_file_that_breaks_nothing_any_more(
    planted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = planted / "planted" / "x"
    file.parent.mkdir()
    file.write_bytes(b"[]")
    assert command.main(["--replay", str(file)]) == 0
    assert "nothing wrong. Refused: HeaderError" in capsys.readouterr().out
    assert command.main(["--replay", str(planted / "x")]) == 2
    assert command.main(["planted", "--replay", str(planted / "missing")]) == 2
    with pytest.raises(SystemExit):
        command.main(["unknown"])


def test_dev_py_hands_its_options_on_and_lets_a_run_end(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []
    ends = iter((KeyboardInterrupt(), 1))

    def wait() -> int:
        end = next(ends)
        if isinstance(end, KeyboardInterrupt):
            raise end
        return end

    def start(words: list[str], **_: object) -> SimpleNamespace:
        started.append(words)
        return SimpleNamespace(wait=wait)

    monkeypatch.setattr(commands, "prepare", lambda _: (None, Path("python"), None))
    monkeypatch.setattr(commands, "subprocess", SimpleNamespace(Popen=start))
    words = {"targets": ["a"], "seconds": "5", "seed": None, "replay": None, "log": "x.json"}
    assert commands.fuzz(Namespace(**words), []) == 1
    assert started == [
        ["python", "-m", "vivace.devkit.fuzz", "a", "--seconds", "5", "--log", "x.json"]
    ]


def test_guided_runs_count_what_their_process_reports(
    planted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program stands for the process with atheris, which not every machine has."""
    code = """
import json, pathlib, sys
name, seconds, seed, report = sys.argv[-4:]
print("#9 NEW cov: 12 ft: 6\\n#20 pulse cov: 34 ft: 8", file=sys.stderr)
found = {"inputs": 7, "seconds": float(seconds), "refusals": ["b"], "findings": {"c": "d"}}
pathlib.Path(report).write_text(json.dumps(found))
sys.exit(int(seed))
"""
    program = planted / "program.py"
    program.write_text(code)
    real = hunt.subprocess.Popen
    start: Callable = lambda words, **more: real([sys.executable, program, *words[1:]], **more)  # noqa: E731
    known = hunt.subprocess.TimeoutExpired
    monkeypatch.setattr(hunt, "subprocess", SimpleNamespace(Popen=start, TimeoutExpired=known))
    outcome = hunt.Outcome("planted", 1, 0.5, 5, ["a"], {})
    hunt.guided(outcome, 2.0, 0)
    assert outcome == hunt.Outcome("planted", 8, 2.5, 34, ["a", "b"], {"c": "d"})
    with pytest.raises(RuntimeError, match="planted ended with status 3"):
        hunt.guided(outcome, 2.0, 3)

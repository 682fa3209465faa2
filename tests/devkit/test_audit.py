"""The audit: what it lets pass, what it does not, and that it says what it has not seen."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from vivace.devkit.audit import code_scan, known, reasons, vulnerabilities
from vivace.devkit.audit import run as audit_run
from vivace.devkit.rig.layout import RELEASES

FLAW = {"id": "PYSEC-2026-1", "aliases": ["CVE-2026-1"], "fix_versions": ["1.1"]}
SOUND = {"name": "sound", "version": "2.0", "vulns": []}
FLAWED = {"name": "flawed", "version": "1.0", "vulns": [FLAW]}
SKIPPED = {"name": "unknown", "skip_reason": "not found: unknown (1.0)"}
SHELL = {
    "category": "shell_execution",
    "file": "a.py",
    "line": 3,
    "severity": "high",
    "title": "Call",
}


def known_flaw(*ids: str) -> known.KnownVulnerability:
    return known.KnownVulnerability("flawed", ids, "only where it is not used")


def test_every_pin_is_looked_up_once_for_all_pythons() -> None:
    texts = ["# a comment\na==1 ; python_full_version < '3.11'\na==2\nb==1\n", "b==1\nc-d==3\n"]
    pinned = vulnerabilities.pins(texts)
    assert pinned == [("a", "1"), ("a", "2"), ("b", "1"), ("c-d", "3")]
    assert vulnerabilities.one_version_each(pinned) == [["a==1", "b==1", "c-d==3"], ["a==2"]]
    real = vulnerabilities.pins(release.requirements.read_text() for release in RELEASES)
    assert {"torch", "transformers", "aiohttp", "onnx", "keyring"} <= {name for name, _ in real}


@pytest.mark.parametrize(
    ("found", "explained", "counts"),
    [
        ([SOUND], [], (0, 0)),
        ([SOUND, FLAWED], [], (1, 0)),
        ([FLAWED], [known_flaw("CVE-2026-1")], (0, 0)),
        ([FLAWED], [known_flaw("CVE-2026-2")], (2, 0)),  # and it explains nothing
        ([SOUND], [known_flaw("CVE-2026-1")], (1, 0)),
        ([SOUND, SKIPPED], [known_flaw("CVE-2026-1")], (0, 1)),
    ],
)
def test_vulnerabilities_are_explained_or_counted(
    found: list[Any], explained: list[known.KnownVulnerability], counts: tuple[int, int]
) -> None:
    assert vulnerabilities.judge(found, explained) == counts


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """Stands in for a Python with pip-audit: one service answers, one knows nothing."""
    path = tmp_path / "python"
    path.write_text(
        f"#!{sys.executable}\nimport json, sys\n"
        "service = sys.argv[sys.argv.index('--vulnerability-service') + 1]\n"
        "lines = open(sys.argv[sys.argv.index('--requirement') + 1]).read().split()\n"
        "if service == 'down': sys.exit('no route to host')\n"
        "fields = {'skip_reason': 'not found'} if service == 'empty' else {'vulns': []}\n"
        "found = [dict(zip(('name', 'version'), line.split('=='))) | fields for line in lines]\n"
        "print(json.dumps({'dependencies': found}))\n"
    )
    path.chmod(0o755)
    return path


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in is a script with a first line")
def test_the_next_service_is_asked_when_one_knows_nothing(
    program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned = [("a", "1"), ("a", "2"), ("b", "1")]
    monkeypatch.setattr(vulnerabilities, "SERVICES", ("empty", "down", "good"))
    found = vulnerabilities.ask(program, pinned, tmp_path)
    assert sorted((one["name"], one["version"]) for one in found) == pinned
    monkeypatch.setattr(vulnerabilities, "SERVICES", ("empty", "down"))
    expected = r"empty: knows none of the 3 packages; down: no route to host"
    with pytest.raises(vulnerabilities.NoServiceError, match=expected):
        vulnerabilities.ask(program, pinned, tmp_path)


@pytest.mark.parametrize(
    ("files", "findings", "count"),
    [
        (("a.py",), [SHELL], 0),
        ((), [SHELL], 0),
        (("b.py",), [SHELL], 2),  # not explained there, and nothing to explain in b.py
        (("a.py", "b.py"), [SHELL], 1),
        ((), [], 1),
    ],
)
def test_findings_in_the_code_are_explained_or_counted(
    files: tuple[str, ...], findings: list[Any], count: int
) -> None:
    entry = known.KnownCode("shell_execution", files, "a person types it")
    assert code_scan.judge(findings, [entry]) == count


def test_each_dependency_has_its_reason() -> None:
    assert reasons.unexplained() == []


def test_a_dependency_without_a_reason_is_found() -> None:
    text = "bare\n# Why.\none[x]>=2\ntwo\n# \nthree # for this\nfour\n"
    found = {"bare": False, "one": True, "two": True, "three": True, "four": False}
    assert reasons.of_requirements(text) == found
    extras = (
        '[project]\n[project.optional-dependencies]\n# Why,\n# and how.\nx = ["a>=1", "b"]\n\n'
        'y = [\n  "c>=1", # why\n  "d",\n]\n[tool.x]\nz = ["e"]\n'
    )
    assert reasons.of_extras(extras) == {"a": True, "b": True, "c": True, "d": False}
    table = "| package | for |\n|---|---|\n| `a`, b-c (`x`) | this |\n| d |  |\n"
    assert reasons.in_table(table) >= {"a", "b-c"}
    assert "d" not in reasons.in_table(table)


@pytest.mark.parametrize(
    ("found", "findings", "status", "words"),
    [
        ([SOUND], [SHELL], 0, "0 unexplained vulnerabilities"),
        ([FLAWED], [SHELL], 1, "VULNERABLE: flawed 1.0: CVE-2026-1, PYSEC-2026-1, fixed in 1.1"),
        ([SOUND], [{**SHELL, "file": "b.py"}], 1, "SUSPICIOUS: b.py:3: high: Call"),
        ([SOUND, SKIPPED], [SHELL], 3, "not looked up: not found: unknown"),
        (None, [SHELL], 3, "NOT LOOKED UP: no vulnerability service can be asked"),
    ],
)
def test_the_exit_status_tells_not_seen_from_found(
    found: list[Any] | None,
    findings: list[Any],
    status: int,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def ask(*_: object) -> list[Any]:
        if found is None:
            raise vulnerabilities.NoServiceError("nobody answers")
        return found

    monkeypatch.setattr(audit_run, "DEV", tmp_path)
    monkeypatch.setattr(audit_run, "tool_environment", lambda *_: Path(sys.executable))
    monkeypatch.setattr(audit_run, "CODE", [known.KnownCode("shell_execution", ("a.py",), "")])
    monkeypatch.setattr(code_scan, "scan", lambda *_: findings)
    monkeypatch.setattr(vulnerabilities, "ask", ask)
    assert audit_run.run() == status
    assert words in capsys.readouterr().out

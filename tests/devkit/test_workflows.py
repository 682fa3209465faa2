"""What stands between a change and the registry: the workflows, and the forms of issues."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from vivace.cli.parser import parse
from vivace.cli.table import load, split
from vivace.cli.version import version
from vivace.devkit.rig.layout import ROOT

WORKFLOWS = ROOT / ".github" / "workflows"
FORMS = ROOT / ".github" / "ISSUE_TEMPLATE"
HERE = "./.github/workflows/test.yml"


def workflow(name: str) -> dict[Any, Any]:
    """A workflow, whose triggers YAML 1.1 puts under True, since they are called `on`."""
    return yaml.safe_load((WORKFLOWS / name).read_text(encoding="utf-8"))


def steps_of(content: dict[Any, Any]) -> Iterator[dict[str, Any]]:
    for job in content["jobs"].values():
        yield from job.get("steps", ())


def runs(job: dict[str, Any]) -> list[str]:
    return [step["run"] for step in job["steps"] if "run" in step]


def test_every_pull_request_and_push_is_tested() -> None:
    triggers = workflow("test.yml")[True]
    assert triggers == {
        "pull_request": None,
        "push": {"branches": ["**"]},
        "workflow_call": None,
    }


def test_linux_runs_everything_on_the_oldest_and_the_newest_python() -> None:
    job = workflow("test.yml")["jobs"]["linux"]
    assert job["runs-on"].startswith("ubuntu-")
    assert job["strategy"]["matrix"] == {"python": ["3.10", "3.13"]}
    assert 'requires-python = ">=3.10"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert runs(job)[-1] == ".ci/run"
    given = [step["with"].get("python-version") for step in job["steps"] if "with" in step]
    assert given == [None, "${{ matrix.python }}"]


def test_windows_and_macos_run_the_packs_own_tests() -> None:
    job = workflow("test.yml")["jobs"]["others"]
    systems = job["strategy"]["matrix"]["system"]
    assert [name.partition("-")[0] for name in systems] == ["windows", "macos"]
    assert job["runs-on"] == "${{ matrix.system }}"
    assert runs(job) == ["python dev.py test --no-browser tests/pack"]


@pytest.mark.parametrize("job", ["linux", "others"])
def test_no_failure_is_passed_over(job: str) -> None:
    content = workflow("test.yml")["jobs"][job]
    assert "if" not in content
    for part in (content, *content["steps"]):
        assert not {"continue-on-error", "if"} & part.keys()


def test_the_script_runs_what_people_run() -> None:
    script = ROOT / ".ci" / "run"
    text = script.read_text(encoding="utf-8")
    assert os.name != "posix" or os.access(script, os.X_OK)
    assert "set -euo pipefail" in text
    assert "export CI=true" in text
    assert "--no-browser" not in text
    commands = [line for line in text.splitlines() if line.startswith("python3 dev.py")]
    assert {"python3 dev.py demo", "python3 dev.py test"} <= set(commands)


def test_a_tag_publishes_once_the_tests_have_passed() -> None:
    content = workflow("publish.yml")
    assert content[True] == {"push": {"tags": ["v*"]}}
    jobs = content["jobs"]
    assert jobs["tests"] == {"uses": HERE}
    assert (ROOT / HERE).is_file()
    assert set(jobs["publish"]["needs"]) == {"version", "tests"}
    assert "always()" not in jobs["publish"]["if"]
    publishing = [name for name, job in jobs.items() if "publish-node-action" in str(job)]
    assert publishing == ["publish"]
    assert not any("publish-node-action" in str(workflow(name)) for name in ("test.yml",))


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")
def test_the_tag_has_to_be_the_version(tmp_path: Path) -> None:
    (step,) = runs(workflow("publish.yml")["jobs"]["version"])
    right = f"v{version()}"
    for tag, status in ((right, 0), (right[1:], 1), (f"{right}.1", 1), ("v", 1)):
        environment = os.environ | {"GITHUB_REF_NAME": tag}
        done = subprocess.run(
            ["bash", "-e", "-c", step], cwd=ROOT, env=environment, capture_output=True, check=False
        )
        assert done.returncode == status, (tag, done.stdout)


@pytest.mark.parametrize("name", sorted(path.name for path in WORKFLOWS.iterdir()))
def test_workflows_may_read_and_run_what_was_looked_at(name: str) -> None:
    content = workflow(name)
    assert content["permissions"] == {"contents": "read"}
    assert not any("permissions" in job for job in content["jobs"].values())
    text = (WORKFLOWS / name).read_text(encoding="utf-8")
    used = re.findall(r"uses: (\S+)(.*)", text)
    assert used
    for action, comment in used:
        pinned = re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}", action)
        assert action == HERE or (pinned and comment.startswith(" # ")), action
    for step in steps_of(content):
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False
        # What others wrote, such as the title of a pull request, is no part of a script.
        assert "${{" not in step.get("run", "")
    secrets = re.findall(r"secrets\.(\w+)", text)
    assert secrets == (["REGISTRY_ACCESS_TOKEN"] if name == "publish.yml" else [])


def form(name: str) -> dict[str, Any]:
    return yaml.safe_load((FORMS / name).read_text(encoding="utf-8"))


def test_there_is_a_form_for_a_fault_a_lora_and_a_wish() -> None:
    assert {path.name for path in FORMS.iterdir()} == {
        *("bug.yml", "lora.yml", "wish.yml", "config.yml")
    }
    for name in ("bug.yml", "lora.yml", "wish.yml"):
        content = form(name)
        assert content.keys() == {"name", "description", "labels", "body"}
        ids = [field["id"] for field in content["body"]]
        assert len(set(ids)) == len(ids)
        for field in content["body"]:
            assert field["type"] in ("input", "textarea")
            assert field["attributes"]["label"]
        assert any(field.get("validations", {}).get("required") for field in content["body"])


def test_who_has_a_lora_that_is_not_applied_is_asked_what_the_pack_says_of_it() -> None:
    required = {
        field["attributes"]["label"]
        for field in form("lora.yml")["body"]
        if field.get("validations", {}).get("required")
    }
    assert {"Output of `vivace lora inspect FILE`", "Output of `vivace doctor`"} <= required


@pytest.mark.parametrize("name", ["bug.yml", "lora.yml"])
def test_the_commands_that_forms_ask_for_exist(name: str) -> None:
    text = (FORMS / name).read_text(encoding="utf-8")
    found = re.findall(r"`(?:python -m )?vivace ([^`]+)`", text)
    assert found
    for words in found:
        command, rest = split(words.split())
        parse(command, load(command).COMMAND, rest)

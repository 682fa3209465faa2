"""Known vulnerabilities of every pinned package, by pip-audit."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from ..rig.layout import child_environment
from .known import KnownVulnerability

PACKAGE = "pip-audit==2.10.1"
SERVICES = ("pypi", "osv")
"""Asked in this order; a service that knows none of the packages counts as not reached."""
_PIN = re.compile(r"([A-Za-z0-9._-]+)==([^\s;]+)")

Audited = list[dict[str, Any]]
"""pip-audit's `dependencies`: `name`, and `version` with `vulns`, or `skip_reason`."""


class NoServiceError(Exception):
    """No vulnerability service could be asked; the message says what each said."""


def pins(texts: Iterable[str]) -> list[tuple[str, str]]:
    """Names and versions in requirement files, each once, for whatever machine or Python."""
    found = {
        match.groups() for text in texts for match in map(_PIN.match, text.splitlines()) if match
    }
    return sorted((name, version) for name, version in found)


def one_version_each(pinned: Iterable[tuple[str, str]]) -> list[list[str]]:
    """The requirements in lists in which no package comes twice, which pip-audit refuses."""
    versions: dict[str, list[str]] = {}
    for name, version in pinned:
        versions.setdefault(name, []).append(f"{name}=={version}")
    rounds = zip_longest(*versions.values())
    return [[line for line in lines if line] for lines in rounds]


def ask(python: Path, pinned: Sequence[tuple[str, str]], work: Path) -> Audited:
    """What is known of each package.

    Args:
        python: of an environment with `PACKAGE`.
        pinned: names and versions.
        work: a folder for requirement files.

    Raises:
        NoServiceError: no service of `SERVICES` could be asked.
    """
    said = []
    for service in SERVICES:
        found: Audited = []
        for number, lines in enumerate(one_version_each(pinned)):
            file = work / f"pins-{number}.txt"
            file.write_text("\n".join(lines) + "\n")
            part, problem = _pip_audit(python, service, file)
            if problem:
                said.append(f"{service}: {problem}")
                break
            found += part
        else:
            if any("skip_reason" not in one for one in found):
                return found
            said.append(f"{service}: knows none of the {len(found)} packages")
    raise NoServiceError("; ".join(said))


def judge(
    found: Audited, known: Sequence[KnownVulnerability], say: Callable[[str], None] = print
) -> tuple[int, int]:
    """Tell what was found.

    Returns:
        The number of vulnerabilities that are not explained, entries of `known` that explain
        nothing included, and the number of packages that could not be looked up.
    """
    left, used, skipped = 0, set(), 0
    for one in found:
        if "skip_reason" in one:
            skipped += 1
            say(f"not looked up: {one['skip_reason']}")
        for flaw in one.get("vulns", []):
            ids = {flaw["id"], *flaw["aliases"]}
            entry = next((k for k in known if k.package == one["name"] and ids & {*k.ids}), None)
            text = f"{one['name']} {one['version']}: {', '.join(sorted(ids))}"
            if entry:
                used.add(entry)
                say(f"known: {text}: {entry.reason}")
            else:
                left += 1
                fixed = ", ".join(flaw["fix_versions"]) or "no version yet"
                say(f"VULNERABLE: {text}, fixed in {fixed}")
    for entry in known:
        if entry not in used and not skipped:
            left += 1
            say(f"STALE: {entry.package} {', '.join(entry.ids)} is explained, but not reported")
    return left, skipped


def _pip_audit(python: Path, service: str, file: Path) -> tuple[Audited, str]:
    command = [str(python), "-m", "pip_audit", "--requirement", str(file), "--no-deps"]
    command += ["--disable-pip", "--format", "json", "--vulnerability-service", service]
    command += ["--progress-spinner", "off", "--desc", "off", "--aliases", "on"]
    done = subprocess.run(
        command, env=child_environment(), capture_output=True, text=True, check=False
    )
    try:
        return json.loads(done.stdout)["dependencies"], ""
    except (ValueError, KeyError, TypeError):
        last = done.stderr.strip().rpartition("\n")[2]
        return [], last[:300] or f"pip-audit ended with status {done.returncode}"

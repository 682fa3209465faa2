"""`python3 dev.py audit` runs this."""

from __future__ import annotations

from ..rig.layout import DEV, RELEASES, say
from ..rig.tool_environment import tool_environment
from . import code_scan, reasons, vulnerabilities
from .known import CODE, VULNERABILITIES

FOUND, NOT_SEEN = 1, 3


def run() -> int:
    """Audit packages, code and reasons.

    Returns:
        The exit status: 0 if all is well or explained, 1 if something is not, 3 if only the
        vulnerabilities of some packages could not be looked up.

    Raises:
        DevError: a scanner could not be installed or run.
    """
    work = DEV / "audit"
    work.mkdir(parents=True, exist_ok=True)
    missing = reasons.unexplained()
    for line in missing:
        print(f"NO REASON: {line}")
    # An environment each: their requirements must not get in each other's way.
    say("Scanning the code ...")
    findings = code_scan.scan(tool_environment("nodesafe", [code_scan.PACKAGE]), work)
    suspicious = code_scan.judge(findings, CODE)
    say("Looking up vulnerabilities ...")
    python = tool_environment("pip-audit", [vulnerabilities.PACKAGE])
    pinned = vulnerabilities.pins(release.requirements.read_text() for release in RELEASES)
    try:
        found = vulnerabilities.ask(python, pinned, work)
    except vulnerabilities.NoServiceError as error:
        print(f"NOT LOOKED UP: no vulnerability service can be asked from here ({error}).")
        vulnerable, skipped = 0, len(pinned)
    else:
        vulnerable, skipped = vulnerabilities.judge(found, VULNERABILITIES)
    print(
        f"\n{len(missing)} dependencies without a reason, {suspicious} unexplained findings in the"
        f" code, {vulnerable} unexplained vulnerabilities; {len(pinned) - skipped} of"
        f" {len(pinned)} pinned packages were looked up."
    )
    if missing or suspicious or vulnerable:
        return FOUND
    return NOT_SEEN if skipped else 0

"""What the scanners report and we have looked at, with the reason why it stays.

An entry that no scanner reports any more makes the audit fail, too: it has to go.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class KnownVulnerability:
    """A vulnerability of a pinned package that does not concern us.

    Attributes:
        package: its name on the package index.
        ids: the vulnerability's id, and its aliases.
        reason: why it does no harm here, and what would change that.
    """

    package: str
    ids: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class KnownCode:
    """Code that nodesafe reports.

    Attributes:
        category: as nodesafe names it.
        files: where it may be; empty where it may be anywhere.
        reason: what it is.
    """

    category: str
    files: tuple[str, ...]
    reason: str


VULNERABILITIES: tuple[KnownVulnerability, ...] = ()

CODE = (
    KnownCode(
        "shell_execution",
        ("cli/doctor/python_process.py", "cli/startup/measure.py"),
        "commands that a person types; they run the program that is named, without a shell",
    ),
    KnownCode(
        "unsafe_deserialization",
        ("lora/files/open_file.py",),
        "names the error that torch.load(weights_only=True) raises; nothing is unpickled otherwise",
    ),
    KnownCode(
        "native_invocation",
        ("lora/files/cache.py", "lora/files/open_file.py"),
        "tensors are read into their own memory, and Windows is asked for the size of its RAM",
    ),
    KnownCode(
        "dynamic_attribute_access",
        (),
        "fields of our own dataclasses and modules, by names that stand in our own tables",
    ),
    KnownCode("code_obfuscation_high_entropy", (), "docstrings and messages of some length"),
    KnownCode("code_obfuscation_suspicious_ident", (), "a value that is not used is named '_'"),
)

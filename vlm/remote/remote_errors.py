"""What can go wrong between us and a server, in words that name the server and the remedy."""

from __future__ import annotations

from typing import Literal

Kind = Literal[
    "address",  # the server's address is not one
    "unreachable",
    "slow",
    "cut",  # the connection ended in the middle of an answer
    "garbage",  # what came is not the protocol
    "unauthorized",
    "not found",
    "model",
    "rejected",
    "busy",
    "failed",  # HTTP 5xx, or an error inside an answer
]


class RemoteError(RuntimeError):
    """A request that a server did not answer; the message names server, fault and remedy.

    Attributes:
        server: the address, without credentials or query.
        kind: what went wrong, for programs.
        status: the HTTP status, where there was one.
        retryable: the same request may succeed a little later.
        retry_after: seconds to wait before, where the server asked for it.
    """

    def __init__(
        self,
        server: str,
        problem: str,
        remedy: str,
        kind: Kind = "failed",
        status: int | None = None,
        retryable: bool = False,
        retry_after: float | None = None,
    ) -> None:
        self.server = server
        self.problem = problem
        self.remedy = remedy
        self.kind: Kind = kind
        self.status = status
        self.retryable = retryable
        self.retry_after = retry_after
        super().__init__(f"{server}: {problem}. {remedy}")

    def __reduce__(self) -> tuple[type[RemoteError], tuple[object, ...]]:
        return type(self), (
            self.server,
            self.problem,
            self.remedy,
            self.kind,
            self.status,
            self.retryable,
            self.retry_after,
        )


class RemoteCancelledError(Exception):
    """The caller's `cancelled` said so; the connection is closed."""

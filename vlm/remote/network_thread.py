"""Runs network code in a thread of its own while the caller stays able to stop it.

ComfyUI runs nodes inside an event loop, so a node cannot start another in its own thread; and a
caller who does not wait on a socket can cancel at any moment. Callbacks run in the caller's thread.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from .remote_errors import RemoteCancelledError, RemoteError
from .secret import SecretError

POLL_SECONDS = 0.05
_CLOSE_SECONDS = 2.0

T = TypeVar("T")
Emit = Callable[[Callable[[], None]], None]
"""Takes a function that is to be called in the caller's thread."""


def detached(error: T) -> T:
    """The exception without the frames and causes that it was raised through: they know the key."""
    if isinstance(error, BaseException):
        error.__traceback__ = error.__context__ = error.__cause__ = None
    return error


def run_in_thread(
    main: Callable[[Emit], Coroutine[Any, Any, T]], cancelled: Callable[[], bool] | None
) -> T:
    """Run `main` in another thread, and what it emits in this one; return or raise its outcome.

    Raises:
        RemoteCancelledError: `cancelled` returned true. If it, or an emitted call, raises, that
            exception comes out instead. In every case `main` has been cancelled and awaited.
    """
    if cancelled is not None and cancelled():
        raise RemoteCancelledError("the request was cancelled")
    calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
    loop = asyncio.new_event_loop()
    task = loop.create_task(main(calls.put))
    threading.Thread(
        target=_serve, args=(loop, task, calls), name="vivace-remote", daemon=True
    ).start()
    try:
        while True:
            with suppress(queue.Empty):
                call = calls.get(timeout=POLL_SECONDS)
                if call is None:
                    break
                call()
            if cancelled is not None and cancelled():
                raise RemoteCancelledError("the request was cancelled")
    except BaseException:
        _stop(loop, task, calls)
        raise
    error = task.exception()
    if error is None:
        return task.result()
    raise detached(error) if isinstance(error, RemoteError | SecretError) else error


def _serve(
    loop: asyncio.AbstractEventLoop,
    task: asyncio.Task[Any],
    calls: queue.SimpleQueue[Callable[[], None] | None],
) -> None:
    try:
        loop.run_until_complete(asyncio.wait({task}))
    finally:
        calls.put(None)
        loop.close()


def _stop(
    loop: asyncio.AbstractEventLoop,
    task: asyncio.Task[Any],
    calls: queue.SimpleQueue[Callable[[], None] | None],
) -> None:
    """Cancel the task and wait until its connections are closed, but not for a stuck one."""
    with suppress(RuntimeError):  # the loop is closed already
        loop.call_soon_threadsafe(task.cancel)
    with suppress(queue.Empty):
        while calls.get(timeout=_CLOSE_SECONDS) is not None:
            pass

"""The end of ``manage.py serve``: drain at SIGTERM, close everything, and end the process whatever hangs."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable

from yapserver.runtime import ServerRuntime

logger = logging.getLogger("yap.serve")

CLOSE_S = 9.0
"""Time after ``DRAIN_TIMEOUT_S`` in which everything has to be closed (seconds)."""
EXIT_S = 1.0
"""Time for the interpreter to end once everything is closed; threads that hang in a driver are not waited for."""


class Deadline:
    """A thread that ends the process at a time, with a status, unless it has ended by itself."""

    def __init__(self, before_exit: Callable[[], object]) -> None:
        self._before_exit = before_exit
        self._at = float("inf")
        self._status = 1
        self._thread = threading.Thread(target=self._watch, name="deadline", daemon=True)

    def set(self, seconds: float, status: int) -> None:
        """End the process ``seconds`` from now with this exit status. A later call replaces an earlier one."""
        self._at, self._status = time.monotonic() + seconds, status
        if not self._thread.is_alive():
            self._thread.start()

    def _watch(self) -> None:
        while (left := self._at - time.monotonic()) > 0:
            time.sleep(min(left, 0.1))
        if self._status:
            logger.error("not everything could be closed in time: ending the process")
            self._before_exit()
        sys.stderr.flush()
        os._exit(self._status)


class Shutdown:
    """Ends a server once: at the first SIGTERM or SIGINT, or when it will not come up. A second signal skips the drain.

    Args:
        runtime: What is drained and closed.
        drain_timeout: How long running turns may take to end (seconds).
        stop: Stops the ASGI server.
    """

    def __init__(self, runtime: ServerRuntime, drain_timeout: float, stop: Callable[[], None]) -> None:
        self._runtime = runtime
        self._drain_timeout = drain_timeout
        self._stop = stop
        self._task: asyncio.Task[None] | None = None
        self._deadline = Deadline(runtime.kill_engines)
        self.failure: str | None = None
        """Why the server did not come up; None: it was asked to end."""

    def install(self) -> None:
        """Handle the signals and a failed start, on the running loop."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled)
        self._runtime.on_failure = self._failed

    def _signalled(self) -> None:
        if self._task is not None:
            self._stop()
            return
        self._begin(self._drain_timeout)

    def _failed(self, reason: str) -> None:
        self.failure = reason
        if self._task is None:
            self._begin(0.0)

    def _begin(self, drain_timeout: float) -> None:
        self._deadline.set(drain_timeout + CLOSE_S, 1)
        self._task = asyncio.get_running_loop().create_task(self._end(drain_timeout), name="shutdown")

    async def _end(self, drain_timeout: float) -> None:
        logger.info("draining: %d turns running", self._runtime.registry.running)
        try:
            await self._runtime.drain(drain_timeout)
            await self._runtime.aclose()
            logger.info("stopped")
        except Exception:
            logger.exception("the end was not clean")
        self._deadline.set(EXIT_S + 2.0, 0 if self.failure is None else 1)  # the ASGI server closes its sockets
        self._stop()

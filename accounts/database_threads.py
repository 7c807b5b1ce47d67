"""Threads in which a serving process asks the database, with a time limit and a breaker.

Each thread keeps its connection. One that the server has closed in the meantime is replaced, and one that hangs longer
than its limit is cut, which frees the thread.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Generic, TypeVar

import psycopg
from django.db import DEFAULT_DB_ALIAS, InterfaceError, OperationalError, connections

from accounts.breaker import Breaker, DependencyAway

T = TypeVar("T")

READ_LIMIT_S = 2.0
"""How long one read may take once a thread has begun with it."""


def database_breaker() -> Breaker:
    """Return the breaker of the database of a serving process."""
    return Breaker("database", "keys seen before are admitted from memory, usage is kept")


class DatabaseThreads:
    """A few threads with a database connection each.

    Args:
        breaker: Shared by all threads of the process.
        workers: Number of threads.
        name: Prefix of the threads' names.
    """

    def __init__(self, breaker: Breaker, workers: int, name: str) -> None:
        self.breaker = breaker
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix=name)
        self._workers = workers

    async def read(
        self, work: Callable[[], T], *, wait_s: float | None = None, limit_s: float = READ_LIMIT_S, probe: bool = False
    ) -> T:
        """Run a read in a thread.

        Args:
            work: Synchronous and repeatable: it is run again where its connection had been closed by the server.
            wait_s: How long to wait for the answer, a free thread included; then :class:`DependencyAway` is raised and
                the read goes on. None: as long as it takes.
            limit_s: How long the read itself may take. After that its connection is cut and the breaker opens.
            probe: Ask also while the breaker is open.

        Raises:
            DependencyAway: There is no answer.
        """
        if not probe:
            self.breaker.check()
        job = _Job(work, repeat=True)
        task = asyncio.get_running_loop().create_task(self._answer(job, limit_s), name="database read")
        task.add_done_callback(_retrieve)
        done, _ = await asyncio.wait({task}, timeout=wait_s)
        if not done:
            raise DependencyAway(self.breaker.name)
        return task.result()

    async def write(self, work: Callable[[], T]) -> T:
        """Run a write in a thread. It is neither repeated nor cut: its effect would be unknown.

        Raises:
            DependencyAway: The database cannot be reached.
        """
        return await self._answer(_Job(work, repeat=False), None)

    async def aclose(self, timeout_s: float = 1.5) -> None:
        """Close the threads' connections. A hanging thread is abandoned; the process ends without it.

        Args:
            timeout_s: seconds for all threads together.
        """
        together = threading.Barrier(self._workers)  # so that each thread closes its own
        futures = [self._threads.submit(_close_connection, together, timeout_s * 0.8) for _ in range(self._workers)]
        await asyncio.wait([asyncio.wrap_future(future) for future in futures], timeout=timeout_s)
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _answer(self, job: _Job[T], limit_s: float | None) -> T:
        running = asyncio.get_running_loop().run_in_executor(self._threads, job.run)
        while not (await asyncio.wait({running}, timeout=limit_s))[0]:
            assert limit_s is not None
            if job.began is None:
                continue  # all threads are busy: the reads that they are busy with have a limit of their own
            if time.monotonic() - job.began >= limit_s:
                job.cut()
                running.add_done_callback(_retrieve)
                raise self.breaker.failed(f"no answer within {limit_s:g} s")
        try:
            answer = running.result()
        except (OperationalError, InterfaceError) as error:
            if is_connection_error(error):
                raise self.breaker.failed(error) from error
            raise
        self.breaker.answered()
        return answer


class _Job(Generic[T]):
    """One piece of work in a thread."""

    def __init__(self, work: Callable[[], T], *, repeat: bool) -> None:
        self._work = work
        self._repeat = repeat
        self._connection: Any = None
        self.began: float | None = None
        """When a thread began with it (monotonic seconds); None: not yet."""

    def run(self) -> T:
        """Do the work, in the thread."""
        self._connection = connections[DEFAULT_DB_ALIAS]
        self.began = time.monotonic()
        kept = self._connection.connection is not None
        if kept and not self._repeat and not self._connection.is_usable():
            self._connection.close()
        try:
            return self._work()
        except (OperationalError, InterfaceError) as error:
            if not is_connection_error(error):
                raise
            self._connection.close()
            if not kept or not self._repeat:
                raise
            return self._work()  # the server had closed the connection since it was last used

    def cut(self) -> None:
        """Shut the socket down, from the loop: a PostgreSQL client that waits for an answer then gets an error."""
        try:
            descriptor = os.dup(self._connection.connection.pgconn.socket)
        except (AttributeError, OSError, psycopg.Error):
            return  # SQLite, or still connecting, which has a limit of its own
        with socket.socket(fileno=descriptor) as duplicate, suppress(OSError):
            duplicate.shutdown(socket.SHUT_RDWR)


def _close_connection(together: threading.Barrier, timeout_s: float) -> None:
    with suppress(threading.BrokenBarrierError):  # another thread hangs
        together.wait(timeout_s)
    connections[DEFAULT_DB_ALIAS].close()


def _retrieve(done: asyncio.Future[Any]) -> None:
    """Take the exception of a read that nothing waits for any more."""
    if not done.cancelled():
        done.exception()


def is_connection_error(error: BaseException) -> bool:
    """Whether the database cannot be reached or is not accepting work, rather than refusing this statement."""
    cause = error.__cause__ or error
    if type(cause).__module__.startswith("sqlite3"):
        return "unable to open database file" in str(cause)
    state: str | None = getattr(cause, "sqlstate", None)
    # No state: the connection failed or was lost. Class 08: connection exception; 57P: the server is stopping or
    # starting; 53300: too many connections; 25006: a standby that has not been promoted.
    return state is None or state.startswith(("08", "57P")) or state in ("53300", "25006")

"""Kills engine processes whose server is gone. Standard library only: this file is also the guard's program.

vLLM's engine processes survive the death of their parent. Therefore every engine process carries marks in its
environment (checkout, server, engine). A guard process in its own session reads from a pipe whose other end only the
server holds. When the pipe closes, the guard kills all processes with the server's mark.
Linux only (``/proc``); elsewhere nothing is found and nothing is killed.

    python -I -S supervisor.py guard SERVER         started by the server
    python -I -S supervisor.py kill CHECKOUT [S]    every process of this checkout, after S seconds of grace; prints
                                                    how many were killed (for a stop script)
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

CHECKOUT_MARK, SERVER_MARK, ENGINE_MARK = "YAP_CHECKOUT", "YAP_SERVER", "YAP_ENGINE"


class ProcessSupervisor:
    """Owns the engine processes of one server: marks them, watches over them, kills what remains."""

    def __init__(self, checkout: str) -> None:
        self.checkout = os.path.realpath(checkout)
        self.server = server_id(os.getpid())
        self._guard: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Kill processes that dead servers of this checkout left, then start the guard. Idempotent."""
        if self._guard is not None:
            return
        if killed := kill_orphans(self.checkout):
            print(f"yap: killed {killed} engine processes that a dead server had left", file=sys.stderr)
        from multiprocessing import resource_tracker

        # One resource tracker serves all engines and must outlive each, so it starts unmarked.
        resource_tracker.ensure_running()
        self._guard = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, "guard", self.server],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    @contextmanager
    def marking(self, engine: str) -> Iterator[None]:
        """Mark processes that start inside the block as belonging to `engine`; one block at a time."""
        marks = {CHECKOUT_MARK: self.checkout, SERVER_MARK: self.server, ENGINE_MARK: f"{self.server}/{engine}"}
        # Keeps setproctitle, by which vLLM names its processes, from overwriting the environment.
        marks["SPT_NOENV"] = "1"
        before = {name: os.environ.get(name) for name in marks}
        os.environ.update(marks)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value

    def processes(self, engine: str) -> list[int]:
        """Return the process ids of one engine."""
        return marked(ENGINE_MARK, f"{self.server}/{engine}")

    def kill(self, engine: str) -> int:
        """Kill the remaining processes of one engine; returns their number."""
        return kill_marked(ENGINE_MARK, f"{self.server}/{engine}")

    def kill_all(self) -> int:
        """Kill every engine process of this server; returns their number."""
        return kill_marked(SERVER_MARK, self.server)

    def close(self) -> None:
        """End the guard, which kills remaining engine processes."""
        guard, self._guard = self._guard, None
        if guard is not None and guard.stdin is not None:
            guard.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                guard.wait(5)


def server_id(pid: int) -> str:
    """Return `pid-starttime`, which identifies a process uniquely even after its pid is reused."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return f"{pid}-{file.read().rpartition(')')[2].split()[19]}"
    except OSError:
        return f"{pid}-0"


def marks_of(pid: int) -> dict[str, str]:
    """Return the marks in a process's environment; empty if the process is gone or unreadable."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            pairs = [entry.decode(errors="replace").partition("=") for entry in file.read().split(b"\0")]
    except OSError:
        return {}
    return {name: value for name, _, value in pairs if name in (CHECKOUT_MARK, SERVER_MARK, ENGINE_MARK)}


def marked(name: str, value: str) -> list[int]:
    """Return the ids of all other processes with this mark."""
    if not os.path.isdir("/proc"):
        return []
    pids = [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]
    return [pid for pid in pids if pid != os.getpid() and marks_of(pid).get(name) == value]


def kill_marked(name: str, value: str, patience: float = 5.0) -> int:
    """Kill every process with this mark, new children included, until none is left.

    Args:
        patience: seconds.

    Returns:
        The number of killed processes.
    """
    killed: set[int] = set()
    until = time.monotonic() + patience
    while (pids := marked(name, value)) and time.monotonic() < until:
        for pid in pids:
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
        time.sleep(0.05)
    return len(killed)


def kill_orphans(checkout: str) -> int:
    """Kill engine processes of this checkout whose server is gone; returns their number."""
    servers = {marks_of(pid).get(SERVER_MARK, "") for pid in marked(CHECKOUT_MARK, checkout)}
    return sum(kill_marked(SERVER_MARK, server) for server in servers if server and not _alive(server))


def _alive(server: str) -> bool:
    return server_id(int(server.partition("-")[0])) == server


def _guard(server: str) -> None:
    """Wait until the server is gone (closed pipe, or dead process), then kill its engine processes."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while _alive(server):
        ready, _, _ = select.select([0], [], [], 1.0)
        if ready and not os.read(0, 1):
            break
    # A starting process shows its mark only after exec.
    for _ in range(3):
        kill_marked(SERVER_MARK, server)
        time.sleep(0.3)


if __name__ == "__main__":
    if sys.argv[1] == "guard":
        _guard(sys.argv[2])
    elif sys.argv[1] == "kill":
        checkout = os.path.realpath(sys.argv[2])
        until = time.monotonic() + float(sys.argv[3] if len(sys.argv) > 3 else 0)
        while time.monotonic() < until and marked(CHECKOUT_MARK, checkout):
            time.sleep(0.1)
        print(kill_marked(CHECKOUT_MARK, checkout))  # the number of killed processes
        sys.exit(bool(marked(CHECKOUT_MARK, checkout)))

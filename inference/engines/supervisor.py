"""Supervises engine processes: none outlives its server. Standard library only, because the guard runs this file alone.

vLLM's engine processes do not notice the death of the process that started them. Every engine process therefore carries
marks in its environment: the checkout, the server, the engine. A guard, a small process in its own session, waits at a
pipe whose other end only the server holds. When the pipe closes, the guard kills the processes with the server's mark.
Linux only (``/proc``); on other systems no process is found and none is killed.

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
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress

CHECKOUT_MARK, SERVER_MARK, ENGINE_MARK = "YAP_CHECKOUT", "YAP_SERVER", "YAP_ENGINE"


class ProcessSupervisor:
    """Marks, guards and kills the engine processes of one server.

    Args:
        checkout: the path of the checkout whose processes these are.
    """

    def __init__(self, checkout: str) -> None:
        self.checkout = os.path.realpath(checkout)
        self.server = server_id(os.getpid())
        self._guard: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Kill the processes that dead servers of this checkout left, then start the guard. Idempotent."""
        if self._guard is not None:
            return
        if killed := kill_orphans(self.checkout):
            print(f"yap: killed {killed} engine processes that a dead server had left", file=sys.stderr)
        from multiprocessing import resource_tracker

        # multiprocessing starts one resource tracker for all engines. The tracker must outlive each engine, so it is
        # started before any mark is set.
        resource_tracker.ensure_running()
        self._guard = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, "guard", self.server],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    @contextmanager
    def mark_new_processes(self, engine: str) -> Iterator[None]:
        """Let processes that are started inside this context inherit the marks of one engine.

        Not reentrant and not thread-safe: the environment belongs to the whole process.
        """
        marks = {CHECKOUT_MARK: self.checkout, SERVER_MARK: self.server, ENGINE_MARK: f"{self.server}/{engine}"}
        # vLLM names its processes with setproctitle, which would otherwise overwrite the marks
        # (https://github.com/dvarrazzo/py-setproctitle, SPT_NOENV).
        with temporary_environment({**marks, "SPT_NOENV": "1"}):
            yield

    def kill(self, engine: str) -> int:
        """Kill the processes of one engine. Returns how many there were."""
        return kill_marked(ENGINE_MARK, f"{self.server}/{engine}")

    def kill_all(self) -> int:
        """Kill every engine process of this server."""
        return kill_marked(SERVER_MARK, self.server)

    def close(self) -> None:
        """End the guard. The guard kills the processes that remain."""
        guard, self._guard = self._guard, None
        if guard is not None and guard.stdin is not None:
            guard.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                guard.wait(5)


@contextmanager
def temporary_environment(values: Mapping[str, str], keep: Iterable[str] = ()) -> Iterator[None]:
    """Set environment variables inside this context, for processes that are started in it.

    Args:
        values: the variables to set.
        keep: further variables whose present values are restored at the end.
    """
    before = {name: os.environ.get(name) for name in (*keep, *values)}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def server_id(pid: int) -> str:
    """Return ``pid-starttime``: unlike a bare pid, this id is never used again."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return f"{pid}-{file.read().rpartition(')')[2].split()[19]}"
    except OSError:
        return f"{pid}-0"


def marks_of(pid: int) -> dict[str, str]:
    """Return the marks in a process's environment; none where the process ended or may not be read."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            pairs = [entry.decode(errors="replace").partition("=") for entry in file.read().split(b"\0")]
    except OSError:
        return {}
    return {name: value for name, _, value in pairs if name in (CHECKOUT_MARK, SERVER_MARK, ENGINE_MARK)}


def marked(name: str, value: str) -> list[int]:
    """Return the ids of the processes with this mark, without the calling process."""
    if not os.path.isdir("/proc"):
        return []
    pids = [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]
    return [pid for pid in pids if pid != os.getpid() and marks_of(pid).get(name) == value]


def kill_marked(name: str, value: str, patience: float = 5.0) -> int:
    """SIGKILL all processes with this mark, also children that are started meanwhile.

    Args:
        name: the mark's variable.
        value: its value.
        patience: seconds after which the attempt ends.

    Returns:
        How many processes were killed.
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
    """Kill the engine processes of this checkout whose server has ended. Returns how many there were."""
    servers = {marks_of(pid).get(SERVER_MARK, "") for pid in marked(CHECKOUT_MARK, checkout)}
    return sum(kill_marked(SERVER_MARK, server) for server in servers if server and not _alive(server))


def _alive(server: str) -> bool:
    return server_id(int(server.partition("-")[0])) == server


def _guard(server: str) -> None:
    """Wait until the server has ended (the pipe closes, or its process is gone), then kill its engine processes."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while _alive(server):
        ready, _, _ = select.select([0], [], [], 1.0)
        if ready and not os.read(0, 1):
            break
    # A process that was being started shows its mark only once it runs.
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
        print(kill_marked(CHECKOUT_MARK, checkout))  # how many there were
        sys.exit(bool(marked(CHECKOUT_MARK, checkout)))

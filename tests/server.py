"""Real servers for tests: a process on a free port with its own run folder, without remains afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from yapserver.env import Environment

CHECKOUT = Path(__file__).resolve().parent.parent
MODELS = CHECKOUT / ".models"
TINY = MODELS / "tiny-random-llama"
TINY_ENV = {
    "CHAT_MODEL": str(TINY), "TOOL_MODEL": str(TINY), "CHAT_MAX_LEN": "4096", "CHAT_MAX_OUT": "400",
    "CHAT_PROMPT_MAX_TOKENS": "500", "HISTORY_MAX_TOKENS": "2000", "TOOL_MAX_LEN": "2048",
}  # fmt: skip
READY_S = 240.0
MANAGE = (sys.executable, str(CHECKOUT / "manage.py"))
_MARK = "YAP_TEST_SERVER"


def clean_environment(**variables: str) -> dict[str, str]:
    """Return this process's environment without a server's settings, plus the given variables."""
    ours = {*Environment.model_fields, "DJANGO_SETTINGS_MODULE"}
    return {name: value for name, value in os.environ.items() if name not in ours} | variables


class YapServer:
    """One server. `command` serves (`{port}` is filled in), `variables` are its settings.

    `processes()` finds every process that it started, engines included, by a mark in their environment, independently
    of the product's own marks.
    """

    api_key = "kQ4wX9vTn2LmR7pZc5sB"

    def __init__(self, run_dir: Path, command: Sequence[str] = (*MANAGE, "serve"), **variables: str) -> None:
        self.run_dir = run_dir
        self.log = run_dir / "server.log"
        self.port = _free_port()
        self.origin = f"http://127.0.0.1:{self.port}"
        self.ws_url = f"ws://127.0.0.1:{self.port}/ws"
        self.ready_after_s: float | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self.cores: set[int] | None = None
        """The cores that the server may use; None: all. Two engines on the same cores wait for each other."""
        self._mark = uuid.uuid4().hex
        self._command = [part.format(port=self.port) for part in command]
        self.env = clean_environment(
            **{
                "RUN_DIR": str(run_dir),
                "HOST": "127.0.0.1",
                "PORT": str(self.port),
                "TEXT_API_KEY": self.api_key,
                "TOOL_HARD_TIMEOUT_MS": "-1",
                "RESUME_GRACE_S": "0",
                "SESSION_KEEP_S": "0",  # tests share servers and session ids
                "TOOL_DECISION": "model",  # what most tests script; the classifier has tests of its own
                "PYTHONUNBUFFERED": "1",
                _MARK: self._mark,
                **variables,
            }
        )
        run_dir.mkdir(parents=True, exist_ok=True)

    # -- starting --------------------------------------------------------------------------------------------------

    def manage(self, *arguments: str) -> str:
        """Run a management command with this server's settings; returns its output."""
        done = subprocess.run(
            [*MANAGE, *arguments], env=self.env, cwd=CHECKOUT, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, f"manage.py {arguments[0]} failed: {done.stderr}"
        return done.stdout.strip()

    def prepare(self) -> None:
        """Run `scripts/prepare.py` with this server's settings, as every start of a container does."""
        command = [sys.executable, str(CHECKOUT / "scripts" / "prepare.py")]
        done = subprocess.run(
            command, env=self.env, cwd=CHECKOUT, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr

    def spawn(self) -> YapServer:
        """Start the process; returns at once."""
        with self.log.open("ab") as log:
            usable = os.sched_getaffinity(0)
            os.sched_setaffinity(0, self.cores or usable)  # the process inherits this thread's cores
            try:
                self.process = subprocess.Popen(
                    self._command, env=self.env, cwd=CHECKOUT, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                    start_new_session=True,
                )  # fmt: skip
            finally:
                os.sched_setaffinity(0, usable)
        self._spawned = time.monotonic()
        return self

    def start(self, deadline_s: float = READY_S) -> YapServer:
        """Start, and wait until the server is ready."""
        self.spawn()
        self.wait_ready(deadline_s)
        return self

    def wait_ready(self, deadline_s: float = READY_S) -> float:
        """Wait until `/readyz` answers 200; fails at once, with the end of the log, if the process exits.

        Returns:
            The waiting time in seconds.
        """
        began = time.monotonic()
        while True:
            status, body = self.http("/readyz", key=None)
            if status == 200:
                break
            if self.process is None or self.process.poll() is not None:
                raise AssertionError(f"the server died while starting:\n{self.tail()}")
            if status and not any(word in body["reason"] for word in ("starting", "loading", "dead: its process")):
                raise AssertionError(f"the server will not get ready: {body['reason']}")
            if time.monotonic() - began > deadline_s:
                raise AssertionError(f"not ready after {deadline_s:g} s ({body}):\n{self.tail()}")
            time.sleep(0.1)
        if self.ready_after_s is None:
            self.ready_after_s = time.monotonic() - self._spawned
        return time.monotonic() - began

    # -- reading ---------------------------------------------------------------------------------------------------

    def http(self, path: str, *, key: str | None = api_key, timeout: float = 10.0) -> tuple[int, Any]:
        """Send a GET.

        Returns:
            Status and JSON body (text if the body is not JSON); status 0 if no server answers.
        """
        request = urllib.request.Request(self.origin + path, headers={} if key is None else {"X-API-Key": key})
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                return answer.status, _body(answer.read())
        except urllib.error.HTTPError as refusal:
            with refusal:
                return refusal.code, _body(refusal.read())
        except OSError:
            return 0, None

    def status(self) -> dict[str, Any]:
        """Return the body of `/status`."""
        code, body = self.http("/status")
        assert code == 200, f"/status said {code}: {body}"
        answer: dict[str, Any] = body
        return answer

    def tail(self, lines: int = 40) -> str:
        """Return the end of the log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:]) if self.log.exists() else ""

    def processes(self) -> list[int]:
        """Return the process ids of the server and of every running process that it started."""
        wanted = f"{_MARK}={self._mark}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with suppress(OSError):
                    if wanted in (entry / "environ").read_bytes().split(b"\0") and _state(entry) != "Z":
                        found.append(int(entry.name))
        return found

    def engine_processes(self) -> list[int]:
        """Return the process ids of the engines, which rename themselves."""
        return [pid for pid in self.processes() if _title(pid).startswith(("VLLM::", "VLLM:"))]

    def resident_bytes(self) -> int:
        """Return the resident memory of the serving process, bytes."""
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:"))) * 1024

    # -- stopping --------------------------------------------------------------------------------------------------

    def signal(self, number: int, *, group: bool = False) -> None:
        """Send a signal to the server's process, or to its group as a terminal does."""
        assert self.process is not None
        if group:
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)

    def all_gone(self, deadline_s: float) -> float:
        """Wait until no process of this server is left; fails after the deadline.

        Returns:
            The waiting time in seconds.
        """
        began = time.monotonic()
        while True:
            if self.process is not None:
                self.process.poll()
            if not (left := self.processes()):
                return time.monotonic() - began
            if time.monotonic() - began > deadline_s:
                raise AssertionError(f"left after {deadline_s:g} s: {[_title(pid) for pid in left]}\n{self.tail()}")
            time.sleep(0.05)

    def wait(self, deadline_s: float = 60.0) -> int:
        """Wait for the end of the process; returns its exit status."""
        assert self.process is not None
        return self.process.wait(deadline_s)

    def stop(self) -> None:
        """Stop the server with every process that it started: SIGTERM, then SIGKILL. Idempotent."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(40)
        until = time.monotonic() + 10
        while (left := self.processes()) and time.monotonic() < until:
            for pid in left:
                with suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            if self.process is not None:
                self.process.poll()
            time.sleep(0.05)
        if self.process is not None:
            self.process.wait(10)


def _free_port() -> int:
    from tests.servers import free_port  # a pytest plugin, so pytest has to import it first

    return free_port()


def _body(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except ValueError:
        return raw.decode(errors="replace")


def _state(entry: Path) -> str:
    return (entry / "stat").read_text().rpartition(")")[2].split()[0]


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def share_cores(servers: Sequence[YapServer]) -> None:
    """Give each server cores of its own, as hosts of their own would have; nothing changes with too few cores."""
    usable = sorted(os.sched_getaffinity(0))
    for number, server in enumerate(servers):
        server.cores = set(usable[number :: len(servers)]) or None

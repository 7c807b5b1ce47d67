"""The compared systems: each one a process on its own port, all running at once, measured in turns."""

from __future__ import annotations

import ctypes
import http.client
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tests.benchmarks.engine import Engine
from yapserver.env import Environment

CHECKOUT = Path(__file__).resolve().parent.parent.parent
READY_S = 900.0
_MARK = "YAP_BENCHMARK_RUN"


class Process:
    """A process and all its descendants, identified by a mark in their environment."""

    def __init__(self, name: str, command: Sequence[str], environ: Mapping[str, str], log: Path, **pipes: Any) -> None:
        self._mark = secrets.token_hex(8)
        self.name, self.log = name, log
        log.parent.mkdir(parents=True, exist_ok=True)
        ours = {*Environment.model_fields, "DJANGO_SETTINGS_MODULE"}
        inherited = {key: value for key, value in os.environ.items() if key not in ours}
        with log.open("ab") as errors:
            self.process = subprocess.Popen(
                command,
                cwd=CHECKOUT,
                env={**inherited, "PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1", **environ, _MARK: self._mark},
                stderr=errors,
                start_new_session=True,
                preexec_fn=_die_with_parent,
                **{"stdin": subprocess.DEVNULL, "stdout": errors, **pipes},
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def check(self) -> None:
        """Raise RuntimeError with the end of the log if the process has exited."""
        if self.process.poll() is not None:
            tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-30:])
            raise RuntimeError(f"{self.name} has ended with status {self.process.returncode}:\n{tail}")

    def stop(self) -> None:
        """Terminate, then kill; no descendant survives."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(30)
        wanted, until = f"{_MARK}={self._mark}".encode(), time.monotonic() + 10
        while (left := _marked(wanted)) and time.monotonic() < until:
            for pid in left:
                with suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            self.process.poll()
            time.sleep(0.1)
        self.process.wait(10)


class ScenarioFailed(RuntimeError):
    """A scenario failed; the message names system, scenario and error."""


class Worker:
    """A process that runs scenarios (see :mod:`tests.benchmarks.worker`)."""

    def __init__(self, kind: str, log: Path, first: Mapping[str, Any] | None = None) -> None:
        command = [sys.executable, "-m", "tests.benchmarks.worker", kind]
        self.process = Process(kind, command, {}, log, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        if first is not None:
            self._write(first)

    def wait_ready(self) -> None:
        """Wait until the worker takes commands."""
        self._read()

    def do(self, scenario: str, target: Mapping[str, Any], **arguments: Any) -> dict[str, Any]:
        """Run one scenario.

        Raises:
            ScenarioFailed: the scenario failed.
        """
        self._write({"scenario": scenario, "target": target, "arguments": arguments})
        answer = self._read()
        if "error" in answer:
            raise ScenarioFailed(f"{scenario} on {target['kind']} failed:\n{answer['error']}")
        result: dict[str, Any] = answer["result"]
        return result

    def stop(self) -> None:
        with suppress(OSError):
            _pipe(self.process.process.stdin).close()  # the worker exits at the end of its input
        with suppress(subprocess.TimeoutExpired):
            self.process.process.wait(20)
        self.process.stop()
        _pipe(self.process.process.stdout).close()

    def _write(self, what: Mapping[str, Any]) -> None:
        pipe = _pipe(self.process.process.stdin)
        pipe.write(json.dumps(what).encode() + b"\n")
        pipe.flush()

    def _read(self) -> dict[str, Any]:
        line = _pipe(self.process.process.stdout).readline()
        if not line:
            self.process.process.wait(10)
            self.process.check()
        answer: dict[str, Any] = json.loads(line)
        return answer


@dataclass(slots=True)
class System:
    """One system. `worker` runs its scenarios against `target`; `process` serves. `rest_s` is the time until the idle
    system stops using the processor, seconds.
    """

    name: str
    process: Process
    worker: Worker
    target: dict[str, Any]
    ready_path: str | None = None
    rest_s: float = 0.0

    def wait_ready(self) -> None:
        """Wait until the system answers."""
        if self.ready_path is None:
            self.worker.wait_ready()
            return
        until = time.monotonic() + READY_S
        while time.monotonic() < until:
            self.process.check()
            if _answers(self.target["port"], self.ready_path):
                return
            time.sleep(0.2)
        raise RuntimeError(f"{self.name} is not ready after {READY_S:g} s, see {self.process.log}")

    def do(self, scenario: str, **arguments: Any) -> dict[str, Any]:
        """Run one scenario, then wait until the machine is quiet."""
        self.process.check()
        numbers = self.worker.do(scenario, self.target, **arguments)
        time.sleep(self.rest_s)
        return numbers

    def stop(self) -> None:
        if self.process is not self.worker.process:
            self.process.stop()


def raw(engine: Engine, out: Path) -> System:
    """The engine alone."""
    first = {name: getattr(engine, name) for name in ("arguments", "environ", "process_environ", "sampling")}
    worker = Worker("raw", out / "logs" / "raw.log", first)
    return System("raw", worker.process, worker, {"kind": "raw"})


def yap(server: str, engine: Engine, clients: Worker, out: Path, *, places: int, history: int) -> System:
    """Yap on one of its ASGI servers, with SQLite and without effective limits."""
    name, port, key = f"yap-{server}", free_port(), secrets.token_urlsafe(15)
    folder = out / "run" / name
    folder.mkdir(parents=True, exist_ok=True)
    environ = {
        "RUN_DIR": str(folder),
        "PORT": str(port),
        "SERVER": server,
        "TEXT_API_KEY": key,
        "DEPLOY_MODELS": "chat",
        "CHAT_MODEL": str(engine.arguments["model"]),
        "CHAT_MAX_LEN": str(engine.arguments["max_model_len"]),
        "CHAT_MAX_OUT": str(engine.sampling["max_tokens"]),
        "HISTORY_MAX_TOKENS": str(history),
        "MAX_CONCURRENT_CONNECTIONS": str(places),
        "WS_MAX_MESSAGES_PER_WINDOW": "0",
        "WS_MAX_CANCELS_PER_WINDOW": "0",
        "WS_IDLE_TIMEOUT_S": "3600",
        "BENCHMARK_ENGINE": json.dumps(
            {name: getattr(engine, name) for name in ("arguments", "environ", "process_environ")}
        ),
    }
    log = out / "logs" / f"{name}.log"
    migrate = Process(name, [sys.executable, "manage.py", "migrate", "--verbosity", "0"], environ, log)
    if migrate.process.wait(300):
        migrate.check()
    process = Process(name, [sys.executable, "-m", "tests.benchmarks.served", "serve"], environ, log)
    target = {"kind": "websocket", "port": port, "key": key, "pid": process.pid, "sampling": engine.wish}
    return System(name, process, clients, target, "/readyz")


def yap_openai(name: str, kind: str, host: System, engine: Engine) -> System:
    """An OpenAI protocol of a Yap that is one of the systems: the same process.

    Args:
        kind: `sse` for `/v1/chat/completions`, `responses` for the Responses WebSocket.
    """
    model = Path(str(engine.arguments["model"])).name
    target = {**host.target, "kind": kind, "model": model, "sampling": engine.sampling}
    return System(name, host.process, host.worker, target, "/readyz")


def vllm_serve(name: str, engine: Engine, clients: Worker, out: Path, template: Path, rest_s: float = 0.0) -> System:
    """vLLM's own OpenAI server, with its access log off."""
    port, model = free_port(), str(engine.arguments["model"])
    # The module that `vllm serve` runs; the command needs a package named vllm, and the CPU build has another name.
    command = [sys.executable, "-m", "tests.benchmarks.openai_server", json.dumps(engine.process_environ)]
    command += [
        "--model",
        model,
        "--port",
        str(port),
        "--host",
        "127.0.0.1",
        "--disable-uvicorn-access-log",
        "--generation-config",
        "vllm",
    ]
    command += ["--served-model-name", "benchmark", "--chat-template", str(template), *engine.flags()]
    process = Process(name, command, engine.environ, out / "logs" / f"{name.replace(' ', '-')}.log")
    target = {"kind": "sse", "port": port, "model": "benchmark", "sampling": engine.sampling, "pid": process.pid}
    return System(name, process, clients, target, "/health", rest_s)


def free_port() -> int:
    """Find a port that no process listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(port: int, path: str) -> bool:
    line = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        line.request("GET", path)
        return line.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        line.close()


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None
    return pipe


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def _marked(wanted: bytes) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                if state != "Z" and wanted in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
    return found

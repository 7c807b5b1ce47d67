"""Engine processes: marked, killed, and none that outlives its server; with stand-ins and with the real engine."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from inference.engines import supervisor
from inference.engines.base import EngineRole
from inference.engines.service import vllm_service
from inference.engines.spec import EngineSpec
from inference.engines.supervisor import ENGINE_MARK, SERVER_MARK, ProcessSupervisor, marked
from tests.conftest import StartServer
from tests.engine.waiting import until

CHECKOUT = Path(__file__).resolve().parents[2]
TINY = CHECKOUT / ".models" / "tiny-random-llama"

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are marked in /proc")

SLEEPER = [sys.executable, "-I", "-S", "-c", "import time; print(flush=True); time.sleep(600)"]


def processes(owner: ProcessSupervisor | None, engine: str) -> list[int]:
    """The process ids of one engine of a server."""
    assert owner is not None
    return marked(ENGINE_MARK, f"{owner.server}/{engine}")


def _sleeper() -> subprocess.Popen[bytes]:
    process = subprocess.Popen(SLEEPER, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    return process


@pytest.mark.processes
@linux
def test_engine_processes_are_found_by_their_marks_and_killed(tmp_path: Path) -> None:
    keeper = ProcessSupervisor(str(tmp_path))
    with keeper.mark_new_processes("chat-1"):
        chat = _sleeper()
    with keeper.mark_new_processes("tool-1"):
        tool = _sleeper()
    other = _sleeper()
    try:
        assert processes(keeper, "chat-1") == [chat.pid]
        assert ENGINE_MARK not in os.environ
        assert keeper.kill("chat-1") == 1
        assert chat.wait(5) == -signal.SIGKILL
        assert tool.poll() is None
        assert keeper.kill_all() == 1
        assert tool.wait(5) == -signal.SIGKILL
        assert other.poll() is None
    finally:
        for process in (chat, tool, other):
            process.kill()
            process.communicate()


# A server with one engine process and a guard, without the engine.
SERVER = """
    import subprocess, sys, time
    from inference.engines.supervisor import ENGINE_MARK, ProcessSupervisor, marked
    keeper = ProcessSupervisor(sys.argv[1])
    keeper.start()
    with keeper.mark_new_processes("chat-1"):
        subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)"],
                         stdout=subprocess.DEVNULL, start_new_session=True)
    while not marked(ENGINE_MARK, f"{keeper.server}/chat-1"):
        time.sleep(0.01)
    print(keeper.server, keeper._guard.pid, flush=True)
    time.sleep(600)
"""


def _server(checkout: Path) -> tuple[subprocess.Popen[str], str, int]:
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SERVER), str(checkout)], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    name, guard = process.stdout.readline().split()
    return process, name, int(guard)


@pytest.mark.processes
@linux
async def test_the_guard_kills_what_a_killed_server_leaves(tmp_path: Path) -> None:
    process, name, guard = _server(tmp_path)
    assert len(supervisor.marked(SERVER_MARK, name)) == 1
    process.kill()
    process.communicate()
    assert await until(lambda: not supervisor.marked(SERVER_MARK, name)) < 5
    await until(lambda: not _runs(guard))


@pytest.mark.processes
@linux
async def test_orphans_are_found_on_start_where_the_guard_was_killed_too(tmp_path: Path) -> None:
    process, name, guard = _server(tmp_path)
    alive, alive_name, _ = _server(tmp_path)
    os.kill(guard, signal.SIGKILL)
    process.kill()
    process.communicate()
    assert len(supervisor.marked(SERVER_MARK, name)) == 1
    assert supervisor.kill_orphans(str(tmp_path)) == 1
    assert supervisor.marked(SERVER_MARK, name) == []
    assert len(supervisor.marked(SERVER_MARK, alive_name)) == 1
    alive.kill()
    alive.communicate()
    await until(lambda: not supervisor.marked(SERVER_MARK, alive_name))


@pytest.mark.processes
@linux
async def test_the_stop_script_can_kill_by_checkout(tmp_path: Path) -> None:
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    one, name, _ = _server(here)
    other, other_name, _ = _server(elsewhere)
    killer = await asyncio.create_subprocess_exec(sys.executable, "-I", "-S", supervisor.__file__, "kill", str(here))
    assert await killer.wait() == 0
    assert supervisor.marked(SERVER_MARK, name) == []
    assert len(supervisor.marked(SERVER_MARK, other_name)) == 1
    for process in (one, other):
        process.kill()
        process.communicate()
    await until(lambda: not supervisor.marked(SERVER_MARK, other_name))


def _title(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# -- the real engine -----------------------------------------------------------------------------------------------


# vLLM leaves sockets and files of a dead engine to the garbage collector, which warns about them.
foreign_leaks = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.mark.engine
@foreign_leaks
@linux
async def test_a_killed_engine_process_is_noticed_and_replaced() -> None:
    service = vllm_service([EngineSpec(EngineRole.CHAT, str(TINY), 1024, max_num_seqs=2)], str(CHECKOUT))
    try:
        await service.ensure_running()
        assert service._lifecycle._supervisor is not None
        before = {pid: _title(pid) for pid in processes(service._lifecycle._supervisor, "chat-1")}
        os.kill(next(pid for pid, title in before.items() if "EngineCore" in title), signal.SIGKILL)
        assert await until(lambda: not service.ready) < 2
        await until(lambda: service.ready, 240)
        assert not set(before) & set(processes(service._lifecycle._supervisor, "chat-2"))
        assert processes(service._lifecycle._supervisor, "chat-1") == []
    finally:
        await service.aclose()
        assert service._lifecycle._supervisor is not None
        assert processes(service._lifecycle._supervisor, "chat-2") == []


REAL_SERVER = """
    import asyncio, sys
    from inference.engines.base import EngineRole
    from inference.engines.service import vllm_service
    from inference.engines.spec import EngineSpec

    async def serve():
        service = vllm_service([EngineSpec(EngineRole.CHAT, sys.argv[2], 1024, max_num_seqs=2)], sys.argv[1])
        await service.ensure_running()
        print("ready", service._lifecycle._supervisor.server, flush=True)
        await asyncio.Event().wait()

    if __name__ == "__main__":
        asyncio.run(serve())
"""


@pytest.mark.engine
@foreign_leaks
@linux
async def test_a_killed_server_leaves_no_engine_process_for_ten_seconds(tmp_path: Path) -> None:
    process = _real_server(tmp_path)
    try:
        name = (await asyncio.to_thread(_ready_line, process)).split()[1]
        assert supervisor.marked(SERVER_MARK, name)
    finally:
        process.kill()
        process.communicate()
    assert await until(lambda: not supervisor.marked(SERVER_MARK, name), 10) < 10


def _real_server(folder: Path) -> subprocess.Popen[str]:
    script = folder / "server.py"
    script.write_text(textwrap.dedent(REAL_SERVER))
    return subprocess.Popen(
        [sys.executable, str(script), str(folder), str(TINY)],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def _ready_line(process: subprocess.Popen[str]) -> str:
    """Read output until the ready line."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("ready"):
            return line
    raise AssertionError("the server ended before it was ready")


ENTRY_POINTS = {
    "daphne": ("-m", "daphne", "-b", "127.0.0.1", "-p", "{port}", "yapserver.asgi:application"),
    "runserver": ("manage.py", "runserver", "127.0.0.1:{port}"),
}


@pytest.mark.engine
@foreign_leaks
@linux
@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_every_entry_point_serves_and_ends_with_its_engines(name: str, start_server: StartServer) -> None:
    server = start_server(sys.executable, *ENTRY_POINTS[name], DEPLOY_MODELS="chat").start()
    assert len(server.engine_processes()) == 1
    server.signal(signal.SIGTERM)
    assert server.all_gone(20) < 20

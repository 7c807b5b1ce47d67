"""Life of the engines: built off the loop, warmed, watched, replaced, shut down; and no process outlives its server."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from inference.engines import supervisor
from inference.engines.base import PRIORITY_WARM, EngineDead, EngineRole
from inference.engines.managed_engine import OwnedEngine
from inference.engines.service import EngineService, vllm_service
from inference.engines.spec import EngineSpec, ModelRefused
from inference.engines.supervisor import ENGINE_MARK, SERVER_MARK, ProcessSupervisor
from tests.conftest import StartServer
from tests.fakes.engine import FakeEngine

CHECKOUT = Path(__file__).resolve().parents[2]
TINY = CHECKOUT / ".models" / "tiny-random-llama"
CHAT = EngineSpec(EngineRole.CHAT, "chat-model", 2048, alone=False)
TOOL = EngineSpec(EngineRole.TOOL, "tool-model", 1024, alone=False)

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are marked in /proc")


class Factory:
    """Builds fakes and records them. `hold` blocks builders; `errors` are raised, one per build (None: that build
    succeeds).
    """

    def __init__(self) -> None:
        self.made: list[FakeEngine] = []
        self.threads: list[threading.Thread] = []
        self.hold = threading.Event()
        self.hold.set()
        self.errors: list[Exception | None] = []
        self.at_once = 0
        self.most_at_once = 0

    def __call__(self, spec: EngineSpec) -> OwnedEngine:
        self.threads.append(threading.current_thread())
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            assert self.hold.wait(10)
            if self.errors and (error := self.errors.pop(0)) is not None:
                raise error
            self.made.append(FakeEngine(spec.role, model=spec.model, max_model_len=spec.max_model_len))
            return self.made[-1]
        finally:
            self.at_once -= 1


@pytest.fixture
def factory() -> Iterator[Factory]:
    made = Factory()
    yield made
    made.hold.set()


@pytest.fixture
async def service(factory: Factory) -> AsyncIterator[EngineService]:
    made = EngineService([CHAT, TOOL], factory, backoff=0.01)
    yield made
    factory.hold.set()
    await made.aclose()


async def until(condition: Callable[[], object], seconds: float = 5.0) -> float:
    """Measure the seconds until a condition holds."""
    begin = time.monotonic()
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    return time.monotonic() - begin


# -- starting ------------------------------------------------------------------------------------------------------


async def test_engines_are_built_one_after_the_other_and_off_the_loop(service: EngineService, factory: Factory) -> None:
    service.start_building()
    await service.ensure_running()
    assert service.ready
    assert [engine.role for engine in factory.made] == [EngineRole.CHAT, EngineRole.TOOL]
    assert factory.most_at_once == 1
    assert threading.current_thread() not in factory.threads
    assert service.chat.model == "chat-model"
    assert service.tool.model == "tool-model"


async def test_building_begins_before_there_is_a_loop(service: EngineService, factory: Factory) -> None:
    service.start_building()
    await until(lambda: len(factory.made) == 2)
    assert not service.ready
    assert [engine.bound for engine in factory.made] == [0, 0]
    await service.ensure_running()
    assert [engine.bound for engine in factory.made] == [1, 1]


async def test_concurrent_callers_share_one_start(service: EngineService, factory: Factory) -> None:
    await asyncio.gather(*(service.ensure_running() for _ in range(5)))
    service.start_building()
    await service.ensure_running()
    assert len(factory.made) == 2


async def test_a_caller_that_gives_up_does_not_take_the_start_with_it(service: EngineService, factory: Factory) -> None:
    factory.hold.clear()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(service.ensure_running(), 0.05)
    factory.hold.set()
    await service.ensure_running()
    assert service.ready


async def test_while_it_starts_it_says_so(service: EngineService, factory: Factory) -> None:
    factory.hold.clear()
    service.start_building()
    await until(lambda: factory.threads)
    assert not service.ready
    assert service.retry_in > 1
    with pytest.raises(EngineDead, match="starting: loading chat-model"):
        _ = service.chat
    status = service.status()
    assert (status["chat"]["state"], status["tool"]["state"]) == ("starting", "starting")
    assert status["tool"]["reason"] == "waiting for its turn"


async def test_an_engine_is_warmed_with_the_given_prompts_and_one_structured_request(factory: Factory) -> None:
    service = EngineService([CHAT], factory, warm_prompts=lambda engine: [[1, 2, 3], [4, 5]])
    await service.ensure_running()
    requests = factory.made[0].requests
    assert [list(request.prompt_ids) for request in requests] == [[1, 2, 3], [4, 5], [1, 2, 3]]
    assert [request.json_schema is None for request in requests] == [True, True, False]
    assert {request.priority for request in requests[:2]} == {PRIORITY_WARM}
    await service.aclose()


async def test_status_of_a_ready_engine(service: EngineService) -> None:
    await service.ensure_running()
    told = service.status()["chat"]
    assert (told["role"], told["model"], told["state"], told["reason"]) == ("chat", "chat-model", "ready", "")
    assert (told["max_model_len"], told["dtype"], told["quantization"]) == (2048, "float32", None)
    assert told["stats"]["running"] == 0
    assert told["since"] <= time.time()


async def test_an_engine_that_is_not_deployed(factory: Factory) -> None:
    service = EngineService([CHAT], factory)
    assert service.deployed(EngineRole.CHAT)
    assert not service.deployed(EngineRole.TOOL)
    with pytest.raises(EngineDead, match="no tool engine is deployed"):
        _ = service.tool


async def test_a_refused_model_is_the_reason_and_ends_what_was_built(service: EngineService, factory: Factory) -> None:
    factory.errors = [None, ModelRefused("tool model x: too large")]
    for _ in range(2):
        with pytest.raises(EngineDead, match=r"^tool model x: too large$"):
            await service.ensure_running()
    assert service.failure == "tool model x: too large"
    assert [engine.stopped for engine in factory.made] == [True]
    assert {told["state"] for told in service.status().values()} == {"dead"}


async def test_a_death_while_it_warms_is_fatal(factory: Factory) -> None:
    class Dying(FakeEngine):
        async def bind(self) -> None:
            self.die()
            await asyncio.Event().wait()

    service = EngineService([CHAT], lambda spec: Dying(spec.role))
    with pytest.raises(EngineDead, match="died while it was starting"):
        await service.ensure_running()
    assert service.failure is not None
    await service.aclose()


# -- watching ------------------------------------------------------------------------------------------------------


async def test_a_dead_engine_is_noticed_and_replaced(service: EngineService, factory: Factory) -> None:
    await service.ensure_running()
    chat = service.chat
    factory.hold.clear()
    factory.made[1].die()
    assert await until(lambda: service.status()["tool"]["state"] != "ready") < 1.0
    with pytest.raises(EngineDead):
        _ = service.tool
    assert service.chat is chat
    assert service.retry_in >= 1
    factory.hold.set()
    await until(lambda: service.ready)
    assert service.tool is factory.made[2]
    assert factory.made[1].stopped
    assert service.status()["tool"]["rebuilds"] == 1


async def test_rebuilding_is_tried_again_and_then_given_up(service: EngineService, factory: Factory) -> None:
    await service.ensure_running()
    factory.errors = [RuntimeError("out of memory\ntrace"), RuntimeError("out of memory")]
    factory.made[0].die()
    await until(lambda: service.ready and len(factory.made) == 3)
    factory.errors = [RuntimeError("out of memory") for _ in range(9)]
    factory.made[2].die()
    await until(lambda: service.failure)
    assert service.failure == "the chat engine does not come back: out of memory"
    assert service.status()["chat"]["state"] == "dead"
    assert service.tool.alive


async def test_two_dead_engines_are_rebuilt_one_at_a_time(service: EngineService, factory: Factory) -> None:
    await service.ensure_running()
    for engine in list(factory.made):
        engine.die()
    assert not service.ready
    await until(lambda: service.ready)
    assert len(factory.made) == 4
    assert factory.most_at_once == 1


class Processes(ProcessSupervisor):
    """A supervisor without processes; the first kill sets `killed`."""

    def __init__(self, killed: threading.Event) -> None:
        super().__init__(".")
        self.killed = killed

    def start(self) -> None: ...

    def kill(self, engine: str) -> int:
        self.killed.set()
        return 1

    def kill_all(self) -> int:
        return self.kill("")


async def test_a_rebuild_that_hangs_loses_its_processes_and_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    killed = threading.Event()
    builds = 0

    def build(spec: EngineSpec) -> OwnedEngine:
        nonlocal builds
        builds += 1
        if builds == 2:
            killed.clear()
            assert killed.wait(10)
            raise RuntimeError("its processes are gone")
        return FakeEngine(spec.role)

    monkeypatch.setattr("inference.engines.service.WATCH_S", 0.02)
    service = EngineService([CHAT], build, keeper=Processes(killed), backoff=0.01, patience=0.05)
    await service.ensure_running()
    service.chat.die()  # type: ignore[attr-defined]
    await until(lambda: service.ready)
    assert builds == 3
    await service.aclose()


# -- ending --------------------------------------------------------------------------------------------------------


async def test_closing_ends_the_engines_and_is_final(service: EngineService, factory: Factory) -> None:
    await service.ensure_running()
    await service.aclose()
    await service.aclose()
    assert [engine.stopped for engine in factory.made] == [True, True]
    assert {told["state"] for told in service.status().values()} == {"stopped"}
    with pytest.raises(EngineDead, match="stopped"):
        _ = service.chat


async def test_closing_while_it_starts(service: EngineService, factory: Factory) -> None:
    factory.hold.clear()
    waiting = asyncio.create_task(service.ensure_running())
    await until(lambda: factory.threads)
    closing = asyncio.create_task(service.aclose())
    with pytest.raises(EngineDead, match="stopping"):
        await waiting
    factory.hold.set()
    await closing
    assert [engine.stopped for engine in factory.made] == [True]


async def test_closing_what_never_started(factory: Factory) -> None:
    service = EngineService([CHAT], factory)
    await service.aclose()
    assert factory.made == []


# -- processes -----------------------------------------------------------------------------------------------------

SLEEPER = [sys.executable, "-I", "-S", "-c", "import time; print(flush=True); time.sleep(600)"]


def _sleeper() -> subprocess.Popen[bytes]:
    process = subprocess.Popen(SLEEPER, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    return process


@linux
def test_engine_processes_are_found_by_their_marks_and_killed(tmp_path: Path) -> None:
    keeper = ProcessSupervisor(str(tmp_path))
    with keeper.marking("chat-1"):
        chat = _sleeper()
    with keeper.marking("tool-1"):
        tool = _sleeper()
    other = _sleeper()
    try:
        assert keeper.processes("chat-1") == [chat.pid]
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
    from inference.engines.supervisor import ProcessSupervisor
    keeper = ProcessSupervisor(sys.argv[1])
    keeper.start()
    with keeper.marking("chat-1"):
        subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)"],
                         stdout=subprocess.DEVNULL, start_new_session=True)
    while not keeper.processes("chat-1"):
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


@linux
async def test_the_guard_kills_what_a_killed_server_leaves(tmp_path: Path) -> None:
    process, name, guard = _server(tmp_path)
    assert len(supervisor.marked(SERVER_MARK, name)) == 1
    process.kill()
    process.communicate()
    assert await until(lambda: not supervisor.marked(SERVER_MARK, name)) < 5
    await until(lambda: not _runs(guard))


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
        assert service._keeper is not None
        before = {pid: _title(pid) for pid in service._keeper.processes("chat-1")}
        os.kill(next(pid for pid, title in before.items() if "EngineCore" in title), signal.SIGKILL)
        assert await until(lambda: not service.ready) < 2
        await until(lambda: service.ready, 240)
        assert not set(before) & set(service._keeper.processes("chat-2"))
        assert service._keeper.processes("chat-1") == []
    finally:
        await service.aclose()
        assert service._keeper is not None
        assert service._keeper.processes("chat-2") == []


REAL_SERVER = """
    import asyncio, sys
    from inference.engines.base import EngineRole
    from inference.engines.service import vllm_service
    from inference.engines.spec import EngineSpec

    async def serve():
        service = vllm_service([EngineSpec(EngineRole.CHAT, sys.argv[2], 1024, max_num_seqs=2)], sys.argv[1])
        await service.ensure_running()
        print("ready", service._keeper.server, flush=True)
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

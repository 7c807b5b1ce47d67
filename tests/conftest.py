"""Fixtures of all tests, and the order of tests: each server is started once."""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests.examples import EXAMPLES
from tests.server import TINY_ENV, YapServer

# The same examples in every run, so that a change is to blame for a failure. `--hypothesis-profile=random` searches on.
hypothesis.settings.register_profile("steady", derandomize=True)
hypothesis.settings.register_profile("random", derandomize=False)
# The fast suite's: a tenth of the examples. scripts/test.sh runs all of them in the thorough suite.
hypothesis.settings.register_profile("few", derandomize=True, max_examples=EXAMPLES // 10)
hypothesis.settings.load_profile("steady")

pytest_plugins = ("tests.servers",)

# Tests run in this order: a small machine holds few servers with their engines, and the most tests come first.
_SERVERS = ("demo_server", "demo_server_sequential", "demo_chat_server", "tiny_server", "start_server")
# Suites of their own; each test belongs to the suites it is marked for, and one without a mark to the fast suite.
_SUITES = ("engine", "faults", "browser", "scripts", "quantizer", "docker")
# Fixtures that start processes, or copy the folder of one.
_PROCESSES = {"server_folder", "_redis", "own_redis", "postgres_cluster"}
_CORES = os.sched_getaffinity(0)
_last_user = pytest.StashKey[dict[str, pytest.Item]]()
_running = pytest.StashKey[dict[str, YapServer]]()


def _servers_of(item: pytest.Item) -> list[str]:
    return [name for name in _SERVERS if name in getattr(item, "fixturenames", ())]


def pytest_configure(config: pytest.Config) -> None:
    """Give each worker of the engine suite its own cores: two engines on the same cores wait for each other."""
    worker: dict[str, Any] | None = getattr(config, "workerinput", None)
    if worker is not None and os.environ.get("YAP_TEST_PINNED"):
        number = int(worker["workerid"].removeprefix("gw"))
        os.sched_setaffinity(0, sorted(_CORES)[number :: worker["workercount"]] or _CORES)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Collect without the garbage collector, which would take a third of the time: most objects stay."""
    gc.disable()
    try:
        yield
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


@pytest.fixture
def all_cores() -> Iterator[Callable[[], None]]:
    """A function that gives this process every core of the machine, also in a worker that has cores of its own.

    Call the function before each engine is started: an OpenMP runtime may bind the calling thread again.
    """
    own = os.sched_getaffinity(0)

    yield lambda: _set_affinity(_CORES)
    _set_affinity(own)


def _set_affinity(cores: set[int]) -> None:
    """Set the cores of every thread of this process, and make the next engine look at them.

    A new thread inherits the cores of the thread that starts it.
    """
    for thread in os.listdir("/proc/self/task"):
        with contextlib.suppress(ProcessLookupError):  # a thread may end meanwhile
            os.sched_setaffinity(int(thread), cores)
    if (engines := sys.modules.get("inference.engines.vllm_engine")) is not None:
        engines.this_device.cache_clear()  # an engine has probed the machine


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Iterator[None]:
    """Mark the tests that start processes; sort tests by the server they use, tests without a server come last."""
    for item in items:
        slow = {mark.name for mark in item.iter_markers()}.intersection(_SUITES)
        if not slow and _PROCESSES.intersection(getattr(item, "fixturenames", ())):
            item.add_marker("processes")
        if slow - {"scripts"}:
            # vLLM, torch and playwright leave sockets and files to the garbage collector.
            item.add_marker(pytest.mark.filterwarnings("ignore::ResourceWarning"))
            item.add_marker(pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"))
    yield
    items.sort(key=lambda item: max(map(_SERVERS.index, _servers_of(item)), default=len(_SERVERS)))
    config.stash[_last_user] = {name: item for item in items for name in _servers_of(item)}
    config.stash[_running] = {}


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Stop a server after the last test that uses it, because the next server needs its memory."""
    for name, last in item.config.stash[_last_user].items():
        if last is item and (server := item.config.stash[_running].pop(name, None)) is not None:
            server.stop()


@pytest.fixture(scope="session")
def server_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """A factory of run folders with a migrated database; the migrations run once."""
    template = tmp_path_factory.mktemp("server")
    YapServer(template).manage("migrate", "--verbosity", "0")

    def make() -> Path:
        folder = tmp_path_factory.mktemp("run")
        shutil.copytree(template, folder, dirs_exist_ok=True)
        return folder

    return make


def _serve(request: pytest.FixtureRequest, folder: Path, **variables: str) -> Iterator[YapServer]:
    server = YapServer(folder, **variables)
    assert request.fixturename is not None
    request.config.stash[_running][request.fixturename] = server
    try:
        yield server.start()
    finally:
        server.stop()


@pytest.fixture(scope="session")
def demo_server(request: pytest.FixtureRequest, server_folder: Callable[[], Path]) -> Iterator[YapServer]:
    """A server with the demo model in both engines. Its key has no message window, because all tests share the key."""
    yield from _serve(request, server_folder(), WS_MAX_MESSAGES_PER_WINDOW="0")


@pytest.fixture(scope="session")
def demo_chat_server(request: pytest.FixtureRequest, server_folder: Callable[[], Path]) -> Iterator[YapServer]:
    """A server with the demo model as chat engine alone: no tool model holds its text back, so text always streams."""
    yield from _serve(request, server_folder(), DEPLOY_MODELS="chat", TOOL_DECISION="auto", CORS_ORIGINS="*")


@pytest.fixture(scope="session")
def demo_server_sequential(request: pytest.FixtureRequest, server_folder: Callable[[], Path]) -> Iterator[YapServer]:
    """A server with the demo model in both engines and the tool decision before the reply."""
    yield from _serve(request, server_folder(), CONCURRENT_MODEL_CALL="0")


@pytest.fixture(scope="session")
def tiny_server(request: pytest.FixtureRequest, server_folder: Callable[[], Path]) -> Iterator[YapServer]:
    """A server with a tiny random model in both engines: fast, random text, up to 400 tokens per reply."""
    yield from _serve(request, server_folder(), **TINY_ENV)


StartServer = Callable[..., YapServer]


@pytest.fixture
def start_server(server_folder: Callable[[], Path]) -> Iterator[StartServer]:
    """A factory of servers on the tiny model that a test may start and stop; stops them after the test."""
    made: list[YapServer] = []

    def make(*command: str, **variables: str) -> YapServer:
        options: dict[str, Any] = {"command": command} if command else {}
        made.append(YapServer(server_folder(), **options, **{**TINY_ENV, **variables}))
        return made[-1]

    yield make
    for server in made:
        server.stop()

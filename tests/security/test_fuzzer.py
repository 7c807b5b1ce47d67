"""The fuzzer against both servers: no field of any input holds up another connection or grows the server."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from tests.security.conftest import SERVERS, StartServer
from tests.security.fuzz_cases import Case, form_cases, header_cases, message_cases
from tests.security.fuzzer import NO_WINDOWS, Fuzzer


@pytest.fixture
def fuzzer(start_fake: StartServer, request: pytest.FixtureRequest) -> Iterator[Fuzzer]:
    made = Fuzzer(start_fake(SERVER=request.param, **NO_WINDOWS))
    yield made
    made.close()


def test_the_cases_reach_every_bound() -> None:
    cases = [*message_cases(), *header_cases(), *form_cases("f", {"a": 10}, {}, 1_000)]
    assert len({(case.surface, case.field) for case in cases}) > 55
    assert sorted({case.size for case in cases if case.surface == "f"}) == [10, 11, 1_000]
    assert {128, 129, 128_000} <= {case.size for case in cases if case.field == "request_id"}


@pytest.mark.faults  # not for its engine, which is a fake: for its minutes, and its need of a quiet machine
@pytest.mark.parametrize("fuzzer", SERVERS, indirect=True)
def test_no_input_holds_up_another_connection(fuzzer: Fuzzer) -> None:
    fuzzer.run_all()
    stalled = {key: f"{row.gap * 1000:.0f} ms" for key, row in fuzzer.rows.items() if row.stalled}
    grown = {key: f"{row.growth / 1e6:.1f} MB" for key, row in fuzzer.rows.items() if row.grown}
    print(fuzzer.table())
    assert not stalled, fuzzer.table()
    assert not grown, fuzzer.table()
    assert fuzzer.server.http("/healthz")[0] == 200


@pytest.mark.parametrize("fuzzer", ["daphne"], indirect=True)
def test_the_fuzzer_sees_a_server_that_stands_still(fuzzer: Fuzzer) -> None:
    assert fuzzer.server.process is not None
    pid = fuzzer.server.process.pid

    fuzzer.noise = 0.01
    first = True

    def stall(_case: Case) -> str:
        nonlocal first
        if first:  # the unmeasured one
            first = False
            return "running"
        os.kill(pid, signal.SIGSTOP)
        threading.Timer(1.3, os.kill, (pid, signal.SIGCONT)).start()
        time.sleep(1.4)
        return "stopped"

    fuzzer.run([Case("test", "stop", 0, None)], stall)
    row = fuzzer.rows["test", "stop"]
    assert row.stalled
    assert row.gap > 1.0

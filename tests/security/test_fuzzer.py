"""The fuzzer against both servers: no field of any input holds up another connection or grows the server."""

from __future__ import annotations

import inspect
import os
import re
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from inference.openai import completions, request_tools, requests, responses_requests, sampling, tabby
from inference.protocol import decoder
from tests.security.conftest import SERVERS, StartServer
from tests.security.fuzz_cases import MESSAGES, Case, card_cases, header_cases, message_cases
from tests.security.fuzz_forms import Form
from tests.security.fuzz_openai import PATHS, openai_cases
from tests.security.fuzzer import NO_WINDOWS, PARTS, Fuzzer, chosen

EVERY = 8


@pytest.fixture
def fuzzer(start_fake: StartServer, request: pytest.FixtureRequest) -> Iterator[Fuzzer]:
    made = Fuzzer(start_fake(SERVER=request.param, **NO_WINDOWS))
    yield made
    made.close()


def test_the_cases_reach_every_bound() -> None:
    form = Form("f", "/", {"a": 10}, most=1_000)
    cases = [*message_cases(), *header_cases(), *card_cases(), *form.cases(), *openai_cases()]
    assert len({(case.surface, case.field) for case in cases}) > 250
    assert sorted({case.size for case in cases if case.surface == "f"}) == [10, 11, 1_000]
    assert {128, 129, 128_000} <= {case.size for case in cases if case.field == "request_id"}
    some = list(chosen(cases, 7))
    assert {(case.surface, case.field) for case in some} == {(case.surface, case.field) for case in cases}
    assert len(some) < len(cases) / 2


def test_every_field_of_the_protocol_is_sent() -> None:
    """A field that a decoder reads, and that no case sends, would never be tried."""
    sent = {name for fields in MESSAGES.values() for name in fields}
    read = set(re.findall(r'fields\.get\("(\w+)"\)', inspect.getsource(decoder))) - {"cancel", "end"}
    assert read <= sent, read - sent
    sent = {name.partition(" ")[0] for _, fields, _ in PATHS.values() for name in fields} | {"stream", "type"}
    for module in (requests, responses_requests, completions, tabby, request_tools, sampling):
        source = inspect.getsource(module)
        read = set(re.findall(r'(?:fields|body)\.get\("(\w+)"\)', source))
        read |= set(re.findall(r'_string\(body, "(\w+)"\)', source))
        assert read <= sent, (module.__name__, read - sent)
    assert {*sampling._MAX_TOKENS, *sampling._STOPS, *sampling._BANNED} - {"max_length"} <= sent


@pytest.mark.faults  # not for its engine, which is a fake: for its minutes, and its need of a quiet machine
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("fuzzer", SERVERS, indirect=True)
def test_no_input_holds_up_another_connection(fuzzer: Fuzzer, part: str) -> None:
    """Some of the cases; ``python -m tests.security.fuzzer`` sends all of them."""
    fuzzer.run_part(part, every=EVERY)
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

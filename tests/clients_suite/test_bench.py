"""The load test: arithmetic, loops and files."""

from __future__ import annotations

import asyncio
import json
import statistics
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loadtest.plan import Plan
from loadtest.record import TurnRecord
from loadtest.run import carry_out
from loadtest.summary import percentile, summarise
from yapclient import Persona, Server

from tests.clients_suite.conftest import Serve
from tests.clients_suite.running import KEY, run_client
from tests.clients_suite.scripted_server import Script
from tests.clients_suite.terminal_user import at_terminal

pytestmark = pytest.mark.processes


@given(st.lists(st.floats(0, 1e6), min_size=2), st.integers(1, 99))
def test_percentiles_are_those_of_the_standard_library(values: list[float], share: int) -> None:
    expected = statistics.quantiles(values, n=100, method="inclusive")[share - 1]
    assert percentile(sorted(values), share) == pytest.approx(expected)


def test_arrivals_are_poisson_at_their_rate_and_repeatable() -> None:
    plan = Plan(Server("ws://host/ws"), Persona(), sessions=4000, rate=8.0, seed=3)
    arrivals = plan.arrivals()
    gaps = [after - before for before, after in zip([0.0, *arrivals], arrivals, strict=False)]
    assert arrivals == plan.arrivals()
    assert statistics.mean(gaps) == pytest.approx(1 / 8, rel=0.1)
    assert statistics.stdev(gaps) == pytest.approx(1 / 8, rel=0.1)


def saved(path: Path) -> dict[str, Any]:
    """Write a result file."""
    result: dict[str, Any] = json.loads(path.read_bytes())
    return result


async def bench(server: str, **settings: float) -> list[TurnRecord]:
    """Run a plan and return its records."""
    records: list[TurnRecord] = []
    plan = Plan(Server(server, "right-key"), Persona("female", "calm"), **settings)  # type: ignore[arg-type]
    await carry_out(plan, records.append, lambda: None)
    return records


async def test_a_slow_server_cannot_hide_behind_its_own_slowness(serve: Serve) -> None:
    # One slot, 0.1 s per session, an arrival about every 10 ms: the last session's wait counts.
    server = await serve(Script(token_delay=0.02, reply="one two three four five"))
    records = await bench(server.url, sessions=8, rate=100.0, at_once=1)
    assert [record.outcome for record in records] == ["ok"] * 8
    waits = [record.first_token_ms for record in sorted(records, key=lambda record: record.session)]
    assert all(wait is not None for wait in waits)
    assert (waits[-1] or 0) > 500
    assert (records[-1].late_ms or 0) > 400


async def test_the_closed_loop_keeps_to_its_number(serve: Serve) -> None:
    server = await serve(Script(token_delay=0.01, reply="one two three"))
    records = await bench(server.url, sessions=9, at_once=3, turns=2)
    assert len(records) == 18
    assert server.most_open == 3
    assert len([record for record in records if record.connect_ms is not None]) == 9


async def test_interruptions_are_measured(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loadtest.session.INTERRUPT_AFTER_S", (0.01, 0.05))
    server = await serve(Script(token_delay=0.02))
    records = await bench(server.url, sessions=2, barge_in_share=1.0)
    assert sorted(record.outcome for record in records) == ["interrupted", "interrupted", "ok", "ok"]
    figures = summarise(records, 1.0)
    assert figures["times"]["interrupt_ms"]["count"] == 2
    assert figures["times"]["total_ms"]["count"] == 2
    assert [message.get("heard", 0) > 0 for message in server.starts()].count(True) == 2


async def test_refusals_and_errors_are_counted_by_code(serve: Serve) -> None:
    server = await serve(Script(full_times=2, die_after_tokens=1, die_times=1))
    figures = summarise(await bench(server.url, sessions=6, at_once=1), 2.0)
    assert figures["turns"] == {"ok": 3, "interrupted": 0, "refused": 2, "error": 1}
    assert figures["refusals"] == {"server_at_capacity": 2}
    assert figures["errors"] == {"connection_lost": 1}
    assert figures["tokens_per_s"] == figures["tokens"] / 2


async def test_files_are_written_and_compared(serve: Serve, tmp_path: Path) -> None:
    server = await serve(Script(token_delay=0.002))
    known = KEY | {"SERVER_WS_URL": "ws://127.0.0.1:1/ws"}
    old, new = (str(tmp_path / name) for name in ("old.json", "new.json"))
    runs = await asyncio.gather(
        run_client("bench", "--url", server.url, "-n", "4", "-c", "2", "--json", old, variables=known),
        run_client(
            "bench", "--url", server.url, "-n", "3", "--rate", "50", "--double-ttfb", "--json", new, variables=known
        ),
    )
    assert [(run.status, run.err) for run in runs] == [(0, ""), (0, "")]
    assert "first token, repeated" in runs[1].out
    assert "\x1b" not in runs[0].out
    result = saved(Path(old))
    assert result["summary"]["turns"]["ok"] == len(result["turns"]) == 4
    assert result["settings"]["at_once"] == 2
    assert "right-key" not in json.dumps(result)
    compared = await run_client("bench", "--compare", old, new)
    assert compared.status == 0
    assert "first token, p50 (ms)" in compared.out
    assert "%" in compared.out
    neither = await run_client("bench", "--compare", old, __file__)
    assert neither.status == 2
    assert neither.err == f"{__file__} is not a result file of this bench (bench.py --json writes one)\n"


async def test_ctrl_c_shows_what_there_is(serve: Serve, tmp_path: Path) -> None:
    server = await serve(Script(token_delay=0.005))
    where = ("--server", server.url, "--api-key", "right-key")
    async with at_terminal("bench", *where, "-n", "1000", cwd=tmp_path) as user:
        await user.sees("2/1000")
        user.presses("\x03")
        assert await user.leaves() == 130
        await user.sees("first token")
        await user.sees("turns answered")
        await user.sees("Stopped.")
        assert "Traceback" not in user.text
        assert "Warning" not in user.text

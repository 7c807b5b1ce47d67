"""Two processes as one server, under load: real servers, a real nginx, Redis and PostgreSQL, the tiny model.

    python -m tests.benchmarks.fleet [--server daphne|uvicorn] [--attempts 200] [--clients 16] [--out DIR]

Prints the figures; with `--out` they are also in `fleet.json`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import django
import pytest  # noqa: F401 - before tests.servers, which is a plugin of it

from tests.benchmarks.fleet_load import Attempts, Drained, Killed, Throughput, attempts, drained, killed, throughput
from tests.fleet import SLOTS, Fleet, fleet
from tests.servers import PostgresCluster, RedisServer

if TYPE_CHECKING:
    from tests.benchmarks.report_cost import ReportCost


@dataclass
class Figures:
    """Everything that one run measures."""

    server: str
    slots: Attempts
    own_slots: Attempts
    one: Throughput
    two: Throughput
    drained: Drained
    killed: Killed
    killed_full: Killed
    report: ReportCost


async def measure(made: Fleet, server: str, number: int, clients: int, seconds: float) -> Figures:
    """Run every scenario once. `there` is started again after its two ends."""
    from tests.benchmarks.report_cost import report_cost  # needs Django's settings

    plain, own = made.keys["plain"], made.keys["own"]
    slots = await attempts(made, [plain] * number)
    own_slots = await attempts(made, [own] * number)
    one = await throughput(made.nginx_here, plain, clients, seconds)
    two = await throughput(made.nginx, plain, clients, seconds)
    gentle = await drained(made, clients)
    await asyncio.to_thread(made.both_ready)
    some = await killed(made, clients, 0)
    await asyncio.to_thread(made.both_ready)
    full = await killed(made, clients, SLOTS - clients)
    cost = await report_cost(made.redis.url)
    return Figures(server, slots, own_slots, one, two, gentle, some, full, cost)


def lines(figures: Figures) -> list[str]:
    """Return the figures as text."""
    found = []
    for name, each in (("slots", figures.slots), ("one key's slots", figures.own_slots)):
        found.append(f"{name}: {sum(each.codes.values())} attempts in {each.seconds:.1f} s: {dict(each.codes)}, "
                     f"{each.taken} taken, free {each.free_after_s:.2f} s after the end")  # fmt: skip
    one, two = figures.one, figures.two
    found.append(f"throughput, {one.clients} clients: one process {one.tokens_a_second:.0f} tokens/s, two "
                 f"{two.tokens_a_second:.0f}, ratio {two.tokens_a_second / one.tokens_a_second:.2f}")  # fmt: skip
    gone = figures.drained
    found.append(f"drained: {gone.talkers} talkers, {gone.lost} turns lost, {gone.admitted} new connections admitted, "
                 f"refused {dict(gone.refusals)}, ended after {gone.seconds:.1f} s")  # fmt: skip
    for name, dead in (("killed", figures.killed), ("killed on a full server", figures.killed_full)):
        back = sorted(dead.back_s) or [0.0]
        found.append(f"{name}: {dead.talkers} talkers, {dead.idle} idle, {dead.closed} closed, {dead.lost} turns lost, "
                     f"next text after {statistics.median(back):.2f} s (most {back[-1]:.2f} s), slots back after "
                     f"{dead.slots_back_s:.1f} s, unlisted after {dead.unlisted_s:.1f} s")  # fmt: skip
    cost = figures.report
    found.append(f"report: {cost.bytes} bytes, {cost.cpu_us:.0f} µs of the serving loop a second; reading nine others "
                 f"{cost.others_us:.0f} µs")  # fmt: skip
    return found


def main(arguments: Sequence[str] | None = None) -> Figures:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", choices=("daphne", "uvicorn"), default="daphne")
    parser.add_argument("--attempts", type=int, default=200, help="simultaneous connection attempts")
    parser.add_argument("--clients", type=int, default=16, help=f"clients that talk, fewer than {SLOTS}")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each throughput measurement")
    parser.add_argument("--out", type=Path, help="folder for fleet.json")
    options = parser.parse_args(arguments)
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    django.setup()
    with tempfile.TemporaryDirectory(prefix="fleet-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        for each in ("redis", "postgres", "run"):
            (folder / each).mkdir()
        store, cluster = RedisServer(folder / "redis"), PostgresCluster(folder / "postgres")
        store.start()
        cluster.start()
        try:
            with fleet(folder / "run", store, cluster.new_database(), options.server) as made:
                figures = asyncio.run(measure(made, options.server, options.attempts, options.clients, options.seconds))
        finally:
            store.stop()
            cluster.stop()
    print("\n".join(lines(figures)))
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        shown: dict[str, Any] = asdict(figures)
        (options.out / "fleet.json").write_text(json.dumps(shown, indent=2))
    return figures


if __name__ == "__main__":
    main()

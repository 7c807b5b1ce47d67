"""Load test: many sessions at once or at an arrival rate, and percentiles of their times."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from console import failures, options
from loadtest import plot, report
from loadtest.plan import Plan
from loadtest.record import TurnRecord
from loadtest.run import carry_out
from loadtest.summary import FORMAT, summarise

DESCRIPTION = """Runs sessions against a server and reports percentiles. The default is a closed loop: -c sessions run
at once, and a new session starts when one ends. --rate makes an open loop: sessions arrive at random times, regardless
of the server's speed, and every time counts from the planned start of its session."""


def arguments() -> argparse.Namespace:
    """Parse the command line; exits with status 2 if an argument is wrong."""
    parser = options.parser(DESCRIPTION, server_alias="--url")
    load = parser.add_argument_group("load")
    count, seconds = options.at_least(1), options.at_least(0, float)
    load.add_argument("-n", "--sessions", type=count, default=10, metavar="N", help="sessions; default %(default)s")
    load.add_argument(
        "-c", "--at-once", type=count, metavar="C", help="sessions at once; default 2, with --rate no limit"
    )
    load.add_argument(
        "--rate", type=options.at_least(0.001, float), metavar="R", help="arriving sessions per second (Poisson)"
    )
    load.add_argument("--turns", type=count, default=1, metavar="N", help="turns per session; default %(default)s")
    load.add_argument("--think-time", type=seconds, default=0.0, metavar="SECONDS", help="mean pause between turns")
    load.add_argument(
        "--barge-in-share", type=seconds, default=0.0, metavar="SHARE", help="share of interrupted turns, 0 to 1"
    )
    load.add_argument("--double-ttfb", action="store_true", help="send every message twice (prefix cache)")
    load.add_argument("--seed", type=int, default=0, help="seed of arrivals and interruptions; default %(default)s")
    results = parser.add_argument_group("results")
    results.add_argument("--json", type=Path, metavar="FILE", help="write the figures and every turn to FILE")
    results.add_argument("--plot", type=Path, metavar="FILE.png", help="draw the figures (needs matplotlib)")
    results.add_argument("--compare", nargs=2, type=Path, metavar=("OLD", "NEW"), help="only compare two --json files")
    args = parser.parse_args()
    if args.barge_in_share > 1:
        parser.error("argument --barge-in-share: must be 0 to 1")
    for path in (args.json, args.plot):
        if path is not None and not path.absolute().parent.is_dir():
            parser.error(f"there is no folder {path.absolute().parent}")
    return args


@contextlib.contextmanager
def progress(plan: Plan) -> Iterator[Callable[[], None]]:
    """Show a progress bar on a terminal and nothing elsewhere.

    Args:
        plan: the plan whose sessions are counted.

    Yields:
        A function to call once for each session that has ended.
    """
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("sessions"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("sessions", total=plan.sessions)
        yield lambda: bar.advance(task)


async def main() -> int:
    args = arguments()
    if args.compare:
        report.compare(*args.compare)
        return 0
    if args.plot:
        plot.need_matplotlib()
    given = options.read(args)
    plan = Plan(
        given.server,
        given.persona,
        given.sampling,
        sessions=args.sessions,
        at_once=args.at_once or (None if args.rate else 2),
        rate=args.rate,
        turns=args.turns,
        think_time=args.think_time,
        barge_in_share=args.barge_in_share,
        twice=args.double_ttfb,
        timeout=given.timeout,
        seed=args.seed,
    )
    shown = ("sessions", "at_once", "rate", "turns", "think_time", "barge_in_share", "twice", "seed", "sampling")
    settings: dict[str, Any] = {"server": plan.server.url, **{name: getattr(plan, name) for name in shown}}
    records: list[TurnRecord] = []
    started = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    begun, stopped = time.perf_counter(), None
    with progress(plan) as session_ended:
        try:
            await carry_out(plan, records.append, session_ended)
        except asyncio.CancelledError as error:  # Ctrl+C: report the turns so far
            stopped = error
    wall_s = time.perf_counter() - begun
    summary = summarise(records, wall_s)
    report.show(summary, settings)
    if args.json:
        turns = [record.as_json() for record in records]
        result = {"format": FORMAT, "started": started, "settings": settings, "summary": summary, "turns": turns}
        report.save(args.json, result)
        print(f"written: {args.json}")
    if args.plot:
        plot.draw(args.plot, records, report.title(settings))
        print(f"drawn: {args.plot}")
    if stopped is not None:
        raise stopped
    if summary["turns"]["ok"] or summary["turns"]["interrupted"]:
        return 0
    print(f"No turn was answered by {plan.server}.", file=sys.stderr)
    return failures.NO_CONNECTION if summary["turns"]["refused"] else failures.FAILED


if __name__ == "__main__":
    failures.run(main)

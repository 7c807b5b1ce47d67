"""Times of tool decisions on real engines, and the cost of training beside running streams.

    python -m tests.benchmarks.tool_decisions [--lines 40] [--pairs 3] [--streams 2] [--seconds 15]

Two servers with the demo model run at once: the tool model decides in one, the trained classifier in the other. Each
line goes to both, in turns. Then one server streams without and with a training process, in pairs of equal length.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import os
import shlex
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import django

from inference.tool_classifier.evaluation import percentile
from tests.server import CHECKOUT, MANAGE, MODELS, YapServer, clean_environment
from tests.wsclient import Client, client

DEMO = str(MODELS / "SmolLM2-135M-Instruct")
LINES = CHECKOUT / "tests" / "data" / "tool_lines.csv"
KINDS = ("model", "classifier")
STORY = "Tell me a very long story about a fox, a ship and the sea."


@dataclass
class Times:
    """Milliseconds from the sent message to the decision and to the first text, by kind and answer."""

    decision: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    first_token: dict[tuple[str, str], list[float]] = field(default_factory=dict)

    def add(self, kind: str, answer: str, decision: float, first: float | None) -> None:
        self.decision.setdefault((kind, answer), []).append(decision)
        if first is not None:
            self.first_token.setdefault((kind, answer), []).append(first)

    def lines(self) -> list[str]:
        """The figures as text."""
        found = []
        for name, values in (("decision", self.decision), ("first token", self.first_token)):
            for (kind, answer), times in sorted(values.items()):
                p50, p99 = percentile(times, 50), percentile(times, 99)
                found.append(f"{name:11}  {kind:10}  {answer:3}  p50 {p50:8.1f} ms  p99 {p99:8.1f} ms  n {len(times)}")
        return found


def server(folder: Path, **variables: str) -> YapServer:
    """A server of the demo model with the demo's tool and personas."""
    settings = {"CHAT_MODEL": DEMO, "TOOL_MODEL": DEMO, "CHAT_MAX_OUT": "400", "WS_MAX_MESSAGES_PER_WINDOW": "0"}
    made = YapServer(folder, **{**settings, **variables})
    made.manage("migrate", "--verbosity", "0")
    return made


def labelled(count: int) -> list[str]:
    """Lines of the held-out part, as many that want the tool as others."""
    with LINES.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "heldout" and not row["history"]]
    wanted = [row["text"] for row in rows if row["tool"]][: count // 2]
    return [
        text for pair in zip(wanted, [row["text"] for row in rows if not row["tool"]], strict=False) for text in pair
    ]


async def decide(line: Client, text: str, session: str) -> tuple[str, float, float | None]:
    """Run one turn up to its first text, then cancel. Returns the answer and two times, milliseconds."""
    sent = time.perf_counter()
    await line.start(text, session_id=session, persona="mia", history_text="")
    answer, decision, first = "", 0.0, None
    while True:
        frame = await line.receive()
        now = (time.perf_counter() - sent) * 1000
        if frame["type"] == "toolcall":
            answer, decision = frame["status"], now
        elif frame["type"] == "token" and first is None:
            first = now
            await line.send("cancel")
        elif frame["type"] == "done":
            return answer, decision, first


async def decisions(servers: dict[str, YapServer], lines: Sequence[str]) -> Times:
    """Ask both servers every line, in turns; the first three lines are not counted."""
    times = Times()
    async with (
        client(servers["model"].ws_url, YapServer.api_key) as model,
        client(servers["classifier"].ws_url, YapServer.api_key) as classifier,
    ):
        for number, text in enumerate([*lines[:3], *lines]):
            for kind, line in (("model", model), ("classifier", classifier)):
                answer, decision, first = await decide(line, text, f"s{number}")
                if number >= 3:
                    times.add(kind, answer, decision, first)
    return times


async def stream(url: str, seconds: float, number: int) -> float:
    """The 99th percentile of the gaps between token frames, milliseconds, of turns one after another."""
    gaps: list[float] = []
    until = time.perf_counter() + seconds
    async with client(url, YapServer.api_key) as line:
        while time.perf_counter() < until:
            await line.start(STORY, session_id=f"g{number}", persona="mia", history_text="")
            last = None
            while (frame := await line.receive())["type"] != "done":
                now = time.perf_counter()
                if frame["type"] == "token":
                    if last is not None:
                        gaps.append((now - last) * 1000)
                    last = now
                    if now > until:
                        await line.send("cancel")
                        until = 0.0
    return percentile(gaps, 99)


async def streams(url: str, count: int, seconds: float) -> list[float]:
    return list(await asyncio.gather(*(stream(url, seconds, number) for number in range(count))))


@contextmanager
def training(folder: Path) -> Iterator[None]:
    """Training processes as the admin starts one, on the demo's lines, one after another until the block ends."""
    from personas.tool_services import TRAINING_PREFIX  # needs Django's settings

    command = [*TRAINING_PREFIX, *MANAGE, "train_tool", str(LINES), "--split", "train", "--output"]
    again = f"while {shlex.join([*command, str(folder / 'head.npz')])}; do :; done"
    process = subprocess.Popen(
        ["sh", "-c", again],
        cwd=CHECKOUT,
        env=clean_environment(RUN_DIR=str(folder)),
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
        if process.poll() is not None:
            raise RuntimeError("the training failed")
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)


def beside_training(url: str, folder: Path, pairs: int, count: int, seconds: float) -> list[str]:
    """Stream in pairs of without and with training, the order alternating; the figures as text."""
    asyncio.run(streams(url, count, 3.0))
    ratios, found = [], []
    for pair in range(pairs):
        measured: dict[bool, list[float]] = {}
        for trains in (pair % 2 == 1, pair % 2 == 0):
            if trains:
                with training(folder):
                    measured[True] = asyncio.run(streams(url, count, seconds))
            else:
                measured[False] = asyncio.run(streams(url, count, seconds))
        each = [on / off for on, off in zip(measured[True], measured[False], strict=True)]
        ratios += each
        shown = ", ".join(f"{off:.1f} → {on:.1f} ms" for off, on in zip(measured[False], measured[True], strict=True))
        found.append(f"p99 gap of each stream without → with training: {shown}")
    found.append(
        f"ratio        median {statistics.median(ratios):.3f}  highest {max(ratios):.3f}  streams {len(ratios)}"
    )
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=40, help="labelled lines that both servers decide; 0: none")
    parser.add_argument("--pairs", type=int, default=3, help="pairs of streaming without and with training")
    parser.add_argument("--streams", type=int, default=2, help="simultaneous streams beside the training")
    parser.add_argument("--seconds", type=float, default=15.0, help="of each half of a pair")
    options = parser.parse_args()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    django.setup()
    with tempfile.TemporaryDirectory(prefix="tool-decisions-") as name:
        kinds = KINDS if options.lines else KINDS[1:]
        servers = {kind: server(Path(name) / kind, TOOL_DECISION=kind) for kind in kinds}
        try:
            for each in servers.values():
                each.start()
            if options.lines:
                print("\n".join(asyncio.run(decisions(servers, labelled(options.lines))).lines()), flush=True)
                servers["model"].stop()
            if options.pairs:
                url = servers["classifier"].ws_url
                rows = beside_training(url, Path(name), options.pairs, options.streams, options.seconds)
                print("\n".join(rows))
        finally:
            for each in servers.values():
                each.stop()


if __name__ == "__main__":
    main()

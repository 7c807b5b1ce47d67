"""Sends every fuzz case to a server while another process pings it, and notes the longest stall and the memory.

``python -m tests.security.fuzzer daphne [messages] [openai] [admin]`` prints the table.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path

from websockets.exceptions import InvalidHandshake

from tests.operator import make_operator
from tests.security import fuzz_cases as cases
from tests.security.fuzz_cases import Case
from tests.security.fuzz_forms import FORMS, list_cases, number_cases
from tests.security.fuzz_openai import openai_cases
from tests.security.fuzz_senders import Senders
from tests.server import CHECKOUT, YapServer

MAX_GAP_S = 0.050
MAX_GROWTH = 20 * 1024 * 1024
FROZEN_S = 1.0  # a gap that no processor time explains: noise of the machine below this, a blocked server above
NOISE_FACTOR = 4  # allowance for a busy machine: this many times the worst gap of an idle server
TRIES = 3
PARTS = ("messages", "openai", "admin")
NO_WINDOWS = {
    "WS_MAX_MESSAGES_PER_WINDOW": "0", "WS_MAX_CANCELS_PER_WINDOW": "0", "CHAT_PROMPT_UPDATE_MAX_PER_WINDOW": "0",
    "YAP_TEST_NO_WINDOWS": "1",
    "MALLOC_ARENA_MAX": "2",  # one pool of memory for each thread would look like growth
}  # fmt: skip
_TICKS = os.sysconf("SC_CLK_TCK")


class Pinger:
    """A process that pings the server; its pongs as (due, arrived)."""

    def __init__(self, server: YapServer) -> None:
        command = [sys.executable, "-m", "tests.security.pinger", server.ws_url, server.api_key]
        self._process = subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True)
        self.pongs: list[tuple[float, float]] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            due, arrived = line.split()
            self.pongs.append((float(due), float(arrived)))

    def worst_gap(self, began: float, ended: float) -> float:
        """Seconds between a ping's due time and its pong, the longest of the pings due in this time."""
        until = time.monotonic() + 30
        while not self.pongs or self.pongs[-1][0] < ended:  # the pings of this time have been answered
            if self._process.poll() is not None or time.monotonic() > until:
                return float("inf")
            time.sleep(0.005)
        return max((arrived - due for due, arrived in self.pongs[-3000:] if began - 0.02 <= due <= ended), default=0.0)

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait(10)
        self._thread.join(10)
        if self._process.stdout is not None:
            self._process.stdout.close()


@dataclass(slots=True)
class Row:
    """The worst of one field: ``gap`` and ``busy`` in seconds, ``growth`` in bytes."""

    gap: float = 0.0
    busy: float = 0.0
    growth: int = 0
    sent: int = 0
    answers: set[str] = field(default_factory=set)

    allowed: float = MAX_GAP_S

    @property
    def stalled(self) -> bool:
        """Whether the server held up another connection, and not the machine the server."""
        return min(self.gap, self.busy) > self.allowed or self.gap > max(FROZEN_S, self.allowed)

    @property
    def grown(self) -> bool:
        """Whether the server kept more memory than an input may cost."""
        return self.growth > MAX_GROWTH


class Fuzzer:
    """Drives one server. ``rows`` are by (surface, field)."""

    def __init__(self, server: YapServer) -> None:
        make_operator(server)
        self.server = server
        self.senders = Senders(server)
        self.pinger = Pinger(server)
        self.rows: dict[tuple[str, str], Row] = {}
        began = time.monotonic() + 1.0
        time.sleep(4.0)
        self.noise = self.pinger.worst_gap(began, began + 3.0)

    def close(self) -> None:
        """End the pinger and the operator's session."""
        self.pinger.close()
        self.senders.close()

    def run(self, all_cases: Iterable[Case], send: Callable[[Case], str]) -> None:
        """Send each case; a stall counts when it is seen every time."""
        for number, case in enumerate(all_cases):
            if number == 0:
                send(case)  # what a first request of its kind loads is no growth
            tries = [self._measure(case, send)]
            while (tries[-1].stalled or tries[-1].grown) and len(tries) < TRIES:
                tries.append(self._measure(case, send))
            worst = self.rows.setdefault((case.surface, case.field), Row(allowed=tries[0].allowed))
            best = min(tries, key=lambda row: (row.stalled, row.gap))
            if (best.stalled, best.gap) > (worst.stalled, worst.gap):
                worst.gap, worst.busy = best.gap, best.busy
            worst.growth = max(worst.growth, min(row.growth for row in tries))
            worst.sent += 1
            worst.answers |= best.answers

    def _measure(self, case: Case, send: Callable[[Case], str]) -> Row:
        memory, busy, began = self.server.resident_bytes(), self._processor_s(), time.monotonic()
        answer = send(case)
        ended = time.monotonic()
        gap = self.pinger.worst_gap(began, ended)
        grown = self.server.resident_bytes() - memory
        return Row(gap, self._processor_s() - busy, grown, 1, {answer}, MAX_GAP_S + NOISE_FACTOR * self.noise)

    def _processor_s(self) -> float:
        assert self.server.process is not None
        fields = Path(f"/proc/{self.server.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def run_part(self, part: str, every: int = 1) -> None:
        """Send the cases of one part.

        Args:
            part: one of :data:`PARTS`.
            every: 1 sends all; n sends every n-th case and each field's largest one.
        """
        send = self.senders
        if part == "messages":
            with suppress(InvalidHandshake):
                send.message(Case("start", "warm", 0, cases.START))  # what a first turn loads is not growth
            self.run(chosen(cases.message_cases(), every), send.message)
            self.run(chosen(cases.header_cases(), every), send.header)
        elif part == "openai":
            self.run(chosen(openai_cases(), every), send.openai)
        else:
            self.run(chosen(cases.card_cases(), every), send.card)
            for form in FORMS:
                self.run(chosen(form.cases(), every), partial(send.form, form))
            self.run(chosen(list_cases(), every), send.page)
            self.run(number_cases(), send.many)

    def table(self) -> str:
        """The rows as Markdown."""
        lines = ["| surface | field | inputs | worst gap, ms | growth, MB | answers |", "|---|---|---|---|---|---|"]
        for (surface, name), row in self.rows.items():
            answers = ", ".join(sorted(row.answers))
            numbers = f"{row.sent} | {row.gap * 1000:.0f} | {row.growth / 1048576:.1f}"
            lines.append(f"| {surface} | `{name}` | {numbers} | {answers} |")
        return "\n".join(lines)


def chosen(all_cases: Iterable[Case], every: int) -> Iterator[Case]:
    """Yield every n-th case, and the largest one of each field."""
    number = 0
    for _, of_field in groupby(all_cases, key=lambda case: (case.surface, case.field)):
        largest: Case | None = None
        for case in of_field:
            number += 1
            if number % every == 0:
                yield case
            elif largest is None or case.size > largest.size:
                largest = case
        if every > 1 and largest is not None:
            yield largest


def main(kind: str, *parts: str) -> None:
    """Start a server of this kind with fake engines, fuzz these parts of it (all), print the table."""
    import tempfile

    from tests.security.conftest import fake_server

    with tempfile.TemporaryDirectory() as folder:
        server = fake_server(Path(folder), SERVER=kind, **NO_WINDOWS)
        server.manage("migrate", "--verbosity", "0")
        try:
            fuzzer = Fuzzer(server.start(60))
            try:
                for part in parts or PARTS:
                    fuzzer.run_part(part)
            finally:
                fuzzer.close()
            print(f"worst gap of the idle server: {fuzzer.noise * 1000:.0f} ms\n\n{fuzzer.table()}")
        finally:
            server.stop()


if __name__ == "__main__":
    main(*(sys.argv[1:] or ["daphne"]))

"""Sends every fuzz case to a server while another process pings it, and notes the longest stall and the memory.

``python -m tests.security.fuzzer daphne`` prints the table.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.sync.client import connect

from tests.operator import NAME, PASSWORD, make_operator
from tests.security import fuzz_cases as cases
from tests.security.fuzz_cases import Case
from tests.security.raw_socket import exchange
from tests.server import CHECKOUT, YapServer

MAX_GAP_S = 0.050
MAX_GROWTH = 20 * 1024 * 1024
FROZEN_S = 1.0  # a gap that no processor time explains: noise of the machine below this, a blocked server above
NOISE_FACTOR = 4  # allowance for a busy machine: this many times the worst gap of an idle server
TRIES = 3
NO_WINDOWS = {
    "WS_MAX_MESSAGES_PER_WINDOW": "0", "WS_MAX_CANCELS_PER_WINDOW": "0", "CHAT_PROMPT_UPDATE_MAX_PER_WINDOW": "0",
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
        self.pinger = Pinger(server)
        self.rows: dict[tuple[str, str], Row] = {}
        self.http = httpx.Client(base_url=server.origin, timeout=60)
        self.http.get("/admin/login/")
        self._post("/admin/login/", {"username": NAME, "password": PASSWORD})
        began = time.monotonic() + 1.0
        time.sleep(4.0)
        self.noise = self.pinger.worst_gap(began, began + 3.0)

    def close(self) -> None:
        """End the pinger and the operator's session."""
        self.pinger.close()
        self.http.close()

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

    # -- surfaces: each returns the kind of answer -----------------------------------------------------

    def message(self, case: Case) -> str:
        """A message on a connection of its own, behind a ``start`` where one is needed."""
        headers = {"X-API-Key": self.server.api_key}
        text = case.value if isinstance(case.value, str) else json.dumps(case.value, ensure_ascii=False)
        last = "nothing"
        url = self.server.ws_url
        with (
            suppress(ConnectionClosed),
            connect(url, additional_headers=headers, max_size=None, close_timeout=2) as line,
        ):
            if case.surface in ("chat_prompt", "followup"):
                line.send(json.dumps(cases.START))
                while json.loads(line.recv(20))["type"] != "done":
                    pass
            line.send(text)
            line.send('{"type":"ping","request_id":"last"}')
            while True:
                frame = json.loads(line.recv(20))
                if frame.get("request_id") == "last":
                    return last
                last = str(frame.get("error_code") or (last if last not in ("nothing", "token") else frame["type"]))
        return last

    def card(self, case: Case) -> str:
        """A card in the import form."""
        data = {"spec": "chara_card_v2", "data": case.value}
        file = ("card.json", json.dumps(data).encode())
        return self._post("/admin/personas/persona/import-card/", {"gender": "male", "personality": "calm"}, file)

    def key_form(self, case: Case) -> str:
        """The form of a new key. Its password is wrong: nothing is issued."""
        return self._post("/admin/accounts/apikey/add/", case.value)

    def persona_form(self, case: Case) -> str:
        """The form of a new persona."""
        return self._post("/admin/personas/persona/add/", case.value)

    def login_form(self, case: Case) -> str:
        """The login, without the operator's session."""
        with httpx.Client(base_url=self.server.origin, timeout=60) as stranger:
            stranger.get("/admin/login/")
            fields = {**case.value, "csrfmiddlewaretoken": stranger.cookies["csrftoken"]}
            return f"HTTP {stranger.post('/admin/login/', data=fields).status_code}"

    def encoded_form(self, case: Case) -> str:
        """The form of a new key, percent-encoded: the costly form of a form."""
        fields = {**case.value, "csrfmiddlewaretoken": self.http.cookies["csrftoken"]}
        return f"HTTP {self.http.post('/admin/accounts/apikey/add/', data=fields).status_code}"

    def header(self, case: Case) -> str:
        """One request with one large header, or a large path or query string."""
        path = f"/{case.value}" if case.field == "(path)" else "/status"
        query = f"?q={case.value}" if case.field == "(query)" else ""
        extra = "" if case.field.startswith("(") else f"{case.field}: {case.value}\r\n"
        host = "" if case.field == "Host" else "Host: 127.0.0.1\r\n"
        request = f"GET {path}{query} HTTP/1.1\r\n{host}{extra}Connection: close\r\n\r\n"
        answer = exchange(self.server, request.encode())
        return f"HTTP {answer.split(b' ', 2)[1].decode()}" if answer else "closed"

    def _post(self, path: str, fields: dict[str, str], file: tuple[str, bytes] | None = None) -> str:
        """A form as browsers send the admin's: multipart."""
        parts: dict[str, Any] = {name: (None, value) for name, value in fields.items()}
        parts["csrfmiddlewaretoken"] = (None, self.http.cookies["csrftoken"])
        if file is not None:
            parts["file"] = file
        try:
            answer = self.http.post(path, files=parts)
        except httpx.HTTPError as error:
            return type(error).__name__
        return f"HTTP {answer.status_code}"

    # -- all of it -------------------------------------------------------------------------------------

    def run_all(self) -> None:
        """Every case of every surface."""
        with suppress(InvalidHandshake):
            self.message(Case("start", "warm", 0, cases.START))  # what a first turn loads is not growth
        self.run(cases.message_cases(), self.message)
        card = {"name": "b", "description": "A bot."}
        self.run(cases.form_cases("card", cases.CARD, card, 3_000_000), self.card)
        key = {"name": "customer", "own_password": "wrong"}
        self.run(cases.form_cases("key form", cases.KEY_FORM, key, 2_000_000), self.key_form)
        persona = {"name": "Zoe", "slug": "zoe", "gender": "female", "personality": "calm", "output_style": "raw"}
        self.run(cases.form_cases("persona form", cases.PERSONA_FORM, persona, 2_000_000), self.persona_form)
        login = {"username": "guess", "password": "wrong"}
        encoded = {"name": "customer", "own_password": "wrong"}
        self.run(cases.form_cases("encoded form", {"note": 2_000}, encoded, 2_000_000), self.encoded_form)
        self.run(cases.form_cases("login form", cases.LOGIN_FORM, login, 2_000_000), self.login_form)
        self.run(cases.header_cases(), self.header)

    def table(self) -> str:
        """The rows as Markdown."""
        lines = ["| surface | field | inputs | worst gap, ms | growth, MB | answers |", "|---|---|---|---|---|---|"]
        for (surface, name), row in self.rows.items():
            answers = ", ".join(sorted(row.answers))
            numbers = f"{row.sent} | {row.gap * 1000:.0f} | {row.growth / 1048576:.1f}"
            lines.append(f"| {surface} | `{name}` | {numbers} | {answers} |")
        return "\n".join(lines)


def main(kind: str) -> None:
    """Start a server of this kind with fake engines, fuzz it, print the table."""
    import tempfile

    from tests.security.conftest import fake_server

    with tempfile.TemporaryDirectory() as folder:
        server = fake_server(Path(folder), SERVER=kind, **NO_WINDOWS)
        server.manage("migrate", "--verbosity", "0")
        try:
            fuzzer = Fuzzer(server.start(60))
            try:
                fuzzer.run_all()
            finally:
                fuzzer.close()
            print(f"worst gap of the idle server: {fuzzer.noise * 1000:.0f} ms\n\n{fuzzer.table()}")
        finally:
            server.stop()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "daphne")

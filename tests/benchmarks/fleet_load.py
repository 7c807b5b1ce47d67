"""What clients measure of two servers behind a balancer: exact limits, throughput, a killed and a drained process."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from websockets.exceptions import ConnectionClosed, InvalidHandshake

from tests.fleet import Fleet
from tests.nginx import Nginx
from tests.wsclient import Client, client

_RETRY_S = 0.05
_PATIENCE_S = 120.0  # for turns of all clients; processes, clients and nginx share the processors


async def until(so: Callable[[], bool], limit_s: float) -> float:
    """Return the seconds until a condition holds; the condition may block, so it runs in a thread."""
    began = time.monotonic()
    while not await asyncio.to_thread(so):
        assert time.monotonic() - began < limit_s, f"not so after {limit_s:g} s"
        await asyncio.sleep(0.02)
    return time.monotonic() - began


# -- exact limits ------------------------------------------------------------------------------------------------------


@dataclass
class Attempts:
    """How simultaneous connections were answered: code → number; ``pong`` is an admitted one."""

    codes: Counter[str]
    seconds: float
    taken: int
    """Slots in Redis while the admitted connections were open."""
    free_after_s: float
    """From the end of the connections until Redis has no slot of theirs."""


async def attempts(fleet: Fleet, keys: list[str]) -> Attempts:
    """Connect once with each key, all at the same moment, and keep what is admitted until all are answered."""
    before = await asyncio.to_thread(fleet.slots)
    async with AsyncExitStack() as held:

        async def one(key: str) -> str:
            yap = await held.enter_async_context(client(fleet.nginx.ws_url, key, ssl=fleet.nginx.tls))
            return await _first_answer(yap)

        began = time.monotonic()
        codes = Counter(await asyncio.gather(*(one(key) for key in keys)))
        seconds = time.monotonic() - began
        taken = await asyncio.to_thread(fleet.slots) - before
        ended = time.monotonic()
    await until(lambda: fleet.slots() == before, 10)
    return Attempts(codes, seconds, taken, time.monotonic() - ended)


async def _first_answer(yap: Client) -> str:
    with suppress(ConnectionClosed):  # refused: the answer has been received already
        await yap.send("ping")
    frame = await yap.receive(60)
    return str(frame.get("error_code", frame["type"]))


# -- clients that talk -------------------------------------------------------------------------------------------------


@dataclass
class Talker:
    """One client that streams turn after turn and connects again whenever its connection ends."""

    nginx: Nginx
    key: str
    turns: int = 0
    tokens: int = 0
    lost: int = 0
    """Turns that had begun and were cut, or ended without `done`."""
    refusals: Counter[str] = field(default_factory=Counter)
    """Connections that were refused."""
    not_begun: Counter[str] = field(default_factory=Counter)
    """Turns that were refused: the message crossed the end of the connection."""
    failures: Counter[str] = field(default_factory=Counter)
    """Handshakes without a WebSocket, and closed connections without an error frame."""
    back_s: list[float] = field(default_factory=list)
    """From the end of each connection to the next text."""
    connected: bool = False
    hears: bool = False
    """The running turn has sent text."""
    _ended: float | None = None
    _stop: bool = False

    @property
    def broke(self) -> bool:
        """Whether a connection ended without an error frame. Slow turns that a time limit cuts do not count."""
        return self._ended is not None or bool(self.back_s)

    async def run(self) -> None:
        """Talk until :meth:`stop`; the last turn is waited for."""
        while not self._stop:
            try:
                async with client(self.nginx.ws_url, self.key, ssl=self.nginx.tls) as yap:
                    await self._talk(yap)
            except InvalidHandshake as error:
                self.failures[f"handshake: {error}"] += 1
            except ConnectionClosed as error:
                self.failures[f"closed {error.rcvd.code if error.rcvd else 1006}"] += 1
                self._ended = self._ended or time.monotonic()
            except OSError as error:
                self.failures[type(error).__name__] += 1
            finally:
                self.connected = False
            if not self._stop:
                await asyncio.sleep(_RETRY_S)

    async def _talk(self, yap: Client) -> None:
        answer = await _first_answer(yap)
        if answer != "pong":
            self.refusals[answer] += 1
            return
        self.connected = True
        while not self._stop:
            await self._turn(yap)

    async def _turn(self, yap: Client) -> None:
        await yap.start("Hello", history_text="")
        begun = self.hears = False
        try:
            while True:
                frame = await yap.receive(60)
                begun = begun or frame["type"] == "ack"
                self.hears = self.hears or frame["type"] == "token"
                if frame["type"] == "token" and self._ended is not None:
                    self.back_s.append(time.monotonic() - self._ended)
                    self._ended = None
                if frame["type"] == "error" and "turn" not in frame:
                    self.not_begun[frame["error_code"]] += 1
                    return
                if frame["type"] == "error":
                    self.failures[frame["error_code"]] += 1
                if frame["type"] == "done" and frame.get("cancelled"):  # cut at the end of the drain
                    self.lost += 1
                    return
                if frame["type"] == "done":
                    self.turns += 1
                    self.tokens += frame["usage"]["completion_tokens"]
                    return
        except ConnectionClosed:
            self.lost += begun
            raise

    def stop(self) -> None:
        """End after the turn that runs."""
        self._stop = True


@asynccontextmanager
async def talking(nginx: Nginx, key: str, number: int) -> AsyncIterator[list[Talker]]:
    """Clients that talk meanwhile."""
    talkers = [Talker(nginx, key) for _ in range(number)]
    async with asyncio.TaskGroup() as group:
        for talker in talkers:
            group.create_task(talker.run())
        try:
            yield talkers
        finally:
            for talker in talkers:
                talker.stop()


@dataclass
class Throughput:
    """What clients got in a time."""

    clients: int
    seconds: float
    turns: int
    tokens: int
    failures: Counter[str]

    @property
    def tokens_a_second(self) -> float:
        """Tokens of complete turns per second, all clients together."""
        return self.tokens / self.seconds


async def throughput(nginx: Nginx, key: str, clients: int, seconds: float) -> Throughput:
    """Let clients talk for a time."""
    began = time.monotonic()
    async with talking(nginx, key, clients) as talkers:
        await asyncio.sleep(seconds)
    failures = sum((talker.failures + talker.refusals for talker in talkers), Counter[str]())
    return Throughput(
        clients, time.monotonic() - began, sum(t.turns for t in talkers), sum(t.tokens for t in talkers), failures
    )


# -- a process that dies, and one that drains --------------------------------------------------------------------------


@dataclass
class Killed:
    """What the end of one of two processes by SIGKILL costs on a full server."""

    talkers: int
    idle: int
    closed: int
    """Connections that broke, idle ones included."""
    lost: int
    """Turns that broke."""
    refusals: Counter[str]
    back_s: list[float]
    """Each broken talker: from the break to its next text."""
    slots_back_s: float
    """From the kill until the slots of the dead process are free."""
    unlisted_s: float
    """From the kill until the other process does not list it."""


async def killed(fleet: Fleet, talkers: int, idle: int) -> Killed:
    """Kill `there` while clients talk; ``talkers`` and ``idle`` connections are open at that moment."""
    key = fleet.keys["plain"]
    assert fleet.there.process is not None
    pid = fleet.there.process.pid
    async with AsyncExitStack() as held, talking(fleet.nginx, key, talkers) as clients:
        lines = [
            await held.enter_async_context(client(fleet.nginx.ws_url, key, ssl=fleet.nginx.tls)) for _ in range(idle)
        ]
        for line in lines:
            assert await _first_answer(line) == "pong"
        await until(lambda: all(each.turns or each.hears for each in clients), _PATIENCE_S)
        assert await asyncio.to_thread(fleet.slots) == talkers + idle
        theirs = 0

        def reported() -> bool:  # once a second, so the sum is right a second after the last connection
            nonlocal theirs
            counts: dict[int, int] = {each["pid"]: each["connections"] for each in fleet.status()["processes"]}
            theirs = counts.get(pid, 0)
            return sum(counts.values()) == talkers + idle and theirs > 0

        await until(reported, 10)
        began = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        unlisted = asyncio.create_task(until(lambda: pid not in fleet.pids(), 30))
        await until(
            lambda: sum(line.line.close_code is not None for line in lines) + sum(c.broke for c in clients) >= theirs,
            15,
        )
        broken = [line for line in lines if line.line.close_code is not None]
        expected = [each for each in clients if each.broke]
        slots_back_s = await _slots_back(fleet, began, talkers + idle - len(broken))
        await until(lambda: all(each.back_s for each in expected), _PATIENCE_S)
        unlisted_s = await unlisted
    refusals = sum((each.refusals for each in clients), Counter[str]())
    back = [seconds for each in clients for seconds in each.back_s]
    lost = sum(each.lost for each in clients)
    return Killed(talkers, idle, len(broken) + len(expected), lost, refusals, back, slots_back_s, unlisted_s)


async def _slots_back(fleet: Fleet, began: float, alive: int) -> float:
    """Seconds until a new connection is admitted and no more slots are taken than connections are open."""
    key = fleet.keys["plain"]
    while True:
        async with client(fleet.nginx_here.ws_url, key, ssl=fleet.nginx_here.tls) as yap:
            if await _first_answer(yap) == "pong" and await asyncio.to_thread(fleet.slots) <= alive + 1:
                return time.monotonic() - began
        assert time.monotonic() - began < 30, "the slots of a dead process are not free after 30 s"
        await asyncio.sleep(0.1)


@dataclass
class Drained:
    """What a SIGTERM to one of two processes costs."""

    talkers: int
    lost: int
    admitted: int
    """New connections that were admitted meanwhile."""
    refusals: Counter[str]
    """Their refusals, and those of talkers that came back."""
    seconds: float
    """From the signal to the end of the process."""


async def drained(fleet: Fleet, talkers: int) -> Drained:
    """End `there` by SIGTERM while clients talk and others connect."""
    key = fleet.keys["plain"]
    admitted = 0
    refusals: Counter[str] = Counter()
    process: Any = fleet.there.process
    async with talking(fleet.nginx, key, talkers) as clients:
        await until(lambda: all(each.turns for each in clients), _PATIENCE_S)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        while process.poll() is None:
            async with client(fleet.nginx.ws_url, key, ssl=fleet.nginx.tls) as yap:
                answer = await _first_answer(yap)
            admitted += answer == "pong"
            refusals.update([answer] if answer != "pong" else [])
            assert time.monotonic() - began < _PATIENCE_S
            await asyncio.sleep(0.02)
        seconds = time.monotonic() - began
        await asyncio.sleep(0.5)
    refusals += sum((each.refusals for each in clients), Counter[str]())
    return Drained(talkers, sum(each.lost for each in clients), admitted, refusals, seconds)

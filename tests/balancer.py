"""A tiny TCP balancer in the test's own loop, whose connections can be broken."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class Balancer:
    """Passes bytes on to one of `targets` (ports of this machine), in turn. `port` is its own.

    `accepted` counts connections, `dropped` those that :meth:`drop` broke.
    """

    def __init__(self, targets: list[int]) -> None:
        self.targets = targets
        self.port = 0
        self.accepted = 0
        self.dropped = 0
        self._next = itertools.count()
        self._pairs: dict[int, tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = {}

    @property
    def open(self) -> list[int]:
        """The numbers of the open connections, in the order of their arrival."""
        return list(self._pairs)

    def drop(self, number: int) -> None:
        """Break one connection on both sides, as a network does."""
        if (pair := self._pairs.pop(number, None)) is not None:
            self.dropped += 1
            for writer in pair:
                writer.transport.abort()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        number = self.accepted
        self.accepted += 1
        try:
            target = self.targets[next(self._next) % len(self.targets)]
            back, there = await asyncio.open_connection("127.0.0.1", target)
        except (OSError, ZeroDivisionError):
            writer.transport.abort()
            return
        self._pairs[number] = (writer, there)
        await asyncio.gather(_copy(reader, there), _copy(back, writer))
        self._pairs.pop(number, None)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def balancing(*targets: int) -> AsyncIterator[Balancer]:
    """Run a balancer until the block ends."""
    balancer = Balancer(list(targets))
    server = await asyncio.start_server(balancer.handle, "127.0.0.1", 0)
    balancer.port = server.sockets[0].getsockname()[1]
    try:
        yield balancer
    finally:
        server.close()
        for number in balancer.open:
            balancer.drop(number)

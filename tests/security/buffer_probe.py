"""Measures what a server process holds for clients that do not read: the write buffers of its connections."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import sys
from collections.abc import Iterator
from typing import Any
from weakref import WeakSet

PATH = "/test/buffers"
EVERY_S = 0.002


class BufferProbe:
    """Wraps the ASGI application: answers :data:`PATH` with the largest buffers since the last answer, in bytes.

    Each answer also gives free memory back to the system, so that what is resident is what is held.

    ``most`` is the largest buffer of one connection, ``all`` that of all together.
    """

    def __init__(self, application: Any) -> None:
        self._application = application
        self._most = self._all = 0
        self._sampling: asyncio.Task[None] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._application, name)

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Serve one connection (ASGI)."""
        if self._sampling is None:
            self._sampling = asyncio.create_task(self._sample())
        if scope["type"] != "http" or scope["path"] != PATH:
            await self._application(scope, receive, send)
            return
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        body = json.dumps({"most": self._most, "all": self._all}).encode()
        self._most = self._all = 0
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": body})

    async def _sample(self) -> None:
        while True:
            sizes = list(_buffers())
            self._most, self._all = max(self._most, *sizes, 0), max(self._all, sum(sizes))
            await asyncio.sleep(EVERY_S)


def _buffers() -> Iterator[int]:
    """Yield the bytes that wait in each connection of this process."""
    if "twisted.internet.reactor" in sys.modules:
        from twisted.internet import reactor

        for one in {*reactor.getReaders(), *reactor.getWriters()}:  # type: ignore[attr-defined, unused-ignore]
            if hasattr(one, "dataBuffer"):
                yield len(one.dataBuffer) - one.offset + one._tempDataLen
    for transport in list(_transports):
        yield transport.get_write_buffer_size()


_transports: WeakSet[Any] = WeakSet()


def install() -> None:
    """Remember the transports that uvicorn gets from now on."""
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    made = HttpToolsProtocol.connection_made

    def connection_made(self: HttpToolsProtocol, transport: Any) -> None:
        _transports.add(transport)  # a WebSocket takes it over
        made(self, transport)

    HttpToolsProtocol.connection_made = connection_made  # type: ignore[method-assign, unused-ignore]

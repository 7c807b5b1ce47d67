"""A store of copies in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class MemoryCopies:
    """A store (``inference.sealed_copies.CopyStore``) that writes at once and counts its reads.

    Attributes:
        copies: version and bytes by name; a test may change them.
        reads: how often :meth:`get` was called.
        answers: cleared, the store does not answer.
    """

    def __init__(self) -> None:
        self.copies: dict[str, tuple[int, bytes]] = {}
        self.reads = 0
        self.answers = asyncio.Event()
        self.answers.set()

    def put(self, name: str, version: int, make: Callable[[], bytes | None]) -> None:
        made = make()
        if made is not None and version >= self.copies.get(name, (0, b""))[0]:
            self.copies[name] = (version, made)

    def delete(self, name: str) -> None:
        self.copies.pop(name, None)

    async def get(self, name: str) -> tuple[int, bytes] | None:
        self.reads += 1
        await asyncio.sleep(0)
        await self.answers.wait()
        return self.copies.get(name)

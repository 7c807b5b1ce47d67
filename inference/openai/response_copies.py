"""Copies of stored responses outside this process, so that another process continues them.

A copy is written after its response has ended. Another process asks for it only where it does not know the id itself,
and waits a short time: a copy that cannot be read then is a response that is not known.
"""

from __future__ import annotations

import asyncio
import re
import zlib
from typing import Any

import orjson

from accounts.callers import Caller
from inference.openai.responses_requests import Item
from inference.openai.responses_store import StoredResponse
from inference.sealed_copies import CopyStore, SealedCopies

READ_TIMEOUT_S = 0.05
"""Longest wait for a copy; the request waits meanwhile."""
MAX_BYTES = 8 * 1024 * 1024
"""Bytes of one response before compression: more than ``MAX_CONVERSATION_CHARS`` and its items need."""
_ID = re.compile(r"resp_[0-9a-f]{32}")
_FORMAT = 1
_LEVEL = 1  # of zlib


class ResponseCopies:
    """Writes and reads the copies of responses. All calls belong to the serving loop.

    Args:
        store: holds the bytes; copies expire there.
        secret: keys for encryption and names are derived from this; processes share copies where it is the same.
    """

    def __init__(self, store: CopyStore, secret: str) -> None:
        self._copies = SealedCopies(store, secret, "response")
        self._reading: set[asyncio.Task[Any]] = set()

    def put(self, caller: Caller, response_id: str, response: StoredResponse) -> None:
        """Copy a response soon. The encoding happens in the store's thread."""
        self._copies.put(caller.identity, response_id, 1, lambda: encode(response))

    async def get(self, caller: Caller, response_id: str) -> StoredResponse | None:
        """Return the response of a copy; None where there is none, or none within :data:`READ_TIMEOUT_S`.

        Args:
            caller: the key; no other key finds the copy.
            response_id: as the client sent it.
        """
        if not _ID.fullmatch(response_id):
            return None
        # The read goes on by itself, because its own time limit tells the store's breaker that nothing answers.
        reading = asyncio.create_task(self._copies.get(caller.identity, response_id, decode), name="response copy")
        self._reading.add(reading)
        reading.add_done_callback(self._reading.discard)
        await asyncio.wait({reading}, timeout=READ_TIMEOUT_S)
        found = reading.result() if reading.done() else None
        return None if found is None else found[1]


def encode(response: StoredResponse) -> bytes:
    """Return a response as compressed JSON."""
    parts = (response.items, response.output)
    rows = [[(item.role, item.text, item.call_id, item.name) for item in part] for part in parts]
    return zlib.compress(orjson.dumps([_FORMAT, *rows]), _LEVEL)


def decode(data: bytes) -> StoredResponse:
    """Return the response of :func:`encode`'s bytes.

    Raises:
        ValueError: other bytes, or another format.
    """
    try:
        unpack = zlib.decompressobj()
        version, *parts = orjson.loads(unpack.decompress(data, MAX_BYTES))
        if not unpack.eof or version != _FORMAT:
            raise ValueError("another format")
        items, output = (tuple(Item(*fields) for fields in part) for part in parts)
    except (zlib.error, TypeError) as error:
        raise ValueError(str(error)) from error
    return StoredResponse(items, output)

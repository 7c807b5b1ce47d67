"""Records of stateless conversations: found again by their content, so that generated token ids are reused.

A client that sends its whole history with every request names no session. The record of its last request is found by a
hash of the exchanges. The prompt then repeats the ids that the engine generated, and the prefix cache covers all of
them.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from inference.prompting.conversation import Conversation
from inference.prompting.history import ExchangeText

MAX_BYTES = 128 * 1024 * 1024
"""Memory of all records together, as :func:`_size` estimates it."""
_BYTES_PER_ID = 32  # a reference in two lists, and half of the ids as objects
_BYTES_PER_CHARACTER = 2
MAX_STEPS_BACK = 16
"""A request whose last exchanges are unknown is compared with this many shorter histories."""


@dataclass(frozen=True, slots=True)
class Record:
    """One conversation after a response. Take :meth:`Conversation.copy` before a change.

    Args:
        conversation: the history with its token ids.
        exchanges: the texts of the whole history, also of exchanges that the token limit dropped.
        affinity: the key by which replicas of an engine are chosen.
    """

    conversation: Conversation
    exchanges: tuple[ExchangeText, ...]
    affinity: str


class RecordStore:
    """A bounded store of records. The record used longest ago is dropped first.

    Args:
        most: the number of records; 0 stores none.
        max_bytes: memory of all records together.
    """

    def __init__(self, most: int, max_bytes: int = MAX_BYTES) -> None:
        self._most = most
        self._max_bytes = max_bytes
        self._records: OrderedDict[Hashable, tuple[Record, int]] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._records)

    def find(self, owner: Hashable, exchanges: Sequence[ExchangeText]) -> Record | None:
        """Return the record that shares the most exchanges with a history, from its beginning; None where none does.

        Args:
            owner: the key, model and system text; records of other owners are never found.
            exchanges: the client's whole history.
        """
        if not self._records:
            return None
        chain = _chain(exchanges)
        for digest in chain[: -MAX_STEPS_BACK - 1 : -1]:
            if (found := self.get(owner, digest)) is not None:
                return found
        return None

    def keep(self, owner: Hashable, record: Record) -> None:
        """Store a record under its content."""
        chain = _chain(record.exchanges)
        if chain:
            self.put(owner, chain[-1], record)

    def get(self, owner: Hashable, name: Hashable) -> Record | None:
        """Return the record with this name (a content hash or a response's id), or None."""
        found = self._records.get((owner, name))
        if found is None:
            return None
        self._records.move_to_end((owner, name))
        return found[0]

    def put(self, owner: Hashable, name: Hashable, record: Record) -> None:
        """Store a record under a name."""
        self.drop(owner, name)
        size = _size(record)
        if self._most <= 0 or size > self._max_bytes:
            return
        self._records[owner, name] = record, size
        self._bytes += size
        while len(self._records) > self._most or self._bytes > self._max_bytes:
            _, (_, size) = self._records.popitem(last=False)
            self._bytes -= size

    def drop(self, owner: Hashable, name: Hashable) -> None:
        """Remove a record, if there is one."""
        found = self._records.pop((owner, name), None)
        if found is not None:
            self._bytes -= found[1]


def _size(record: Record) -> int:
    """Estimate the memory of a record, in bytes."""
    characters = sum(len(exchange.user or "") + len(exchange.reply) for exchange in record.exchanges)
    return _BYTES_PER_ID * record.conversation.tokens + _BYTES_PER_CHARACTER * characters


def _chain(exchanges: Sequence[ExchangeText]) -> list[bytes]:
    """Return one digest for each number of exchanges from the beginning. White space does not count."""
    digest = hashlib.blake2b(digest_size=16)
    chain: list[bytes] = []
    for exchange in exchanges:
        user, reply = exchange.key
        for text in ("-" if user is None else f"+{user}", reply):
            part = text.encode(errors="surrogatepass")
            digest.update(len(part).to_bytes(8, "big") + part)
        chain.append(digest.digest())
    return chain

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

MAX_TOKENS = 4_000_000
"""Token ids of all records together, about 32 bytes each."""
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
        max_tokens: token ids of all records together.
    """

    def __init__(self, most: int, max_tokens: int = MAX_TOKENS) -> None:
        self._most = most
        self._max_tokens = max_tokens
        self._records: OrderedDict[Hashable, tuple[Record, int]] = OrderedDict()
        self._tokens = 0

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
        size = record.conversation.tokens
        if self._most <= 0 or size > self._max_tokens:
            return
        self._records[owner, name] = record, size
        self._tokens += size
        while len(self._records) > self._most or self._tokens > self._max_tokens:
            _, (_, size) = self._records.popitem(last=False)
            self._tokens -= size

    def drop(self, owner: Hashable, name: Hashable) -> None:
        """Remove a record, if there is one."""
        found = self._records.pop((owner, name), None)
        if found is not None:
            self._tokens -= found[1]


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

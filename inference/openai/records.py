"""Records of stateless conversations: found again by their content, so that generated token ids are reused.

A client that sends its whole history with every request names no session. The record of its last request is found by a
hash of the exchanges. The prompt then repeats the ids that the engine generated, and the prefix cache covers all of
them.
"""

from __future__ import annotations

import hashlib
from collections import Counter, OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from inference.prompting.conversation import Conversation
from inference.prompting.history import ExchangeText

MAX_BYTES = 128 * 1024 * 1024
"""Memory of all records together, as :func:`_size` estimates it."""
_BYTES_PER_ID = 32  # a reference in two lists, and half of the ids as objects
_BYTES_PER_CHARACTER = 2
_CHARACTERS_OF_EXCHANGE = 64  # about what the objects themselves need
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


@dataclass(frozen=True, slots=True)
class RecordOwner:
    """Whose records are found for a request.

    Args:
        key: the API key. The key whose records take most memory loses records first.
        model: the model's id.
        prompt: hash of what stands before the history, and of what else must be equal (:func:`prompt_hash`).
    """

    key: str
    model: str
    prompt: bytes


def prompt_hash(*parts: object) -> bytes:
    """Return a hash of these values: a system text may be long, and each record would hold a copy."""
    return hashlib.blake2b(repr(parts).encode(errors="surrogatepass"), digest_size=16).digest()


class RecordStore:
    """A bounded store of records. Of the key with most memory, the record used longest ago is dropped first.

    Args:
        most: the number of records; 0 stores none.
        max_bytes: memory of all records together.
    """

    def __init__(self, most: int, max_bytes: int = MAX_BYTES) -> None:
        self._most = most
        self._max_bytes = max_bytes
        self._records: dict[str, OrderedDict[Hashable, tuple[Record, int]]] = {}  # by key
        self._bytes_of: Counter[str] = Counter()  # by key
        self._bytes = 0
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def find(self, owner: RecordOwner, exchanges: Sequence[ExchangeText]) -> Record | None:
        """Return the record that shares the most exchanges with a history, from its beginning; None where none does.

        Args:
            owner: the key, model and system text; records of other owners are never found.
            exchanges: the client's whole history.
        """
        if owner.key not in self._records:
            return None
        chain = _chain(exchanges)
        for digest in chain[: -MAX_STEPS_BACK - 1 : -1]:
            if (found := self._get(owner, digest)) is not None:
                return found
        return None

    def keep(self, owner: RecordOwner, record: Record) -> None:
        """Store a record under its content."""
        chain = _chain(record.exchanges)
        if chain:
            self._put(owner, chain[-1], record)

    def _get(self, owner: RecordOwner, digest: bytes) -> Record | None:
        records = self._records.get(owner.key)
        found = records.get((owner, digest)) if records is not None else None
        if records is None or found is None:
            return None
        records.move_to_end((owner, digest))
        return found[0]

    def _put(self, owner: RecordOwner, digest: bytes, record: Record) -> None:
        self._drop(owner.key, (owner, digest))
        size = _size(record)
        if self._most <= 0 or size > self._max_bytes:
            return
        self._records.setdefault(owner.key, OrderedDict())[owner, digest] = record, size
        self._bytes_of[owner.key] += size
        self._bytes += size
        self._count += 1
        while self._count > self._most or self._bytes > self._max_bytes:
            largest = max(self._bytes_of, key=self._bytes_of.__getitem__)
            self._drop(largest, next(iter(self._records[largest])))

    def _drop(self, key: str, name: Hashable) -> None:
        """Remove a record, if there is one."""
        records = self._records.get(key)
        found = records.pop(name, None) if records is not None else None
        if found is None:
            return
        self._bytes -= found[1]
        self._bytes_of[key] -= found[1]
        self._count -= 1
        if not self._records[key]:
            del self._records[key], self._bytes_of[key]


def _size(record: Record) -> int:
    """Estimate the memory of a record, in bytes."""
    characters = sum(len(exchange.user or "") + len(exchange.reply) for exchange in record.exchanges)
    characters += _CHARACTERS_OF_EXCHANGE * len(record.exchanges)
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

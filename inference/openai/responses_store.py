"""Finished responses by id, for ``previous_response_id``: bounded in number, in memory and in time.

A stored response holds its conversation as items. A request that continues the response becomes a request with the
whole conversation, as a client without a store sends it, and the records of token ids are found by its content. Stored
items never change, so two requests that continue the same response do not mix.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

from accounts.callers import Caller
from inference.openai.responses_requests import Item

MAX_AGE_S = 3600.0
"""A response can be continued for this long (seconds): as long as a connection lives."""
MAX_CONVERSATION_CHARS = 256 * 1024
"""Characters of one stored conversation. Older items are left out: no context holds more."""
_ITEM_CHARS = 64  # about what the object itself needs


def owner_of(caller: Caller) -> str:
    """Return the name under which a key's responses are stored."""
    return f"{caller.prefix}:{caller.key_id or 0}"


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """The conversation up to one response.

    Args:
        items: the input, without ``instructions``, which hold for one response alone.
        output: the reply, or the calls of functions.
    """

    items: tuple[Item, ...]
    output: tuple[Item, ...]

    def continued(self, new: Sequence[Item]) -> tuple[Item, ...]:
        """Return the whole conversation with new input.

        A client that knows how much of the reply was heard sends the heard text as the first new message; the text
        replaces the stored reply. A call that the client repeats is taken once.
        """
        output, first = self.output, 0
        if new and new[0].role == "assistant":
            output = tuple(item for item in output if item.role != "assistant")
        known = {item.call_id for item in output if item.role == "call"}
        while first < len(new) and new[first].role == "call" and new[first].call_id in known:
            first += 1
        return (*self.items, *output, *new[first:])


@dataclass(frozen=True, slots=True)
class _Entry:
    response: StoredResponse
    characters: int
    stored_at: float


class ResponseStore:
    """Stored responses of several owners. An owner sees its own alone; the largest owner loses its oldest first.

    Args:
        max_responses: responses of all owners.
        max_characters: characters of all owners.
        clock: returns seconds.
    """

    def __init__(self, max_responses: int, max_characters: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_responses = max_responses
        self._max_characters = max_characters
        self._clock = clock
        self._owners: dict[str, OrderedDict[str, _Entry]] = {}
        self._characters: dict[str, int] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def characters(self) -> int:
        """Characters of all stored conversations; text that two responses share counts twice."""
        return sum(self._characters.values())

    def get(self, owner: str, response_id: str) -> StoredResponse | None:
        """Return a response of this owner; None where it is unknown, too old, or was displaced."""
        entries = self._owners.get(owner)
        entry = entries.get(response_id) if entries else None
        if entries is None or entry is None:
            return None
        if self._clock() - entry.stored_at > MAX_AGE_S:
            self._remove(owner, response_id)
            return None
        entries.move_to_end(response_id)
        return entry.response

    def put(self, owner: str, response_id: str, response: StoredResponse) -> StoredResponse:
        """Store a response; old responses make room. Returns the response as it is stored."""
        response, characters = _bounded(response)
        self._owners.setdefault(owner, OrderedDict())[response_id] = _Entry(response, characters, self._clock())
        self._characters[owner] = self._characters.get(owner, 0) + characters
        self._count += 1
        self._remove_expired(owner)
        while self._count > self._max_responses or self.characters > self._max_characters:
            largest = max(self._characters, key=self._characters.__getitem__)
            if self._count > self._max_responses:
                largest = max(self._owners, key=lambda name: len(self._owners[name]))
            self._remove(largest, next(iter(self._owners[largest])))
        return response

    def _remove_expired(self, owner: str) -> None:
        oldest = self._clock() - MAX_AGE_S
        first = list(islice(self._owners[owner].items(), 2))  # two at a time: the store shrinks, no call is long
        for name, entry in first:
            if entry.stored_at < oldest:
                self._remove(owner, name)

    def _remove(self, owner: str, response_id: str) -> None:
        entry = self._owners[owner].pop(response_id)
        self._characters[owner] -= entry.characters
        self._count -= 1
        if not self._owners[owner]:
            del self._owners[owner], self._characters[owner]


def _bounded(response: StoredResponse) -> tuple[StoredResponse, int]:
    """Return the response without its oldest items beyond the limit, and its length in characters.

    System texts at the beginning stay: they are the persona.
    """
    items = response.items
    sizes = [_characters(item) for item in items]
    total = sum(sizes) + sum(map(_characters, response.output))
    if total <= MAX_CONVERSATION_CHARS:
        return response, total
    start = next((number for number, item in enumerate(items) if item.role != "system"), len(items))
    dropped = start
    while total > MAX_CONVERSATION_CHARS and dropped < len(items):
        total -= sizes[dropped]
        dropped += 1
    return StoredResponse((*items[:start], *items[dropped:]), response.output), total


def _characters(item: Item) -> int:
    return _ITEM_CHARS + len(item.text) + len(item.call_id) + len(item.name)

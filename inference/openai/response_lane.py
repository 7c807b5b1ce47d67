"""The order of one connection's responses: one runs, the others wait in the order of their requests.

Events of a response do not name it, so two responses of a connection never run at once.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from typing import Generic, TypeVar

Waiting = TypeVar("Waiting")

MAX_IN_FLIGHT = 16
"""Requests of one connection that run or wait; OpenAI's limit."""
MAX_WAITING_CHARS = 4 * 1024 * 1024
"""Characters of one connection's requests that wait."""
MAX_WAITING_CHARS_OF_KEY = 16 * 1024 * 1024
"""Characters of the requests that wait on all connections of one key."""


class WaitingCharacters:
    """Characters that wait, by key. A connection's lane counts with those of the key's other connections."""

    def __init__(self) -> None:
        self._of: Counter[str] = Counter()

    def add(self, key: str, characters: int) -> bool:
        """Count more characters; False, and nothing counted, where too many wait."""
        if self._of[key] + characters > MAX_WAITING_CHARS_OF_KEY:
            return False
        self._of[key] += characters
        return True

    def remove(self, key: str, characters: int) -> None:
        """Undo :meth:`add`."""
        self._of[key] -= characters
        if self._of[key] <= 0:
            del self._of[key]


@dataclass(slots=True)
class _Running:
    response_id: str | None = None
    cancelled: bool = False


class ResponseLane(Generic[Waiting]):
    """The state of one lane, without sockets and tasks.

    Args:
        waiting: what waits in all lanes; None: in this one alone.
        key: whose lane this is.

    Example: ``push(a)`` → ``take()`` returns a; ``started("resp_1")``; ``push(b)`` waits; ``cancel("resp_1")`` is True;
    ``finished()``; ``take()`` returns b.
    """

    def __init__(self, waiting: WaitingCharacters | None = None, key: str = "") -> None:
        self._all = WaitingCharacters() if waiting is None else waiting
        self._key = key
        self._waiting: deque[tuple[Waiting, int]] = deque()
        self._waiting_characters = 0
        self._running: _Running | None = None

    def __len__(self) -> int:
        return len(self._waiting) + (self._running is not None)

    def push(self, request: Waiting, characters: int) -> bool:
        """Queue a request. Returns False, and queues nothing, where too many requests wait.

        Args:
            request: any object.
            characters: the length of the request.
        """
        too_long = bool(self._waiting) and self._waiting_characters + characters > MAX_WAITING_CHARS
        if len(self) >= MAX_IN_FLIGHT or too_long or not self._all.add(self._key, characters):
            return False
        self._waiting.append((request, characters))
        self._waiting_characters += characters
        return True

    def take(self) -> Waiting | None:
        """Return the next request, which runs from now on; None where one runs already or none waits."""
        if self._running is not None or not self._waiting:
            return None
        request, characters = self._waiting.popleft()
        self._waiting_characters -= characters
        self._all.remove(self._key, characters)
        self._running = _Running()
        return request

    def clear(self) -> None:
        """Drop the requests that wait: the connection is gone."""
        self._all.remove(self._key, self._waiting_characters)
        self._waiting.clear()
        self._waiting_characters = 0

    def started(self, response_id: str) -> bool:
        """Name the running response. Returns False where the client has cancelled it in the meantime."""
        assert self._running is not None
        self._running.response_id = response_id
        return not self._running.cancelled

    def cancel(self, response_id: str | None) -> bool:
        """Cancel the running response. Returns whether it has to be stopped.

        A cancellation that comes too late names a response that has ended: it is ignored. Without a name, the response
        that runs now is meant, also before it has a name.
        """
        running = self._running
        if running is None or (response_id is not None and response_id != running.response_id):
            return False
        running.cancelled = True
        return running.response_id is not None

    def finished(self) -> None:
        """The running response has ended, or was refused."""
        self._running = None

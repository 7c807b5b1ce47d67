"""Remembers whether PostgreSQL or Redis answers, so that one caller finds out and the others do not wait."""

from __future__ import annotations

import logging
import time

logger = logging.getLogger("yap.dependency")

RETRY_S = 1.0
"""Seconds between two questions to a dependency that does not answer."""


class DependencyAway(Exception):
    """A dependency does not answer. The caller goes on with what this process holds, or refuses."""

    def __init__(self, name: str, retry_in: int = 1) -> None:
        super().__init__(f"{name} does not answer")
        self.name = name
        self.retry_in = retry_in
        """Whole seconds after which another attempt makes sense."""


class Breaker:
    """State of one dependency in one process. All methods belong to the serving loop.

    While it is open, :meth:`check` raises at once. One background task, not a client's request, asks again every
    :data:`RETRY_S` seconds and calls :meth:`answered`. Each change of state is one line in the log.

    Args:
        name: The dependency, as logs and ``/readyz`` name it: ``database``, ``redis``.
        consequence: What the process does meanwhile, for the log.
    """

    def __init__(self, name: str, consequence: str) -> None:
        self.name = name
        self._consequence = consequence
        self._since: float | None = None

    @property
    def away(self) -> bool:
        """Whether the last question got no answer."""
        return self._since is not None

    @property
    def away_s(self) -> float:
        """Seconds since the first question without an answer; 0 where the last one was answered."""
        return 0.0 if self._since is None else time.monotonic() - self._since

    def check(self) -> None:
        """Raise :class:`DependencyAway` while the dependency does not answer."""
        if self._since is not None:
            raise DependencyAway(self.name)

    def failed(self, error: BaseException | str) -> DependencyAway:
        """Open the breaker.

        Args:
            error: Why; its first line is logged.

        Returns:
            The exception for the caller to raise.
        """
        if self._since is None:
            self._since = time.monotonic()
            reason = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
            line = next(iter(reason.strip().splitlines()), "")
            logger.error("%s does not answer (%s): %s", self.name, line.rstrip(": "), self._consequence)
        return DependencyAway(self.name)

    def answered(self) -> None:
        """Close the breaker."""
        if self._since is not None:
            logger.warning("%s answers again after %.1f s", self.name, time.monotonic() - self._since)
            self._since = None

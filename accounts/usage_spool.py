"""A file for usage that cannot be written when the process ends; the next start writes it to the database."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import uuid
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from accounts.token_budget import UnsharedTokens
from accounts.usage import UsageBatch, UsageKey, UsageSum

log = logging.getLogger(__name__)

RESERVED_BYTES = 256 * 1024
"""Set aside at the start, so that the file can also be written when the disk is full (about 1,000 rows)."""
_PATTERN = "usage-*.spool"


@dataclass(slots=True)
class Unwritten:
    """What a process could not hand over: usage for the database, token counts for Redis."""

    batches: list[UsageBatch] = field(default_factory=list)
    tokens: list[UnsharedTokens] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.batches or self.tokens)

    def __str__(self) -> str:
        turns, tokens = (sum(getattr(batch, name) for batch in self.batches) for name in ("turns", "tokens"))
        return f"{turns} turns ({tokens} tokens)"


class UsageSpool:
    """The file of one process, readable by its owner only, and the files that ended processes have left.

    A process holds a lock on its file; a file without a lock belongs to a process that has ended.

    Args:
        folder: Where the files are: ``RUN_DIR``.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / f"usage-{uuid.uuid4().hex}.spool"
        self._descriptor: int | None = None
        self._taken: list[tuple[Path, int]] = []

    def open(self) -> Unwritten:
        """Make this process's file, and read what ended processes have left. Raises ``OSError``."""
        found = Unwritten()
        for path in sorted(self._folder.glob(_PATTERN)):
            with suppress(OSError):  # another process reads it, or has removed it
                descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    left = _decoded(path.read_bytes())
                except (OSError, ValueError, KeyError, TypeError) as error:
                    os.close(descriptor)
                    if not isinstance(error, BlockingIOError):
                        log.error("%s cannot be read and is left alone: %s", path, error)
                    continue
                self._taken.append((path, descriptor))
                found.batches += left.batches
                found.tokens += left.tokens
        if not found:
            self.forget_taken()
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        with suppress(OSError):  # a full disk, or a file system that cannot: then it is tried at the end
            os.posix_fallocate(self._descriptor, 0, RESERVED_BYTES)
        return found

    def forget_taken(self) -> None:
        """Remove the files that :meth:`open` has read: everything in them is written."""
        for path, descriptor in self._taken:
            path.unlink(missing_ok=True)
            os.close(descriptor)
        self._taken.clear()

    def save(self, unwritten: Unwritten) -> Path:
        """Keep this for the next start.

        Returns:
            The file.

        Raises:
            OSError: It cannot be written.
        """
        if self._descriptor is None:
            raise OSError("there is no file for it")
        content = _encoded(unwritten)
        written = 0
        while written < len(content):
            written += os.pwrite(self._descriptor, content[written:], written)
        os.ftruncate(self._descriptor, len(content))
        os.fsync(self._descriptor)
        os.close(self._descriptor)
        self._descriptor = None
        return self._path

    def close(self) -> None:
        """Remove this process's file: nothing is left to keep. What :meth:`open` has read stays, unless forgotten."""
        for _, descriptor in self._taken:
            os.close(descriptor)
        self._taken.clear()
        if self._descriptor is not None:
            self._path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = None


def _encoded(unwritten: Unwritten) -> bytes:
    batches = [
        {
            "writer": batch.writer,
            "number": batch.number,
            "sums": [[*key, each.counts, each.errors, each.ttft] for key, each in batch.sums.items()],
            "last_used": list(batch.last_used.items()),
        }
        for batch in unwritten.batches
    ]
    return json.dumps({"batches": batches, "tokens": [asdict(one) for one in unwritten.tokens]}).encode()


def _decoded(content: bytes) -> Unwritten:
    content = content.rstrip(b"\0")
    if not content:
        return Unwritten()  # the process was killed, or had written everything
    told: dict[str, Any] = json.loads(content)
    return Unwritten(
        [
            UsageBatch(
                batch["writer"], int(batch["number"]), _sums(batch["sums"]), {int(k): v for k, v in batch["last_used"]}
            )
            for batch in told["batches"]
        ],
        [UnsharedTokens(**one) for one in told["tokens"]],
    )


def _sums(rows: Sequence[Sequence[Any]]) -> dict[UsageKey, UsageSum]:
    return {
        UsageKey(minute, prefix, persona): UsageSum(Counter(counts), Counter(errors), list(ttft))
        for minute, prefix, persona, counts, errors, ttft in rows
    }

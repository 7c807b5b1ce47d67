"""The server's log: one file of its owner's alone, written in a thread, rotated in place, without secrets."""

from __future__ import annotations

import atexit
import copy
import logging
import os
import shutil
import time
from collections.abc import Iterable
from io import TextIOWrapper
from logging.handlers import QueueHandler, QueueListener, RotatingFileHandler
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from pydantic import SecretStr

from yapserver.redaction import Redactor

MAX_BYTES = 100 * 1024 * 1024
BAD_HOST_EVERY_S = 60.0
_FORMATTER = logging.Formatter()


def logging_config(log_file: Path | None, secrets: Iterable[SecretStr | None]) -> dict[str, Any]:
    """Django's ``LOGGING``.

    Args:
        log_file: The file to write; None logs to standard error.
        secrets: Values that must not appear in any line.
    """
    target: dict[str, Any] = (
        {"()": "yapserver.logs.FileHandler", "filename": str(log_file)}
        if log_file
        else {"class": "logging.StreamHandler"}
    )
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"format": "{asctime} {levelname:<7} {name} {message}", "style": "{"}},
        "filters": {
            "keys": {"()": "yapserver.logs.RedactSecrets", "secrets": [secret for secret in secrets if secret]},
            "unready": {"()": "yapserver.logs.ExpectedUnready"},
            "bad_host": {"()": "yapserver.logs.OneLineAMinute"},
        },
        "handlers": {"log": {**target, "formatter": "line", "filters": ["keys"]}},
        "root": {"handlers": ["log"], "level": "INFO"},
        "loggers": {
            "django": {"level": "INFO", "propagate": True, "handlers": []},
            "django.request": {"filters": ["unready"]},
            "django.security.DisallowedHost": {"filters": ["bad_host"]},
            "django.server": {"level": "INFO", "propagate": True, "handlers": []},
            "daphne": {"level": "INFO"},
            # It logs a traceback every second while Redis is away, which yap.dependency says once.
            "channels_redis": {"level": "CRITICAL"},
            "httpx": {"level": "WARNING"},
            "transformers": {"level": "WARNING"},
        },
    }


class RedactSecrets(logging.Filter):
    """Replaces secrets in a record: in its message, its arguments and its traceback.

    Access logs of any ASGI server carry the request line, and a key may be in its query string.

    Args:
        secrets: Values to replace, beside everything that has the form of a key.
    """

    def __init__(self, secrets: Iterable[SecretStr] = ()) -> None:
        super().__init__()
        self._redact = Redactor(secret.get_secret_value() for secret in secrets)

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        clean = self._redact(message)
        if clean != message:
            record.msg, record.args = clean, ()
        if record.exc_info and not record.exc_text:
            record.exc_text = self._redact(_FORMATTER.formatException(record.exc_info))  # formatters use it as it is
        return True


class ExpectedUnready(logging.Filter):
    """Drops the records of 503 answers: probes ask ``/readyz`` once a second while the engines start."""

    def filter(self, record: logging.LogRecord) -> bool:
        return getattr(record, "status_code", None) != 503


class OneLineAMinute(logging.Filter):
    """Passes one record a minute, without its traceback: anybody can send a wrong ``Host`` header at any rate."""

    def __init__(self) -> None:
        super().__init__()
        self._next = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + BAD_HOST_EVERY_S
        record.exc_info, record.exc_text = None, None
        record.levelno, record.levelname = logging.WARNING, "WARNING"
        return True


class CopyTruncateHandler(RotatingFileHandler):
    """Rotates by copying and truncating, because engine processes hold the same file open as their stdout.

    The file and its copies are readable and writable by their owner alone.
    """

    def __init__(self, filename: str, max_bytes: int = MAX_BYTES, keep: int = 3) -> None:
        super().__init__(filename, mode="a", maxBytes=max_bytes, backupCount=keep, encoding="utf-8")

    def _open(self) -> TextIOWrapper:
        return open(  # type: ignore[return-value]
            self.baseFilename, self.mode, encoding=self.encoding, errors=self.errors, opener=_owner_only
        )

    def rotate(self, source: str, dest: str) -> None:
        """Copy ``source`` over ``dest`` and empty ``source`` in place; the base class renames older copies."""
        with open(source, "rb") as old, open(dest, "wb", opener=_owner_only) as new:
            shutil.copyfileobj(old, new, 1024 * 1024)
        os.truncate(source, 0)


class FileHandler(QueueHandler):
    """Writes the log file in a thread: a disk that is slow, or a rotation, does not hold up the serving loop.

    A closed handler opens again with the next record. ``logging.config.dictConfig`` closes every handler of the process
    and drops them from those that ``logging.shutdown`` closes; vLLM calls the function when it is imported.
    """

    def __init__(self, filename: str) -> None:
        super().__init__(SimpleQueue())
        self._target = CopyTruncateHandler(filename)
        self._listener = QueueListener(self.queue, self._target)
        self._listener.start()
        atexit.register(self.close)

    def enqueue(self, record: logging.LogRecord) -> None:
        """Queue a record; start the thread where a library has closed the handler."""
        if self._listener._thread is None:
            self._listener.start()
        super().enqueue(record)

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """The record with its final text; formatting happens on the caller's thread, writing on the other."""
        record = copy.copy(record)
        record.msg = record.message = self.format(record)
        record.args = record.exc_info = record.exc_text = record.stack_info = None
        return record

    def close(self) -> None:
        """Write what is queued, then close the file. Called at exit, and by libraries that configure logging."""
        if self._listener._thread is not None:
            self._listener.stop()
        self._target.close()
        super().close()


def _owner_only(name: str, flags: int) -> int:
    return os.open(name, flags, 0o600)

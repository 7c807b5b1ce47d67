"""The operator's log: one file, rotated by copy and truncate, and no key in any line of it."""

from __future__ import annotations

import logging
import re
import shutil
from logging.handlers import RotatingFileHandler
from pathlib import Path

MAX_BYTES = 100 * 1024 * 1024
_BEFORE_KEY = r"api_key=|yap\.key\.|x-api-key['\"]?\s*[:,]\s*(?:b?['\"])?|bearer\s+"
_KEY_IN_TEXT = re.compile(rf"({_BEFORE_KEY})[^\s&\"'#,;]+", re.IGNORECASE)
_FORMATTER = logging.Formatter()


def redact(text: str) -> str:
    """``text`` with every API key in it (query string, subprotocol, header) replaced by ``…``."""
    return _KEY_IN_TEXT.sub(r"\1…", text)


class RedactKeys(logging.Filter):
    """Access logs of any ASGI server carry the request line, and a key may be in its query string."""

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        clean = redact(message)
        if clean != message:
            record.msg, record.args = clean, ()
        if record.exc_info and not record.exc_text:
            record.exc_text = redact(_FORMATTER.formatException(record.exc_info))  # formatters take this as it is
        return True


class ExpectedUnready(logging.Filter):
    """``/readyz`` answers 503 once a second while the engines start: no error, and no line in the log."""

    def filter(self, record: logging.LogRecord) -> bool:
        return getattr(record, "status_code", None) != 503


class CopyTruncateHandler(RotatingFileHandler):
    """Rotates by copying and truncating, because the engine processes hold the same file open as their stdout."""

    def __init__(self, filename: str, max_bytes: int = MAX_BYTES, keep: int = 3) -> None:
        super().__init__(filename, mode="a", maxBytes=max_bytes, backupCount=keep, encoding="utf-8")

    def rotate(self, source: str, dest: str) -> None:
        """Copy ``source`` over ``dest`` and empty ``source`` in place; older numbers are plainly renamed."""
        if source != self.baseFilename:
            Path(source).rename(dest)
            return
        shutil.copyfile(source, dest)
        with Path(source).open("r+") as file:
            file.truncate(0)

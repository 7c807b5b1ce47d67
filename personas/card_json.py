"""JSON from strangers: parsed within bounds on size, depth and count, and only what a database can store."""

from __future__ import annotations

import json
from typing import Any

MAX_JSON_BYTES = 3 * 2**20
_MAX_DEPTH = 40
_MAX_VALUES = 200_000
_MAX_NUMBER = 2**63


def load(data: bytes) -> dict[str, Any]:
    """One JSON object. Raises :class:`ValueError` with a reason for anything else."""
    if len(data) > MAX_JSON_BYTES:
        raise ValueError(f"the card's text is larger than {MAX_JSON_BYTES // 2**20} MiB")
    try:
        document = json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise ValueError("the card is not UTF-8 text") from None
    except RecursionError:
        raise ValueError("the card is nested too deeply") from None
    except ValueError:  # a JSONDecodeError, or a number of too many digits
        raise ValueError("the card is not JSON") from None
    if not isinstance(document, dict):
        raise ValueError("the card is not a JSON object")
    _check(document)
    return document


def is_text(value: str) -> bool:
    """Whether a database and a socket can carry it: no NUL, no lone surrogate."""
    return not any(character == "\0" or "\ud800" <= character <= "\udfff" for character in value)


def _check(document: dict[str, Any]) -> None:
    level: list[Any] = [document]
    values = 0
    for _ in range(_MAX_DEPTH):
        values += len(level)
        if values > _MAX_VALUES:
            raise ValueError("the card holds too many values")
        deeper: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                deeper += value.keys()
                deeper += value.values()
            elif isinstance(value, list):
                deeper += value
            elif isinstance(value, str) and not is_text(value):
                raise ValueError("the card contains characters that are not text")
            elif isinstance(value, int | float) and not abs(value) < _MAX_NUMBER:
                raise ValueError("the card contains a number out of range")
        if not deeper:
            return
        level = deeper
    raise ValueError("the card is nested too deeply")

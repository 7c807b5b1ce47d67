"""JSON of imported files, parsed within bounds on size, depth, count and numbers, and repaired to storable text."""

from __future__ import annotations

import json
import re
from typing import Any

MAX_JSON_BYTES = 3 * 2**20
REPLACEMENT = "\ufffd"
_MAX_DEPTH = 40
_MAX_VALUES = 200_000
_MAX_NUMBER = 2**63
_NOT_TEXT = re.compile("[\0\ud800-\udfff]")  # a database or a socket cannot carry NUL and lone surrogates


def load(data: bytes) -> dict[str, Any]:
    """Return the JSON object in a file, with U+FFFD in place of NUL and lone surrogates.

    Raises:
        ValueError: With a reason that names the place, for anything but one JSON object within bounds.
    """
    if len(data) > MAX_JSON_BYTES:
        raise ValueError(f"the card's text is larger than {MAX_JSON_BYTES // 2**20} MiB")
    try:
        document = json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ValueError(f"the card is not UTF-8 text (byte {error.start})") from None
    except RecursionError:
        raise ValueError("the card is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"the card is not JSON ({error.msg}, line {error.lineno}, column {error.colno})") from None
    except ValueError:  # a number of too many digits
        raise ValueError("the card is not JSON (a number has too many digits)") from None
    if not isinstance(document, dict):
        raise ValueError("the card is not a JSON object")
    _check(document)
    repaired: dict[str, Any] = _repaired(document)
    return repaired


def _check(document: dict[str, Any]) -> None:
    """Raise ``ValueError`` where the document is too deep, too large, or has a number that JSON columns cannot hold."""
    level: list[tuple[str, Any]] = [("", document)]
    values = 0
    for _ in range(_MAX_DEPTH):
        values += len(level)
        if values > _MAX_VALUES:
            raise ValueError("the card holds too many values")
        deeper: list[tuple[str, Any]] = []
        for place, value in level:
            if isinstance(value, dict):
                values += len(value)
                deeper += ((f"{place[:100]}.{key[:40]}", each) for key, each in value.items())
            elif isinstance(value, list):
                deeper += ((place, each) for each in value)
            elif isinstance(value, int | float) and not abs(value) < _MAX_NUMBER:
                raise ValueError(f"the card contains a number out of range ({place[1:]!a})")
        if not deeper:
            return
        level = deeper
    raise ValueError("the card is nested too deeply")


def _repaired(value: Any) -> Any:
    if isinstance(value, str):
        return _NOT_TEXT.sub(REPLACEMENT, value)
    if isinstance(value, list):
        return [_repaired(each) for each in value]
    if isinstance(value, dict):
        return {_repaired(key): _repaired(each) for key, each in value.items()}
    return value

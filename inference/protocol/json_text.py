"""JSON text from clients to values."""

from __future__ import annotations

import re
from typing import Any

import orjson

from inference.protocol.errors import ErrorCode, ProtocolError

MAX_CONTAINERS = 50_000
"""Objects and lists of one text. A parser holds the interpreter's lock, and each container costs a collection's time:
a megabyte of empty lists takes 100 ms."""
_MAX_QUOTES = 200_000  # of a text with many brackets: the split at its quotes takes milliseconds
_ESCAPED_BACKSLASH, _MARK = "\\\\", "\x00"  # a raw NUL makes a JSON text invalid
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_HIGH, _LOW = r"\\u[dD][89abAB][0-9a-fA-F][0-9a-fA-F]", r"\\u[dD][c-fC-F][0-9a-fA-F][0-9a-fA-F]"
_LONE_ESCAPE = re.compile(f"{_HIGH}(?!{_LOW})|(?<!{_HIGH}){_LOW}")


def parse_json(text: str) -> Any:
    """Return the value of a JSON text. Half an emoji becomes U+FFFD.

    Raises:
        ProtocolError: ``invalid_message``; also for more than :data:`MAX_CONTAINERS` objects and lists.
    """
    if len(text) > MAX_CONTAINERS and text.count("[") + text.count("{") > MAX_CONTAINERS:
        _check_containers(text)
    try:
        return orjson.loads(text)
    except (orjson.JSONDecodeError, UnicodeEncodeError, RecursionError):
        pass
    # JSON may escape half an emoji ("\\ud83d"), which orjson refuses.
    repaired = _with_whole_characters(text)
    if repaired != text:
        try:
            return orjson.loads(repaired)
        except (orjson.JSONDecodeError, RecursionError):
            pass
    raise ProtocolError(ErrorCode.INVALID_MESSAGE, "the message is not valid JSON")


def _check_containers(text: str) -> None:
    """Raise ``ProtocolError`` where too many brackets stand outside of strings."""
    plain = text.replace(_ESCAPED_BACKSLASH, "").replace('\\"', "")
    if plain.count('"') <= _MAX_QUOTES:
        outside = "".join(plain.split('"')[::2])
        if outside.count("[") + outside.count("{") <= MAX_CONTAINERS:
            return
    message = f"the message has more than {MAX_CONTAINERS} objects and lists"
    raise ProtocolError(ErrorCode.INVALID_MESSAGE, message)


def _with_whole_characters(text: str) -> str:
    """Return a JSON text whose halves of surrogate pairs, raw or escaped, are U+FFFD. Takes linear time."""
    text = _LONE_SURROGATE.sub("\ufffd", text)
    if _MARK in text:
        return text
    return _LONE_ESCAPE.sub(r"\\ufffd", text.replace(_ESCAPED_BACKSLASH, _MARK)).replace(_MARK, _ESCAPED_BACKSLASH)

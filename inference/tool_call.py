"""The tool engine's output to a decision, at its first telling token: ``[]`` is no, ``[{`` is yes."""

from __future__ import annotations

from typing import Any

import orjson


def decision(text: str) -> bool | None:
    """True or False as soon as ``text``, the output so far, settles it; None until then.

    Output that cannot become a list of calls is a no: nothing may be done that the model did not ask for.
    """
    text = text.lstrip()
    if not text or text == "[":
        return None
    if text[0] != "[":
        return False
    rest = text[1:].lstrip()
    return None if not rest else rest[0] == "{"


def parse_calls(text: str) -> list[dict[str, Any]]:
    """The calls of a finished output, each ``{"name": str, "arguments": object}``; empty where it is cut or
    malformed."""
    try:
        calls = orjson.loads(text.strip())
    except orjson.JSONDecodeError:
        return []
    if not isinstance(calls, list):
        return []
    for call in calls:
        if not isinstance(call, dict) or not isinstance(call.get("name"), str):
            return []
        if not isinstance(call.setdefault("arguments", {}), dict):
            return []
    return calls

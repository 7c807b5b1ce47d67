"""JSON text from clients to values."""

from __future__ import annotations

import json
import re
from typing import Any

import orjson

from inference.protocol.errors import ErrorCode, ProtocolError

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def parse_json(text: str) -> Any:
    """Return the value of a JSON text. Half an emoji becomes U+FFFD.

    Raises:
        ProtocolError: ``invalid_message``.
    """
    try:
        return orjson.loads(text)
    except (orjson.JSONDecodeError, UnicodeEncodeError, RecursionError):
        pass
    # JSON may escape half an emoji ("\\ud83d"); orjson refuses the text, json does not. The half becomes U+FFFD.
    if "\\ud" in text.lower() or _LONE_SURROGATE.search(text):
        try:
            return orjson.loads(_LONE_SURROGATE.sub("\ufffd", json.dumps(json.loads(text), ensure_ascii=False)))
        except (ValueError, UnicodeEncodeError, RecursionError):
            pass
    raise ProtocolError(ErrorCode.INVALID_MESSAGE, "the message is not valid JSON")

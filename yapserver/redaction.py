"""Replaces secrets in text that goes to the log."""

from __future__ import annotations

import re
from collections.abc import Iterable

from accounts.keys import PREFIX_LENGTH, SECRET_LENGTH

_MIN_LITERAL = 6  # a shorter secret would blank ordinary words
# "%" escaped any number of times: %5F, %255F, …
_PERCENT = r"%(?:25)*"
_ENCODED = rf"(?:{_PERCENT}[0-9A-Fa-f]{{2}})"
_WORD = rf"(?:[A-Za-z0-9]|{_ENCODED})"


def _character(character: str) -> str:
    """A pattern for one character, as it is or percent-encoded."""
    encoded = "".join(f"{_PERCENT}(?i:{byte:02x})" for byte in character.encode())
    return f"(?:{re.escape(character)}|{encoded})"


def _spelled(text: str) -> str:
    return "".join(map(_character, text))


# A key of the server's own format. Its prefix may stay: logs name keys by it.
_OWN_FORMAT = re.compile(rf"({_spelled('yap_')}{_WORD}{{{PREFIX_LENGTH}}}{_character('_')}){_WORD}{{{SECRET_LENGTH}}}")
_TICKET = re.compile(rf"(?<![\w.])({_spelled('try.')})(?:[\w.=-]|{_ENCODED}){{16,}}")
_NAMED = re.compile(
    r"(api(?:_|-|%(?:25)*5f)key(?:=|%(?:25)*3d)|yap\.key(?:64)?\.|x[-_]api[-_]key['\"]?\s*[:,]\s*(?:b?['\"])?|bearer(?:\s|%20)+)"
    r"[^\s&\"'#,;]+",
    re.IGNORECASE,
)
_URL_PASSWORD = re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s:/@]*:)[^\s/@]+(?=@)", re.IGNORECASE)


class Redactor:
    """Replaces keys, tickets, passwords in URLs and given secrets by ``…``; call it with a text.

    Args:
        secrets: Texts to replace wherever they stand, percent-encoded or not.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        spelled = [_spelled(secret) for secret in secrets if len(secret) >= _MIN_LITERAL]
        self._literal = re.compile("|".join(spelled)) if spelled else None

    def __call__(self, text: str) -> str:
        """The text without secrets; the same text where there are none."""
        text = _OWN_FORMAT.sub(r"\1…", text)
        text = _TICKET.sub(r"\1…", text)
        text = _NAMED.sub(r"\1…", text)
        text = _URL_PASSWORD.sub(r"\1…", text)
        return self._literal.sub("…", text) if self._literal else text

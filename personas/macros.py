"""Macros of character cards in prompts, expanded within bounds. Plain Python, no Django.

Source: Character Card Specification V3, "Curly Braced Syntaxes" (``{{char}}``, ``{{user}}``, ``{{random:…}}``,
``{{pick:…}}``, ``{{roll:…}}``, ``{{// …}}``, ``{{hidden_key:…}}``, ``{{comment:…}}``, ``{{reverse:…}}``); SillyTavern's
documentation for ``{{time}}``, ``{{date}}``, ``{{weekday}}``, ``{{isotime}}``, ``{{isodate}}``, the ``::`` separator
and dice such as ``2d6+1``; Pygmalion's ``<USER>``, ``<BOT>``, ``<CHAR>``. Names are read in any letter case, with
blanks inside the braces.

Decisions that the specifications leave open:

- One pass: text that a macro puts in (a user's name above all) is never read as a macro.
- ``random``, ``pick`` and ``roll`` are functions of the seed: with one seed per session, all three stay the same from
  turn to turn, so that the prompt keeps its prefix in the engine's cache.
- A macro that is unknown, not closed, or has no valid argument stays as written.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from datetime import datetime

DEFAULT_USER_NAME = "the user"  # {{user}} where a client gives no name
MAX_DEPTH = 8  # macros inside macros; a deeper one stays as written
_MAX_DICE = 100
_TOKEN = re.compile(r"\{\{(?!\{)|\}\}|<(?:user|bot|char)>", re.IGNORECASE)
_CALL = re.compile(r"\s*([a-z_]+)\s*(?:::?|\s)", re.IGNORECASE)
_COMMENT = re.compile(r"\s*//")
_DICE = re.compile(r"(?:(?P<dice>\d{0,3})d)?(?P<sides>\d{1,9})(?P<plus>[+-]\d{1,9})?", re.IGNORECASE)
_DROPPED = ("comment", "hidden_key")
# What older clients send as user_identity.
_IDENTITIES = {
    "woman": "a woman",
    "man": "a man",
    "non-binary": "a non-binary person",
    "nonbinary": "a non-binary person",
}


class ExpansionTooLong(ValueError):
    """The expanded text would have more characters than the caller allows. Raised before the text is built."""


def display_user_name(identity: str | None) -> str:
    """Return the text that ``{{user}}`` stands for.

    Args:
        identity: A client's ``user_identity``: a name, or ``woman``, ``man``, ``non-binary`` (any case) of older
            clients. None or blank: unknown.
    """
    name = " ".join((identity or "").split())
    return _IDENTITIES.get(name.lower(), name) or DEFAULT_USER_NAME


def steady_moment(previous: datetime | None, now: datetime) -> datetime:
    """Return the moment for ``{{time}}`` and ``{{date}}``: ``previous`` for the rest of its day, else ``now``.

    A session passes the moment of its last prompt (None at first). The prompt then changes at most once a day, and the
    engine's prefix cache survives a turn.
    """
    if previous is not None and previous.date() == now.astimezone(previous.tzinfo).date():
        return previous
    return now


def has_macros(template: str) -> bool:
    """Whether a template may contain macros. False: :func:`expand` returns the template itself."""
    return "{{" in template or "<" in template


def expand(template: str, *, user: str, char: str, seed: str, now: datetime, max_chars: int) -> str:
    """Return the template with its macros replaced.

    Args:
        template: A prompt as stored or as sent by a client.
        user: The text of ``{{user}}``, see :func:`display_user_name`.
        char: The text of ``{{char}}``: the character's nickname, else the name.
        seed: Settles ``pick``, ``random`` and ``roll``; one per session, such as its id.
        now: The local time of ``{{time}}`` and ``{{date}}``, see :func:`steady_moment`.
        max_chars: The most characters the result may have.

    Raises:
        ExpansionTooLong: Where the template or the result would be longer. Memory and time stay in proportion to
            ``max_chars``, whatever the macros say.
    """
    if len(template) > max_chars:
        raise ExpansionTooLong(f"the prompt has {len(template)} characters; at most {max_chars} are allowed")
    if not has_macros(template):
        return template
    return _Expansion(template, user, char, seed, now, max_chars).run()


@dataclass(slots=True)
class _Scope:
    """The pieces of the whole text or of one open macro. ``opaque`` pieces came out of a macro and are not split."""

    pieces: list[str] = field(default_factory=list)
    opaque: set[int] = field(default_factory=set)
    length: int = 0


class _Expansion:
    def __init__(self, template: str, user: str, char: str, seed: str, now: datetime, max_chars: int) -> None:
        self._template = template
        self._values = {"user": user, "char": char, "bot": char}
        self._seed = seed
        self._now = now
        self._max_chars = max_chars
        self._drawn: dict[str, int] = {}

    def run(self) -> str:
        scopes = [_Scope()]
        at = 0
        for start, end, kind in _tokens(self._template):
            self._put(scopes[-1], self._template[at:start])
            at = end
            if kind == "open":
                scopes.append(_Scope())
            elif kind == "close":
                scope = scopes.pop()
                self._close(scope, scopes[-1])
            else:
                self._put(scopes[-1], self._values[kind], opaque=True)
        self._put(scopes[0], self._template[at:])
        return "".join(scopes[0].pieces)

    def _put(self, scope: _Scope, text: str, opaque: bool = False) -> None:
        scope.length += len(text)
        if scope.length > self._max_chars:
            raise ExpansionTooLong(f"the expanded prompt has more than {self._max_chars} characters")
        if opaque:
            scope.opaque.add(len(scope.pieces))
        scope.pieces.append(text)

    def _close(self, scope: _Scope, outer: _Scope) -> None:
        value = self._value(scope)
        if value is not None:
            self._put(outer, value, opaque=True)
            return
        self._put(outer, "{{")
        for number, piece in enumerate(scope.pieces):
            self._put(outer, piece, opaque=number in scope.opaque)
        self._put(outer, "}}")

    def _value(self, scope: _Scope) -> str | None:
        """The text of a closed macro; None for one that stays as written."""
        head = scope.pieces[0] if scope.pieces and 0 not in scope.opaque else ""
        if len(scope.pieces) == 1:
            simple = self._simple(head.strip().lower())
            if simple is not None:
                return simple
        if _COMMENT.match(head):
            return ""
        call = _CALL.match(head)
        if call is None:
            return None
        name, argument = call[1].lower(), [head[call.end() :], *scope.pieces[1:]]
        if name == "roll":
            return self._roll("".join(argument).strip())
        if ":" not in call[0]:  # only dice may stand behind a blank: {{roll d6}}
            return None
        if name in _DROPPED:
            return ""
        if name == "reverse":
            return _reversed("".join(argument))
        if name in ("random", "pick"):
            options = _options(argument, scope.opaque)
            return options[self._draw(name, "\0".join(options), len(options))]
        return None

    def _simple(self, name: str) -> str | None:
        now = self._now
        if name in ("user", "char"):
            return self._values[name]
        if name == "time":
            return f"{now:%I:%M %p}".removeprefix("0")
        if name == "date":
            return f"{now:%B} {now.day}, {now.year}"
        if name == "weekday":
            return f"{now:%A}"
        if name == "isotime":
            return f"{now:%H:%M}"
        if name == "isodate":
            return f"{now:%Y-%m-%d}"
        return None

    def _roll(self, dice: str) -> str | None:
        found = _DICE.fullmatch(dice)
        if found is None or not int(found["sides"]):
            return None
        count, sides = int(found["dice"] or 1), int(found["sides"])
        if not 1 <= count <= _MAX_DICE:
            return None
        return str(sum(self._draw("roll", dice, sides) + 1 for _ in range(count)) + int(found["plus"] or 0))

    def _draw(self, name: str, argument: str, count: int) -> int:
        """A number below ``count``: a hash of the seed, the macro, and how many equal macros stand before this one."""
        key = f"{name}\0{argument}"
        number = self._drawn[key] = self._drawn.get(key, 0) + 1
        digest = hashlib.blake2b(f"{self._seed}\0{number}\0{key}".encode("utf-8", "surrogatepass"), digest_size=8)
        return int.from_bytes(digest.digest()) % count


def _tokens(template: str) -> list[tuple[int, int, str]]:
    """``(start, end, kind)`` of closed braces within the depth limit, and of ``<USER>`` and its like, in order."""
    tokens: list[tuple[int, int, str]] = []
    opened: list[int] = []
    paired: dict[int, int] = {}
    for found in _TOKEN.finditer(template):
        mark = found[0].lower()
        kind = "open" if mark == "{{" else "close" if mark == "}}" else mark[1:-1]
        if kind == "open":
            opened.append(len(tokens))
        elif kind == "close" and opened:
            paired[opened.pop()] = len(tokens)
        tokens.append((*found.span(), kind))
    kept: list[tuple[int, int, str]] = []
    ends: list[int] = []  # positions in tokens of the closing braces that are awaited
    for number, token in enumerate(tokens):
        if token[2] == "open":
            if number in paired and len(ends) < MAX_DEPTH:
                ends.append(paired[number])
                kept.append(token)
        elif token[2] == "close":
            if ends and ends[-1] == number:
                ends.pop()
                kept.append(token)
        else:
            kept.append(token)
    return kept


def _options(pieces: list[str], opaque: set[int]) -> list[str]:
    """The options of ``random`` and ``pick``: split at ``::`` where one stands, else at commas not behind a ``\\``.

    Options of the comma form lose the blanks around them. Opaque pieces are not split.
    """
    plain = [number not in opaque for number in range(len(pieces))]
    wide = any("::" in piece for number, piece in enumerate(pieces) if plain[number])
    separator = r"::" if wide else r"(?<!\\),"
    options = [""]
    for number, piece in enumerate(pieces):
        first, *others = re.split(separator, piece) if plain[number] else [piece]
        if plain[number] and not wide:
            first, others = first.replace("\\,", ","), [part.replace("\\,", ",") for part in others]
        options[-1] += first
        options += others
    return options if wide else [option.strip() for option in options]


def _reversed(text: str) -> str:
    """The text from its last character to its first; accents stay on their letters (Unicode canonical order)."""
    return "".join(reversed(re.findall(r"(?s).[\u0300-\u036f\u200d\ufe00-\ufe0f]*", text)))

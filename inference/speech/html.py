"""HTML in a reply: a closed list of tags goes, entities become their characters, every other tag stays.

Tags of speech markup (SSML) are for the voice: ``<break time="500ms"/>``, ``<sub alias="…">`` and ``<mark name="…">``
stay.
"""

from __future__ import annotations

import re

from inference.speech.blocks import Blocks
from inference.speech.reader import LOOKAHEAD, Reader
from inference.speech.writer import Writer

_INLINE = frozenset({
    "a", "abbr", "b", "big", "cite", "code", "del", "em", "font", "i", "img", "ins", "kbd", "mark", "q", "s", "samp",
    "small", "span", "strike", "strong", "sub", "sup", "tt", "u", "var",
})  # fmt: skip
_BLOCK = frozenset({
    "blockquote", "center", "details", "div", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "li", "ol", "p", "pre",
    "summary", "table", "tbody", "td", "tfoot", "th", "thead", "tr", "ul",
})  # fmt: skip
_TAGS = _INLINE | _BLOCK | {"br"}
_SSML_ATTRIBUTES = {"sub": "alias", "mark": "name"}
_NAME = re.compile(r"</?([a-z][a-z0-9]*)", re.IGNORECASE)
_ATTRIBUTE = re.compile(r"\s+([a-z-]+)\s*=", re.IGNORECASE)
_TAG = re.compile(r"</?[a-z][\w:-]*(\s[^<>]*)?/?>", re.IGNORECASE)
_TAG_MAX = 1000  # characters of a tag that are read past, at most
ENTITIES = {"&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": '"', "&apos;": "'", "&#39;": "'", "&nbsp;": " "}


class Html:
    """Reads tags and entities.

    Args:
        reader: the text.
        writer: gets what is text.
        blocks: gets the ends of blocks.
    """

    def __init__(self, reader: Reader, writer: Writer, blocks: Blocks) -> None:
        self._reader = reader
        self._writer = writer
        self._blocks = blocks
        self._tag = ""  # the tag that is read past
        self._tag_end = 0  # position where it ends in any case
        self._quote = ""

    @property
    def in_tag(self) -> bool:
        """Whether the text that is read belongs to a tag that is not said."""
        return bool(self._tag)

    def read_tag(self, char: str) -> None:
        """Read one character of the tag."""
        if self._quote:
            self._quote = "" if char == self._quote else self._quote
        elif char in "\"'":
            self._quote = char
        ended = char == ">" and not self._quote
        self._reader.drop(1)
        if ended or self._reader.position >= self._tag_end:
            name, self._tag, self._quote = self._tag, "", ""
            self._end(name)

    def _end(self, name: str) -> None:
        if name in _BLOCK:
            self._blocks.end_paragraph()
        elif name == "br":
            self._writer.blank()

    def read_angle(self) -> bool:
        """Read a tag that begins with ``<``; return whether there was one."""
        reader = self._reader
        if not (reader.peek(1).isalpha() or (reader.peek(1) == "/" and reader.peek(2).isalpha())):
            return False
        end = 1
        while (char := reader.peek(end)) and char not in "<>" and end < LOOKAHEAD:
            end += 1
        text = reader.text(0, end + 1)
        match = _NAME.match(text)
        name = match[1].lower() if match else ""
        if match and name in _TAGS:
            rest = text[match.end() :]
            attribute = _ATTRIBUTE.match(rest)
            if attribute is None:
                is_html = rest.strip() in (">", "/>")
            else:
                is_html = attribute[1].lower() != _SSML_ATTRIBUTES.get(name)
            if is_html:
                self._tag, self._tag_end = name, reader.position + _TAG_MAX
                return True
        if char == ">" and _TAG.fullmatch(text):
            self._writer.say_tag(text)
            reader.drop(len(text))
            return True
        return False

    def read_entity(self) -> bool:
        """Read one entity as the character that it stands for; return whether there was one."""
        for entity, char in ENTITIES.items():
            if self._reader.starts_with(entity):
                if char == " ":
                    self._writer.blank()
                else:
                    self._writer.say(char)
                self._reader.drop(len(entity))
                return True
        return False

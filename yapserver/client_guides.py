"""How clients connect to this server, for the page to talk: README's section "Connect what you have"."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

HEADING = "## Connect what you have"
_FENCE = re.compile(r"^```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_MARKS = re.compile(r"\*\*|`|\[([^\]]+)\]\([^)]+\)")


@dataclass(frozen=True, slots=True)
class Part:
    """A paragraph, or a block of code that a user copies as it stands."""

    text: str
    is_code: bool


@dataclass(frozen=True, slots=True)
class ClientGuide:
    """The settings of one client."""

    slug: str
    name: str
    parts: tuple[Part, ...]

    @property
    def needs_openai_api(self) -> bool:
        """Whether the client speaks OpenAI's protocol, which ``OPENAI_API=0`` switches off."""
        return any(part.is_code and "/v1" in part.text for part in self.parts)


@cache
def client_guides(readme: Path) -> tuple[ClientGuide, ...]:
    """Read the guides, one per sub-heading. Empty where the file or the section is missing."""
    text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    section = text.partition(f"\n{HEADING}\n")[2].partition("\n## ")[0]
    guides = []
    for guide in section.split("\n### ")[1:]:
        name, _, body = guide.partition("\n")
        slug = re.sub(r"\W+", "-", name.lower()).strip("-")
        guides.append(ClientGuide(slug, name, tuple(_parts(body))))
    return tuple(guides)


def _parts(body: str) -> Iterator[Part]:
    for number, piece in enumerate(_FENCE.split(body)):  # prose and code take turns
        if number % 2:
            yield Part(piece.rstrip("\n").removeprefix("$ "), is_code=True)
            continue
        for paragraph in filter(None, re.split(r"\n\s*\n", piece.strip())):
            yield Part(_MARKS.sub(lambda mark: mark[1] or "", " ".join(paragraph.split())), is_code=False)

"""The persona of a session: a prompt, or the slug of a persona stored on the server."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from yapclient.address import Server
from yapclient.errors import Unreadable, YapError


@dataclass(frozen=True)
class Persona:
    """A persona.

    `slug` names one stored on the server. Without a slug, `chat_prompt` is the prompt; without a prompt, the server
    looks for a stored persona with this `gender` and `personality`.
    """

    gender: str | None = None
    personality: str | None = None
    chat_prompt: str | None = None
    slug: str | None = None
    name: str = ""

    @property
    def fields(self) -> dict[str, str]:
        """The persona fields of a message."""
        if self.slug and not self.chat_prompt:
            return {"persona": self.slug}
        fields = {"gender": self.gender, "personality": self.personality, "chat_prompt": self.chat_prompt}
        return {key: value for key, value in fields.items() if value}

    def __str__(self) -> str:
        style = ", ".join(part for part in (self.gender, self.personality) if part)
        name = self.name or self.slug or ""
        return f"{name} ({style})" if name and style else name or style or "the server's own"


class PersonaFile:
    """Personas in a JSON file: `{"slug": {"name", "gender", "personality", "chat_prompt"}}`. A prompt may be a list of
    lines.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.personas: dict[str, Persona] = {}
        self._seen: tuple[int, int] | None = None

    def refresh(self) -> bool:
        """Read the file if it has changed; returns whether it had.

        Raises:
            Unreadable: the file cannot be read; raised once per change, and the earlier personas stay.
        """
        try:
            stat = self.path.stat()
        except OSError as error:
            if self._seen == (0, 0):
                return False
            self._seen = (0, 0)
            raise Unreadable(f"cannot read the personas in {self.path}: {error.strerror or error}") from None
        seen = (stat.st_mtime_ns, stat.st_size)
        if seen == self._seen:
            return False
        self._seen = seen
        try:
            self.personas = dict(_read(orjson.loads(self.path.read_bytes())))
        except (OSError, orjson.JSONDecodeError, ValueError) as error:
            raise Unreadable(f"cannot read the personas in {self.path}: {error}") from None
        return True

    def find(self, name: str) -> Persona | None:
        """Find a persona by slug or name, in any letter case; None if there is none."""
        wanted = name.strip().casefold()
        for slug, persona in self.personas.items():
            if wanted in (slug.casefold(), persona.name.casefold()):
                return persona
        return None

    def by_style(self, gender: str | None, personality: str | None) -> Persona | None:
        """Find the first persona with this gender and personality; None matches any."""
        for persona in self.personas.values():
            if gender in (None, persona.gender) and personality in (None, persona.personality):
                return persona
        return None


async def server_personas(server: Server, timeout: float = 5.0) -> list[Persona]:
    """Read the personas stored on the server, for the `persona` field.

    Args:
        server: the server.
        timeout: seconds.

    Returns:
        The personas; empty if the server has no such list.

    Raises:
        YapError: the request failed or the answer is malformed.
    """
    import httpx  # imported here because the import is slow

    address = server.http("/api/v1/personas/")
    try:
        async with httpx.AsyncClient(timeout=timeout, trust_env=not server.is_local) as client:
            answer = await client.get(address, headers=server.headers)
    except httpx.HTTPError as error:
        raise YapError(f"no list of personas from {address}: {str(error) or type(error).__name__}") from None
    if answer.status_code == 404:
        return []
    if answer.status_code != 200:
        raise YapError(f"no list of personas from {address}: HTTP {answer.status_code}")
    try:
        found = list(_read(orjson.loads(answer.content)))
    except (orjson.JSONDecodeError, ValueError):
        raise YapError(f"no list of personas from {address}: the answer cannot be read") from None
    return [Persona(p.gender, p.personality, None, slug, p.name) for slug, p in found]


def _read(data: Any) -> Iterable[tuple[str, Persona]]:
    """Yield (slug, persona) pairs from a mapping by slug, a list, or a page `{"results": […]}`."""
    if isinstance(data, dict) and isinstance(data.get("results"), list):
        data = data["results"]
    rows = (
        [{"slug": slug, **row} for slug, row in data.items() if isinstance(row, dict)]
        if isinstance(data, dict)
        else data
    )
    if not isinstance(rows, list):
        raise ValueError("expected an object of personas by slug, or a list")
    for row in rows:
        if not isinstance(row, dict) or not isinstance(row.get("slug"), str):
            continue
        prompt = row.get("chat_prompt")
        if isinstance(prompt, list):
            prompt = "\n".join(str(line) for line in prompt)
        gender, personality = (str(row[key]).lower() if row.get(key) else None for key in ("gender", "personality"))
        yield (
            row["slug"],
            Persona(gender, personality, prompt or None, row["slug"], str(row.get("name") or row["slug"])),
        )

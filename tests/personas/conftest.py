from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from django.contrib.auth.models import User
from django.test import Client
from pytest_django import Settings

from personas import changes, tokens
from personas.models import Persona


class WordCounter:
    """A tokenizer that is easy to reason about: a token is a word."""

    chat_limit = 20
    tool_limit = 10
    biased_limit = 12

    def count_chat(self, text: str) -> int:
        return len(text.split())

    def count_tool(self, text: str) -> int:
        return len(text.split())

    def count_biased(self, texts: Sequence[str]) -> int:
        return len({word for text in texts for word in text.split()})


@pytest.fixture(autouse=True)
def _no_static_files(settings: Settings) -> None:
    """The middleware of static files looks at every one of them for every new client."""
    settings.MIDDLEWARE = [name for name in settings.MIDDLEWARE if not name.startswith("whitenoise.")]


@pytest.fixture
def counter() -> Iterator[WordCounter]:
    counter = WordCounter()
    tokens.use(counter)
    yield counter
    tokens.use(None)


@pytest.fixture
def news() -> Iterator[list[tuple[str, str]]]:
    """What was announced after commits."""
    told: list[tuple[str, str]] = []
    changes.use(lambda topic, detail: told.append((topic, detail)))
    yield told
    changes.use(None)


@pytest.fixture
def persona(db: None) -> Persona:
    return Persona.objects.create(
        slug="ada", name="Ada", gender="female", personality="dry", chat_prompt="You are Ada. You talk with {{user}}."
    )


@pytest.fixture
def operator(client: Client, db: None) -> Client:
    """A logged-in superuser."""
    client.force_login(User.objects.create_superuser("operator"))
    return client

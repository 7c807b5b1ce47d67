from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from accounts import services
from personas.models import Persona

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _personas(persona: Persona) -> None:
    Persona.objects.exclude(pk=persona.pk).delete()
    for slug, enabled in (("bob", True), ("zoe", False)):
        Persona.objects.create(
            slug=slug, name=slug.title(), gender="male", personality="calm", chat_prompt="Secret.", enabled=enabled
        )


def ask(client: Client, key: str | None) -> Any:
    return client.get("/api/v1/personas/", headers={} if key is None else {"Authorization": f"Bearer {key}"})


def test_enabled_personas_without_their_prompts(client: Client) -> None:
    answer = ask(client, services.create_key("customer")[1])
    assert answer.status_code == 200
    assert answer.json()[0] == {
        "slug": "ada", "name": "Ada", "gender": "female", "personality": "dry", "output_style": "raw", "version": 1,
    }  # fmt: skip
    assert [each["slug"] for each in answer.json()] == ["ada", "bob"]


def test_only_those_the_key_may_use(client: Client) -> None:
    allowed = list(Persona.objects.filter(slug__in=("bob", "zoe")))
    _, full = services.create_key("customer", personas=allowed)
    assert [each["slug"] for each in ask(client, full).json()] == ["bob"]


def test_without_a_key_nothing(client: Client) -> None:
    for bad in (None, "nonsense"):
        assert ask(client, bad).status_code == 401

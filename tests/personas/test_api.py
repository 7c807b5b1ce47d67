from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from accounts import services
from personas.models import Persona, Portrait

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _personas(persona: Persona) -> None:
    Persona.objects.exclude(pk=persona.pk).delete()
    for slug, enabled in (("bob", True), ("zoe", False)):
        Persona.objects.create(
            slug=slug, name=slug.title(), gender="male", personality="calm", chat_prompt="Secret.", enabled=enabled
        )


def ask(client: Client, key: str | None, path: str = "") -> Any:
    return client.get(f"/api/v1/personas/{path}", headers={} if key is None else {"Authorization": f"Bearer {key}"})


def test_enabled_personas_without_their_prompts(client: Client) -> None:
    answer = ask(client, services.create_key("customer")[1])
    assert answer.status_code == 200
    assert answer.json()[0] == {
        "slug": "ada", "name": "Ada", "gender": "female", "personality": "dry", "output_style": "raw",
        "openai_tool_decision": False, "version": 1, "portrait": None,
    }  # fmt: skip
    assert [each["slug"] for each in answer.json()] == ["ada", "bob"]


def test_only_those_the_key_may_use(client: Client) -> None:
    allowed = list(Persona.objects.filter(slug__in=("bob", "zoe")))
    _, full = services.create_key("customer", personas=allowed)
    assert [each["slug"] for each in ask(client, full).json()] == ["bob"]


def test_without_a_key_nothing(client: Client) -> None:
    for bad in (None, "nonsense"):
        assert ask(client, bad).status_code == 401


def test_a_portrait_is_for_keys_that_may_use_the_persona(client: Client, persona: Persona) -> None:
    Portrait.objects.create(persona=persona, media_type="image/png", data=b"\x89PNG picture")
    _, full = services.create_key("customer")
    assert ask(client, full).json()[0]["portrait"] == "/api/v1/personas/ada/portrait/"
    picture = ask(client, full, "ada/portrait/")
    assert picture.status_code == 200
    assert picture.content == b"\x89PNG picture"
    assert picture["Content-Type"] == "image/png"
    assert picture["Cache-Control"] == "private, no-store"
    assert picture["X-Content-Type-Options"] == "nosniff"
    _, other = services.create_key("other", personas=[Persona.objects.get(slug="bob")])
    for key, path in ((full, "bob/portrait/"), (full, "nothere/portrait/"), (other, "ada/portrait/")):
        assert ask(client, key, path).status_code == 404
    assert ask(client, None, "ada/portrait/").status_code == 401
    Persona.objects.filter(slug="ada").update(enabled=False)
    assert ask(client, full, "ada/portrait/").status_code == 404

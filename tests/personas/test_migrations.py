"""Rows of an older version, brought to the present forms."""

from __future__ import annotations

import hashlib
from importlib import import_module
from typing import Any

import pytest
from django.apps import apps
from django.apps.registry import Apps
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from personas import tool_services
from personas.models import Persona, Phrase
from personas.phrase_rules import phrase_key
from personas.services import card_of
from personas.tool_models import HeadState, ToolExample, ToolHead
from tests.personas.card_samples import v2

BEFORE = ("personas", "0004_portrait_nickname_options")
FIELDS: dict[str, Any] = {"gender": "female", "personality": "dry"}


def migrate(target: tuple[str, str]) -> Apps:
    executor = MigrationExecutor(connection)
    executor.migrate([target])
    return MigrationExecutor(connection).loader.project_state([target]).apps


@pytest.mark.thorough
@pytest.mark.django_db(transaction=True)
def test_rows_take_the_present_forms() -> None:
    leaves = MigrationExecutor(connection).loader.graph.leaf_nodes()
    old = migrate(BEFORE)
    personas, lists = old.get_model("personas", "Persona"), old.get_model("personas", "PhraseList")
    card = {"data": v2(nickname="Mimi", description="{{char}} is\r\na baker, <BOT>.{{// x }}")["data"]}
    prompt = (
        "You are Mimi, talking with {{user}}. Stay in character.\n\nMimi is\r\na baker, Mimi.\n\nPersonality: warm\n\n"
        "Scenario: Mimi meets {{user}}.\n\nExample dialogue:\n{{user}}: hi\nMimi: hello"
    )
    personas.objects.create(slug="card", name="Mia", chat_prompt=prompt, card=card, **FIELDS)
    personas.objects.create(slug="edited", name="Mia", chat_prompt="Mimi\r\nedited", card=card, **FIELDS)
    personas.objects.create(slug="typed", name="Ada", chat_prompt="a\r\nb", tool_prompt="c\rd\r\n", **FIELDS)
    personas.objects.create(slug="odd", name="Odd", chat_prompt="same", card={"data": {"name": 5}}, **FIELDS)
    mine = lists.objects.create(name="mine", note="a\r\nb")
    for text, bias in (("well\u2011known", -5.0), ("well-known", -100.0), ("cafe\u0301", -100.0), ("plain", -100.0)):
        mine.phrases.create(text=text, key=f"~{text}", bias=bias)
    mine.phrases.create(text="Straße", key="~strasse", bias=-100.0)

    MigrationExecutor(connection).migrate(leaves)  # 0005 and the later ones: the rows are read by the present models
    try:
        rows = {persona.slug: persona for persona in Persona.objects.all()}
        assert rows["card"].chat_prompt.startswith("You are {{char}}, talking with {{user}}.")
        assert "{{char}} is\na baker, <BOT>.{{// x }}" in rows["card"].chat_prompt
        assert (rows["card"].nickname, rows["card"].version) == ("Mimi", 2)
        assert card_of(rows["card"]).document == card
        assert (rows["edited"].chat_prompt, rows["edited"].nickname) == ("Mimi\nedited", "")
        assert (rows["typed"].chat_prompt, rows["typed"].tool_prompt) == ("a\nb", "c\nd")
        assert (rows["odd"].chat_prompt, rows["odd"].version) == ("same", 1)
        phrases = Phrase.objects.filter(phrase_list__name="mine")
        assert {phrase.text for phrase in phrases} == {"well-known", "cafe\u0301", "plain", "Straße"}
        assert all(phrase.key == phrase_key(phrase.text) for phrase in phrases)
        assert mine.__class__.objects.get(pk=mine.pk).note == "a\nb"
    finally:
        MigrationExecutor(connection).migrate(leaves)


@pytest.mark.django_db
@pytest.mark.parametrize("known", [True, False], ids=["the demo's first", "an operator's"])
def test_the_demos_first_classifier_is_replaced_and_no_other(known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    migration = import_module("personas.migrations.0010_demo_tool_retrained")
    data = b"arrays of older features"
    if known:
        monkeypatch.setattr(migration, "FIRST", hashlib.sha256(data).hexdigest())
    shipped = ToolHead.objects.get(state=HeadState.IN_FORCE)
    ToolHead.objects.filter(pk=shipped.pk).update(data=data, feature_version=1)
    ToolExample.objects.filter(pk__gt=ToolExample.objects.order_by("pk")[10].pk).delete()
    tool_services.add_example("mine alone", "")
    migration.replace(apps, connection.schema_editor())
    head = ToolHead.objects.get(state=HeadState.IN_FORCE)
    assert (head.pk != shipped.pk) is known
    assert (bytes(head.data) != data) is known
    assert (ToolExample.objects.count() > 1000) is known
    assert ToolExample.objects.filter(text="mine alone").exists()
    assert ToolHead.objects.get(pk=shipped.pk).state == (HeadState.RETIRED if known else HeadState.IN_FORCE)

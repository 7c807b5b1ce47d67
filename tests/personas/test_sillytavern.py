"""A card that was not made here: SillyTavern's own, through the admin and back."""

from __future__ import annotations

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse

from personas import cards, png, tokens
from personas.models import Persona
from tests.personas.forms import save
from tests.personas.sillytavern import seraphina


@pytest.fixture(scope="module")
def picture() -> bytes:
    return seraphina()


def test_the_prompt_has_no_marks_of_its_file(picture: bytes) -> None:
    card = cards.read(picture)
    assert (card.name, card.notes, card.portrait) == ("Seraphina", (), picture)
    assert "\r" not in card.chat_prompt
    assert "<START>" not in card.chat_prompt
    assert card.chat_prompt.startswith("You are {{char}}, talking with {{user}}. Stay in character.\n\n[Seraphina's")
    text = tokens.expanded(card.chat_prompt, card.name)
    assert "{{" not in text
    assert '\nthe user: "Describe your traits?"\nSeraphina: *Seraphina\'s gentle smile' in text


@pytest.mark.django_db
def test_import_rename_export(picture: bytes, operator: Client) -> None:
    upload = SimpleUploadedFile("default_Seraphina.png", picture)
    given = {"file": upload, "gender": "female", "personality": "caring"}
    assert operator.post(reverse("admin:personas_persona_import_card"), given).status_code == 302
    made = Persona.objects.get(slug="seraphina")
    url = reverse("admin:personas_persona_change", args=[made.pk])
    posted = {"chat_prompt": made.chat_prompt.replace("\n", "\r\n")}
    save(operator, url, **posted)
    made.refresh_from_db()
    assert made.version == 1
    save(operator, url, name="Sera", output_style="speech", **posted)
    exported = operator.get(reverse("admin:personas_persona_export_png", args=[made.pk])).content
    before, after = cards.read(picture), cards.read(exported)
    assert (after.name, after.output_style, after.chat_prompt) == ("Sera", "speech", before.chat_prompt)
    assert after.document["data"] | {"name": "Seraphina"} == before.document["data"]
    texts = {"chara": b"", "ccv3": b""}
    assert png.with_texts(exported, texts) == png.with_texts(picture, texts)  # the picture is the same, byte for byte

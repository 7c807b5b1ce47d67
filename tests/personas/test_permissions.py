from __future__ import annotations

import pytest
from django.contrib.auth.models import Permission, User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import NoReverseMatch, reverse

from personas.models import Persona, PhraseList
from tests.personas.card_samples import as_json, v2


def staff(client: Client, **permissions: object) -> Client:
    user = User.objects.create_user("writer", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(**permissions))
    client.force_login(user)
    return client


@pytest.fixture
def writer(client: Client, db: None) -> Client:
    """Staff with every right on personas and none elsewhere."""
    return staff(client, content_type__app_label="personas")


@pytest.fixture
def reader(client: Client, db: None) -> Client:
    """Staff who may only look at personas and their lists."""
    return staff(client, content_type__app_label="personas", codename__startswith="view_")


def test_a_writer_sees_personas_and_no_keys(writer: Client) -> None:
    home = writer.get(reverse("admin:index")).content.decode()
    assert reverse("admin:personas_persona_changelist") in home
    assert "/admin/accounts/" not in home
    assert writer.get(reverse("admin:personas_persona_changelist")).status_code == 200
    keys = reverse("admin:accounts_apikey_changelist")
    assert writer.get(keys).status_code == 403
    assert writer.get(reverse("admin:accounts_apikey_add")).status_code == 403


def test_a_reader_changes_nothing(reader: Client) -> None:
    persona, bans = Persona.objects.get(slug="mia"), PhraseList.objects.get()
    assert reader.get(reverse("admin:personas_persona_change", args=[persona.pk])).status_code == 200
    assert reader.get(reverse("admin:personas_phraselist_change", args=[bans.pk])).status_code == 200
    assert reader.get(reverse("admin:personas_phraselist_export_json", args=[bans.pk])).status_code == 200
    card = SimpleUploadedFile("card.json", as_json(v2()))
    for url, fields in (
        (reverse("admin:personas_persona_import_card"), {"file": card, "gender": "male", "personality": "dry"}),
        (reverse("admin:personas_phraselist_import_list"), {"name": "x", "text": "a"}),
        (reverse("admin:personas_phraselist_import_into", args=[bans.pk]), {"text": "a"}),
        (reverse("admin:personas_persona_change", args=[persona.pk]), {"name": "x"}),
    ):
        assert reader.post(url, fields).status_code == 403
    listed = reverse("admin:personas_persona_changelist")
    reader.post(listed, {"action": "disable", "_selected_action": [persona.pk]})
    persona.refresh_from_db()
    assert persona.enabled


@pytest.mark.parametrize(
    "name", ["persona_export_png", "persona_export_v2", "persona_export_v3", "persona_try", "phraselist_export_json"]
)
@pytest.mark.parametrize("known", ["a stranger", "staff"])
def test_others_get_nothing(client: Client, db: None, name: str, known: str) -> None:
    if known == "staff":
        staff(client, codename="view_user")
    rows = Persona if name.startswith("persona") else PhraseList
    first = rows._default_manager.first()
    assert first is not None
    answer = client.get(reverse(f"admin:personas_{name}", args=[first.pk]))
    assert answer.status_code == (403 if known == "staff" else 302)


def test_token_counts_need_a_right(client: Client, db: None) -> None:
    staff(client, codename="view_user")
    assert client.post(reverse("admin:personas_persona_tokens"), {"chat_prompt": "a"}).status_code == 403


def test_the_catalogues_version_is_nobodys_page() -> None:
    with pytest.raises(NoReverseMatch):
        reverse("admin:personas_catalogueversion_changelist")

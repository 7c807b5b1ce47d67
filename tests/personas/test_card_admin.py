"""Character cards in the admin: imported, edited, shown with their portrait, and exported."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse

from personas import cards
from personas.models import Persona, Portrait
from personas.selectors import catalogue_version
from tests.personas.card_samples import as_charx, as_json, as_png, chunk, picture, v2, v3
from tests.personas.conftest import WordCounter
from tests.personas.forms import errors_of, save

IMPORT = reverse("admin:personas_persona_import_card")
GIVEN = {"gender": "female", "personality": "Warm"}


def change(persona: Persona) -> str:
    return reverse("admin:personas_persona_change", args=[persona.pk])


def exported(operator: Client, persona: Persona, way: str) -> bytes:
    return bytes(operator.get(reverse(f"admin:personas_persona_{way}", args=[persona.pk])).content)


def upload(data: bytes, name: str = "card.json") -> SimpleUploadedFile:
    return SimpleUploadedFile(name, data)


@pytest.mark.parametrize("data", [as_json(v2()), as_json(v3()), as_png(chara=v2()), as_png(chara=v2(), ccv3=v3())])
def test_import_card(operator: Client, data: bytes) -> None:
    assert operator.get(IMPORT).status_code == 200
    before = catalogue_version()
    answer = operator.post(IMPORT, {"file": upload(data), "gender": "female", "personality": "Warm"})
    made = Persona.objects.get(slug="mia-2")
    assert answer.headers["Location"] == change(made)
    assert (made.gender, made.personality, made.enabled) == ("female", "warm", True)
    assert "{{char}} is a baker." in made.chat_prompt
    assert catalogue_version() > before
    assert LogEntry.objects.get().change_message == "Imported from a character card."


@pytest.mark.parametrize(
    ("data", "fields", "reason"),
    [
        (
            b"broken",
            {"gender": "male", "personality": "dry"},
            "The card is not JSON (Expecting value, line 1",
        ),
        (as_json(v2()), {"personality": "dry"}, "The card does not say"),
        (as_json(v2()), {"gender": "male"}, "The card does not say"),
        (as_json(v2()), {"gender": "male", "personality": "very dry"}, "letters only"),
        (b"\0" * (10 * 2**20 + 1), {}, "larger than 10 MiB"),
        (
            as_json(v2(extensions={"yap": {"sampling": {"top_p": 7}}})),
            {"gender": "male", "personality": "dry"},
            "top_p: Must be between 0.6 and 1",
        ),
    ],
)
def test_broken_cards_are_refused_with_a_reason(
    operator: Client, data: bytes, fields: dict[str, str], reason: str
) -> None:
    before = Persona.objects.count()
    page = operator.post(IMPORT, {"file": upload(data), **fields})
    assert page.status_code == 200
    assert reason in errors_of(page)
    assert Persona.objects.count() == before


def test_a_long_card_waits_disabled(operator: Client, counter: WordCounter) -> None:
    page = operator.post(IMPORT, {"file": upload(as_json(v2())), "gender": "male", "personality": "dry"}, follow=True)
    assert "prompt is over the token limit" in page.content.decode()
    assert not Persona.objects.get(slug="mia-2").enabled


def test_export_cards(operator: Client, persona: Persona) -> None:
    ways = {"export_v2": "chara_card_v2", "export_v3": "chara_card_v3", "export_png": None, "export_charx": None}
    for way, spec in ways.items():
        answer = operator.get(reverse(f"admin:personas_persona_{way}", args=[persona.pk]))
        assert answer.headers["Content-Disposition"].startswith('attachment; filename="ada.')
        card = cards.read(answer.content)
        assert (card.slug, card.chat_prompt) == ("ada", persona.chat_prompt)
        if spec:
            assert json.loads(answer.content)["spec"] == spec


def test_import_edit_export(operator: Client) -> None:
    """As a browser does: line ends come back as CRLF. Then a new style and a new name."""
    document = v2(description="{{char}} is\r\na baker.", mes_example="<START>\r\n{{user}}: hi", nickname="Mimi")
    operator.post(IMPORT, {"file": upload(as_json(document)), **GIVEN})
    made = Persona.objects.get(slug="mia-2")
    assert (made.nickname, "{{char}} is\na baker." in made.chat_prompt) == ("Mimi", True)
    posted = {"chat_prompt": made.chat_prompt.replace("\n", "\r\n")}
    assert save(operator, change(made), **posted).status_code == 302
    made.refresh_from_db()
    assert made.version == 1
    assert save(operator, change(made), output_style="speech", skip_actions="on", **posted).status_code == 302
    assert save(operator, change(made), name="Ada", label_stops=None, **posted).status_code == 302
    made.refresh_from_db()
    assert (made.version, made.skipped_in_speech, made.label_stops) == (3, frozenset({"actions"}), False)
    for way in ("export_v2", "export_v3"):
        data = json.loads(exported(operator, made, way))["data"]
        assert data["name"] == "Ada"
        for key, value in document["data"].items():
            if key not in ("name", "extensions"):
                assert data[key] == value, key
        assert data["extensions"]["other/tool"] == {"depth": 4}
    back = cards.read(exported(operator, made, "export_png"))
    assert (back.chat_prompt, back.output_style, back.skipped_in_speech, back.label_stops) == (
        made.chat_prompt, "speech", frozenset({"actions"}), False
    )  # fmt: skip


@pytest.mark.parametrize("ends", ["\r\n", "\r", "\n"])
def test_line_ends_of_every_browser_are_one(operator: Client, persona: Persona, ends: str) -> None:
    Persona.objects.filter(pk=persona.pk).update(chat_prompt="a\n\nb\nc", tool_prompt="d\ne")
    posted = {"chat_prompt": ends.join(("a", "", "b", "c")), "tool_prompt": f"d{ends}e"}
    assert save(operator, change(persona), **posted).status_code == 302
    persona.refresh_from_db()
    assert (persona.chat_prompt, persona.tool_prompt, persona.version) == ("a\n\nb\nc", "d\ne", 1)
    assert save(operator, change(persona), chat_prompt=f"x{ends}y").status_code == 302
    persona.refresh_from_db()
    assert (persona.chat_prompt, persona.version) == ("x\ny", 2)


def test_the_portrait_is_kept_shown_and_exported(operator: Client, client: Client) -> None:
    original = as_png(chara=v2(), ccv3=v3())
    operator.post(IMPORT, {"file": upload(original, "mia.png"), **GIVEN})
    made = Persona.objects.get(slug="mia-2")
    url = reverse("admin:personas_persona_portrait", args=[made.pk])
    assert url in operator.get(change(made)).content.decode()
    answer = operator.get(url)
    assert (answer.content, answer.headers["Content-Type"]) == (original, "image/png")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    for way in ("export_png", "export_charx"):
        assert cards.read(exported(operator, made, way)).portrait
    assert cards.read(exported(operator, made, "export_charx")).portrait == original
    client.force_login(User.objects.create_user("nobody", is_staff=True))
    assert client.get(url).status_code == 403


def test_a_persona_without_a_portrait(operator: Client, persona: Persona) -> None:
    assert operator.get(reverse("admin:personas_persona_portrait", args=[persona.pk])).status_code == 404
    html = operator.get(change(persona)).content.decode()
    assert "Portrait of" not in html
    assert operator.get(reverse("admin:personas_persona_add")).status_code == 200
    assert cards.read(exported(operator, persona, "export_png")).portrait == b""


def test_charx_with_a_webp_icon(operator: Client) -> None:
    webp = b"RIFF\x10\0\0\0WEBPVP8 "
    assets = [{"type": "icon", "uri": "embeded://a_webp", "name": "main", "ext": "webp"}]
    operator.post(IMPORT, {"file": upload(as_charx(v3(assets=assets), a_webp=webp), "mia.charx"), **GIVEN})
    portrait = Portrait.objects.get(persona__slug="mia-2")
    assert (portrait.media_type, bytes(portrait.data)) == ("image/webp", webp)


def test_repairs_are_said(operator: Client) -> None:
    chara = chunk(b"tEXt", b"chara\0" + base64.b64encode(as_json(v2())))
    broken = picture(chunk(b"tEXt", b"ccv3\0???"), chara)
    page = operator.post(IMPORT, {"file": upload(broken, "mia.png"), **GIVEN}, follow=True)
    assert "the older chara card was used" in page.content.decode()


def test_long_names_and_foreign_letters_find_a_slug(operator: Client) -> None:
    for name in ("x" * 100, "x" * 100, "세라피나", "세라피나"):
        assert operator.post(IMPORT, {"file": upload(as_json(v2(name=name))), **GIVEN}).status_code == 302
    slugs = set(Persona.objects.filter(name__in=("x" * 100, "세라피나")).values_list("slug", flat=True))
    assert slugs == {"x" * 64, "x" * 60 + "-2", "persona", "persona-2"}


def test_a_personality_that_grows_in_lower_case_is_refused(operator: Client) -> None:
    page = operator.post(IMPORT, {"file": upload(as_json(v2())), "gender": "male", "personality": "İ" * 20})
    assert page.status_code == 200
    assert "Lower-case letters only" in errors_of(page) or "At most 20" in errors_of(page)


def test_a_prompt_is_counted_as_it_is_expanded(operator: Client, counter: WordCounter) -> None:
    tokens = reverse("admin:personas_persona_tokens")
    fields: dict[str, Any] = {"chat_prompt": "{{char}} {{// one two three}} {{user}}", "name": "Mia Mi"}
    assert operator.post(tokens, fields).json()["chat_prompt"] == {"tokens": 4, "limit": 20}
    fields |= {"chat_prompt": "{{char}}" * 6_000, "nickname": "x" * 100}
    assert operator.post(tokens, fields).json()["chat_prompt"] == {"tokens": None, "limit": 20}

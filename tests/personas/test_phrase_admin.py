from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse
from pytest_django import Settings

from personas import services
from personas.models import Persona, PhraseList
from personas.phrase_admin import PHRASES_A_PAGE, PhraseInline
from personas.phrase_files import MAX_TOKEN_BIASES
from personas.phrase_services import create_phrase_list, import_phrases, rules_of
from personas.selectors import catalogue_version, load_catalogue
from personas.snapshot import PhraseRule
from tests.personas.forms import errors_of, save

ADD = reverse("admin:personas_phraselist_add")
LIST = reverse("admin:personas_phraselist_changelist")
IMPORT = reverse("admin:personas_phraselist_import_list")


@pytest.fixture
def bans(db: None) -> PhraseList:
    return create_phrase_list("bans", [PhraseRule("alpha"), PhraseRule("beta"), PhraseRule(" - ")])


@pytest.fixture(autouse=True)
def _short_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten phrases a page, so that a test need not render hundreds."""
    monkeypatch.setattr(PhraseInline, "per_page", 10)


def at(name: str, phrase_list: PhraseList) -> str:
    return reverse(f"admin:personas_phraselist_{name}", args=[phrase_list.pk])


def rows(phrase_list: PhraseList) -> list[str]:
    """The texts in the order of the form, whose rows are phrases-0, phrases-1…"""
    return [phrase.text for phrase in phrase_list.phrases.order_by("text", "pk")]


def test_add_with_a_phrase_keeps_its_spaces(operator: Client) -> None:
    answer = save(operator, ADD, **{"name": "mine", "is_global": "on", "phrases-0-text": " uh "})
    assert answer.status_code == 302
    assert PhraseRule(" uh ") in load_catalogue().phrases


def test_edits_raise_every_version(
    operator: Client,
    bans: PhraseList,
    persona: Persona,
    news: list[Any],
    django_capture_on_commit_callbacks: Callable[..., Any],
) -> None:
    services.save_persona(persona, [bans])
    edits: list[dict[str, Any]] = [
        {"name": "renamed"},
        {"phrases-1-text": "gamma"},
        {"phrases-1-whole_word": "on"},
        {"phrases-3-text": "new"},
        {"phrases-0-DELETE": "on"},
        {"enabled": None},
    ]
    for edit in edits:
        before = (catalogue_version(), bans.version, persona.version)
        news.clear()
        with django_capture_on_commit_callbacks(execute=True):
            assert save(operator, at("change", bans), **edit).status_code == 302
        bans.refresh_from_db()
        persona.refresh_from_db()
        assert (catalogue_version(), bans.version, persona.version) == tuple(number + 1 for number in before)
        assert news == [("catalogue", "")]
    assert rows(bans) == ["beta", "gamma", "new"]
    assert save(operator, at("change", bans)).status_code == 302
    assert catalogue_version() == before[0] + 1  # nothing changed, nothing told


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        ({"phrases-3-text": "ALPHA"}, "in the list already"),
        ({"phrases-1-text": "Beta"}, "in the list already"),
        ({"phrases-3-text": "  "}, "only white space"),
        ({"phrases-1-text": ""}, "required"),
        ({"phrases-1-bias": "101"}, "less than or equal to 100"),
        ({"phrases-1-bias": ""}, "required"),
        ({"name": "Built-in bans"}, "already exists"),
    ],
)
def test_wrong_phrases_are_refused_where_they_stand(
    operator: Client, bans: PhraseList, edit: dict[str, str], reason: str
) -> None:
    page = save(operator, at("change", bans), **edit)
    assert page.status_code == 200
    assert reason in errors_of(page)
    assert rows(bans) == [" - ", "alpha", "beta"]


def test_rows_may_swap_and_take_a_deleted_ones_place(operator: Client, bans: PhraseList) -> None:
    assert (
        save(operator, at("change", bans), **{"phrases-1-text": "beta", "phrases-2-text": "alpha"}).status_code == 302
    )
    assert rows(bans) == [" - ", "alpha", "beta"]
    edit = {"phrases-1-text": "beta", "phrases-2-DELETE": "on"}
    assert save(operator, at("change", bans), **edit).status_code == 302
    assert rows(bans) == [" - ", "beta"]


def test_a_list_of_hundreds_is_paged_and_checked_whole(operator: Client, bans: PhraseList) -> None:
    import_phrases(bans, [PhraseRule(f"word {number:02}") for number in range(15)])
    second = at("change", bans) + "?phrases-page=2"
    page: Any = operator.get(second)
    assert len(page.context["inline_admin_formsets"][0].formset.initial_forms) == 8
    edit = {"phrases-page": "2", "phrases-0-text": "edited", "phrases-1-DELETE": "on"}
    assert save(operator, second, **edit).status_code == 302
    assert len(rows(bans)) == 17
    assert "edited" in rows(bans)
    page = save(operator, second, **{"phrases-0-text": "ALPHA"})  # which is on page 1
    assert "in the list already" in errors_of(page)


def test_a_page_fits_a_form(settings: Settings) -> None:
    values = len(("id", "phrase_list", *PhraseInline.form.base_fields, "DELETE"))
    assert (PHRASES_A_PAGE + PhraseInline.extra + 10) * values < settings.DATA_UPLOAD_MAX_NUMBER_FIELDS


def test_too_many_biases_are_refused(operator: Client, bans: PhraseList) -> None:
    import_phrases(bans, [PhraseRule(f"word {number:03}", -5.0) for number in range(MAX_TOKEN_BIASES)])
    url = at("change", bans)
    assert save(operator, url, is_global="on").status_code == 302
    page = save(operator, url, **{"phrases-1-bias": "-5"})
    assert f"{MAX_TOKEN_BIASES + 1} phrases with a bias above -100" in errors_of(page)
    more = create_phrase_list("more", [PhraseRule("x", -5.0)])
    persona = Persona.objects.get(slug="mia")
    page = save(operator, reverse("admin:personas_persona_change", args=[persona.pk]), phrase_lists=[more.pk])
    assert "would be in force at once" in errors_of(page)


def test_actions_and_deletes(operator: Client, bans: PhraseList) -> None:
    chosen = {"_selected_action": [bans.pk]}
    version = catalogue_version()
    for action, enabled in (("disable", False), ("enable", True)):
        operator.post(LIST, {"action": action} | chosen)
        bans.refresh_from_db()
        assert bans.enabled is enabled
        assert catalogue_version() > version
        version = catalogue_version()
    assert [entry.change_message for entry in LogEntry.objects.order_by("pk")] == ["Disabled.", "Enabled."]
    operator.post(LIST, {"action": "delete_selected", "post": "yes"} | chosen)
    assert not PhraseList.objects.filter(name="bans").exists()
    assert catalogue_version() > version
    builtin = PhraseList.objects.get(builtin=True)
    operator.post(at("delete", builtin), {"post": "yes"})
    assert load_catalogue().phrases == ()


def test_search_finds_the_list_that_holds_a_phrase(operator: Client, bans: PhraseList) -> None:
    html = operator.get(LIST, {"q": "giggles"}).content.decode()
    assert ("Built-in bans" in html, at("change", bans) in html) == (True, False)


@pytest.mark.parametrize("way", ["export_json", "export_text"])
@pytest.mark.parametrize("pasted", [False, True])
def test_export_and_import_again(operator: Client, bans: PhraseList, way: str, pasted: bool) -> None:
    answer = operator.get(at(way, bans))
    assert answer.headers["Content-Disposition"].startswith('attachment; filename="bans.')
    source = {"text": answer.content.decode()} if pasted else {"file": SimpleUploadedFile("a", answer.content)}
    assert operator.get(IMPORT).status_code == 200
    made = operator.post(IMPORT, {"name": "copy", **source})
    copy = PhraseList.objects.get(name="copy")
    assert made.headers["Location"] == at("change", copy)
    assert rules_of(copy) == rules_of(bans)


def test_plain_text_export_does_not_lose_a_bias(operator: Client, bans: PhraseList) -> None:
    import_phrases(bans, [PhraseRule("x", -5.0)])
    page = operator.get(at("export_text", bans), follow=True)
    assert "Not exported" in page.content.decode()
    assert b'"x": -5' in operator.get(at("export_json", bans)).content


def test_import_into_a_list(operator: Client, bans: PhraseList) -> None:
    url = at("import_into", bans)
    version = catalogue_version()
    assert operator.post(url, {"text": "new\r\n two "}).status_code == 302
    assert rules_of(bans)[3:] == (PhraseRule("new"), PhraseRule(" two "))
    assert operator.post(url, {"text": '{"only": -100}', "replace": "on"}).status_code == 302
    assert rules_of(bans) == (PhraseRule("only"),)
    assert catalogue_version() == version + 2
    assert LogEntry.objects.count() == 2


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, "Choose a file or paste"),
        ({"text": "\n \n"}, "Choose a file or paste"),
        ({"text": "a", "file": b"b"}, "one of the two"),
        ({"text": "a\n \n"}, "Line 2: the phrase is only white space"),
        ({"text": '{"": -100}'}, "the phrase is empty"),
        ({"text": "{}"}, "No phrases in it"),
        ({"text": "x\nX"}, "duplicate of"),
        ({"text": '{"x": -200}'}, "between -100 and 100"),
        ({"text": "new\nAlpha"}, "In the list already"),
        ({"file": b"\xff"}, "Not UTF-8"),
        ({"file": b"a" * (4 * 2**20 + 1)}, "larger than 4 MiB"),
    ],
)
def test_broken_imports_are_refused_with_a_reason(
    operator: Client, bans: PhraseList, fields: dict[str, Any], reason: str
) -> None:
    if "file" in fields:
        fields = fields | {"file": SimpleUploadedFile("a", fields["file"])}
    page = operator.post(at("import_into", bans), fields)
    assert page.status_code == 200
    assert reason in errors_of(page)
    assert rows(bans) == [" - ", "alpha", "beta"]


def test_a_taken_name_is_refused(operator: Client, bans: PhraseList) -> None:
    assert "exists already" in errors_of(operator.post(IMPORT, {"name": "bans", "text": "a"}))

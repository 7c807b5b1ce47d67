from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.urls import reverse
from pytest_django import Settings

from personas import services
from personas.models import Persona, PhraseList
from personas.phrase_admin import MAX_ROWS, PHRASES_PER_PAGE, PhraseInline
from personas.phrase_rules import MAX_TOKEN_BIASES
from personas.phrase_services import create_phrase_list, import_phrases
from personas.selectors import catalogue_version, load_catalogue
from personas.snapshot import PhraseRule
from tests.personas.forms import errors_of, save

ADD = reverse("admin:personas_phraselist_add")
LIST = reverse("admin:personas_phraselist_changelist")


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
    assert (PHRASES_PER_PAGE + PhraseInline.extra + 10) * values < settings.DATA_UPLOAD_MAX_NUMBER_FIELDS


def test_a_phrase_with_a_line_break_is_not_a_change(operator: Client, bans: PhraseList) -> None:
    import_phrases(bans, [PhraseRule("two\nlines")])
    bans.refresh_from_db()
    version = bans.version
    at_row = rows(bans).index("two\nlines")
    posted = {f"phrases-{at_row}-text": "two\r\nlines", "note": "a"}
    assert save(operator, at("change", bans), **posted).status_code == 302
    bans.refresh_from_db()
    assert (bans.version, "two\nlines" in rows(bans)) == (version + 1, True)
    PhraseList.objects.filter(pk=bans.pk).update(note="a\nb")
    assert save(operator, at("change", bans), note="a\r\nb").status_code == 302
    bans.refresh_from_db()
    assert (bans.version, bans.note) == (version + 1, "a\nb")


@pytest.mark.parametrize("same", ["cafe\u0301", "CAF\u00c9", "caf\u00e9\u200b", "ca\u00adf\u00e9"])
def test_what_the_guard_cannot_tell_apart_is_a_duplicate(operator: Client, bans: PhraseList, same: str) -> None:
    import_phrases(bans, [PhraseRule("caf\u00e9")])
    page = save(operator, at("change", bans), **{"phrases-4-text": same})
    assert "in the list already" in errors_of(page)


def test_finding_phrases_in_a_list(operator: Client, bans: PhraseList) -> None:
    import_phrases(bans, [PhraseRule(f"word {number:03}") for number in range(120)])
    url = at("change", bans)
    assert 'name="find"' in operator.get(url).content.decode()
    page: Any = operator.get(url + "?find=WORD+11")
    forms = page.context["inline_admin_formsets"][0].formset.initial_forms
    assert [form.instance.text for form in forms] == [f"word 11{number}" for number in range(10)]
    assert save(operator, url + "?find=word+119", **{"phrases-0-text": "found"}).status_code == 302
    assert "found" in rows(bans)
    assert len(rows(bans)) == 123
    assert "already" in errors_of(save(operator, url + "?find=found", **{"phrases-0-text": "alpha"}))
    assert operator.get(url + "?find=%00x").status_code == 200


def test_the_delete_page_counts_phrases_and_shows_none(operator: Client, bans: PhraseList) -> None:
    html = operator.get(at("delete", bans)).content.decode()
    assert "bans (3 phrases)" in html
    assert "alpha" not in html
    chosen = {"action": "delete_selected", "_selected_action": [bans.pk]}
    assert "bans (3 phrases)" in operator.post(LIST, chosen).content.decode()


def test_counts_are_not_multiplied(operator: Client, bans: PhraseList, persona: Persona) -> None:
    services.save_persona(persona, [bans])
    services.save_persona(Persona.objects.get(slug="mia"), [bans])
    page: Any = operator.get(LIST)
    (shown,) = [row for row in page.context["cl"].result_list if row.pk == bans.pk]
    assert (shown.phrases_held, shown.personas_held) == (3, 2)


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
    html = operator.get(LIST, {"q": "BANS"}).content.decode()
    assert ("Built-in bans" in html, at("change", bans) in html) == (True, True)
    assert operator.get(LIST, {"q": "\0 "}).status_code == 200


def test_a_form_names_a_bounded_number_of_rows(operator: Client) -> None:
    """Django makes and renders up to 2,000 rows for a number alone."""
    fields = {"name": "bans", "phrases-TOTAL_FORMS": "9999", "phrases-INITIAL_FORMS": "0"}
    page = operator.post(ADD, fields).content.decode()
    assert f'name="phrases-{MAX_ROWS - 1}-text"' in page
    assert f'name="phrases-{MAX_ROWS}-text"' not in page
    assert MAX_ROWS > 2 * PHRASES_PER_PAGE


@pytest.mark.parametrize(
    "path", ["personas/persona", "personas/phraselist", "personas/tool", "personas/toolexample", "accounts/apikey",
             "accounts/usage", "auth/user", "auth/group"],
)  # fmt: skip
def test_a_long_search_is_cut(operator: Client, path: str) -> None:
    """Each word is a condition: three thousand of them are no query for SQLite, and 0.4 s for everybody."""
    assert operator.get(f"/admin/{path}/", {"q": "a " * 3000}).status_code == 200

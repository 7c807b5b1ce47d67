from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.urls import reverse

from personas.models import MAX_PROMPT_CHARS, Persona
from personas.phrase_services import create_phrase_list
from personas.selectors import catalogue_version
from personas.snapshot import PhraseRule
from tests.personas.conftest import WordCounter
from tests.personas.forms import errors_of, save

ADD = reverse("admin:personas_persona_add")
LIST = reverse("admin:personas_persona_changelist")
IMPORT = reverse("admin:personas_persona_import_card")
TOKENS = reverse("admin:personas_persona_tokens")
NEW: dict[str, Any] = {
    "slug": "zoe", "name": "Zoe", "gender": "female", "personality": "Playful", "chat_prompt": "You are Zoe.",
    "temperature": "0.5", "output_style": "speech", "openai_tool_decision": "on",
}  # fmt: skip


def change(persona: Persona) -> str:
    return reverse("admin:personas_persona_change", args=[persona.pk])


def test_add(operator: Client, news: list[Any], django_capture_on_commit_callbacks: Callable[..., Any]) -> None:
    bans = create_phrase_list("bans", [PhraseRule("a")])
    with django_capture_on_commit_callbacks(execute=True):
        assert operator.post(ADD, NEW | {"enabled": "on", "phrase_lists": [bans.pk]}).status_code == 302
    made = Persona.objects.get(slug="zoe")
    assert (made.personality, made.sampling, made.output_style, made.version) == (
        "playful",
        {"temperature": 0.5},
        "speech",
        1,
    )
    assert list(made.phrase_lists.all()) == [bans]
    assert made.enabled
    assert made.openai_tool_decision
    assert news == [("catalogue", "")]


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("temperature", "1.3", "Must be between 0.2 and 1.2"),
        ("temperature", "nan", "Enter a number"),
        ("top_k", "9", "Must be between 10 and 60"),
        ("personality", "very calm", "letters only"),
        ("gender", "other", "valid choice"),
        ("slug", "mia", "already exists"),
        ("chat_prompt", "  ", "required"),
    ],
)
def test_wrong_values_are_refused_where_they_stand(operator: Client, field: str, value: str, reason: str) -> None:
    page = operator.post(ADD, NEW | {field: value})
    assert page.status_code == 200
    assert reason in errors_of(page)
    assert not Persona.objects.filter(name="Zoe").exists()


@pytest.mark.parametrize(("field", "limit"), [("chat_prompt", 20), ("tool_prompt", 10)])
def test_a_prompt_over_its_token_limit_is_refused(
    operator: Client, counter: WordCounter, field: str, limit: int
) -> None:
    page = operator.post(ADD, NEW | {field: "word " * (limit + 1)})
    assert f"{limit + 1} tokens; at most {limit} are allowed" in errors_of(page)
    assert operator.post(ADD, NEW | {field: "word " * limit}).status_code == 302


def test_an_edit_raises_versions_and_is_told_once(
    operator: Client, persona: Persona, news: list[Any], django_capture_on_commit_callbacks: Callable[..., Any]
) -> None:
    bans = create_phrase_list("bans")
    before = catalogue_version()
    edits: list[dict[str, Any]] = [{"name": "Ada L"}, {"phrase_lists": [bans.pk]}, {"phrase_lists": []}]
    for number, edit in enumerate(edits, 1):
        with django_capture_on_commit_callbacks(execute=True):
            assert save(operator, change(persona), **edit).status_code == 302
        persona.refresh_from_db()
        assert (persona.version, catalogue_version(), len(news)) == (1 + number, before + number, number)


def test_saving_without_a_change_changes_nothing(operator: Client, persona: Persona) -> None:
    before = catalogue_version()
    assert save(operator, change(persona)).status_code == 302
    persona.refresh_from_db()
    assert (persona.version, catalogue_version()) == (1, before)


def test_an_edit_keeps_the_card(operator: Client, persona: Persona) -> None:
    Persona.objects.filter(pk=persona.pk).update(card={"data": {"kept": 1}})
    save(operator, change(persona), name="Ada L")
    persona.refresh_from_db()
    assert (persona.name, persona.card) == ("Ada L", {"data": {"kept": 1}})


def test_actions_switch_and_are_logged(operator: Client, persona: Persona, counter: WordCounter) -> None:
    chosen = {"_selected_action": [persona.pk]}
    operator.post(LIST, {"action": "disable"} | chosen)
    persona.refresh_from_db()
    assert (persona.enabled, persona.version) == (False, 2)
    entry = LogEntry.objects.get()
    assert (entry.user.get_username(), entry.object_id, entry.change_message) == (
        "operator",
        str(persona.pk),
        "Disabled.",
    )
    Persona.objects.filter(pk=persona.pk).update(chat_prompt="word " * 21)
    page = operator.post(LIST, {"action": "enable"} | chosen, follow=True)
    assert "ada: 21 tokens; at most 20" in page.content.decode()
    Persona.objects.filter(pk=persona.pk).update(chat_prompt="short")
    operator.post(LIST, {"action": "enable"} | chosen)
    persona.refresh_from_db()
    assert (persona.enabled, persona.version) == (True, 3)


@pytest.mark.parametrize("bulk", [False, True])
def test_deletes_raise_the_version(operator: Client, persona: Persona, bulk: bool) -> None:
    before = catalogue_version()
    if bulk:
        operator.post(LIST, {"action": "delete_selected", "_selected_action": [persona.pk], "post": "yes"})
    else:
        operator.post(reverse("admin:personas_persona_delete", args=[persona.pk]), {"post": "yes"})
    assert not Persona.objects.filter(slug="ada").exists()
    assert catalogue_version() > before


def test_token_counts(operator: Client, counter: WordCounter) -> None:
    page = operator.post(TOKENS, {"chat_prompt": "one two three ", "tool_prompt": ""})
    assert page.json() == {
        "loaded": True,
        "chat_prompt": {"tokens": 3, "limit": 20},
        "tool_prompt": {"tokens": 0, "limit": 10},
    }
    page = operator.post(TOKENS, {"chat_prompt": "x" * (MAX_PROMPT_CHARS + 1)})
    assert page.json()["chat_prompt"] == {"tokens": None, "limit": 20}
    assert operator.get(TOKENS).status_code == 405


def test_token_counts_do_not_pretend(operator: Client) -> None:
    assert operator.post(TOKENS, {"chat_prompt": "one"}).json() == {"loaded": False}


def test_the_form_counts_live_and_offers_its_buttons(operator: Client, persona: Persona) -> None:
    html = operator.get(change(persona)).content.decode()
    assert html.count(f'data-token-counts="{TOKENS}"') == 2
    assert "personas/token_counts.js" in html
    for action in ("try_it", "export_png", "export_v2", "export_v3"):
        assert reverse(f"admin:personas_persona_{action}", args=[persona.pk]) in html
    assert IMPORT in operator.get(LIST).content.decode()


def test_try_it_leads_to_its_page(operator: Client, persona: Persona) -> None:
    answer = operator.get(reverse("admin:personas_persona_try_it", args=[persona.pk]))
    assert answer.headers["Location"] == reverse("admin:personas_persona_try", args=[persona.pk])


@pytest.mark.parametrize("value", ["abc", "9" * 40, "9" * 5000, "\x00", "-1", "٣", "1.5"])
@pytest.mark.parametrize(
    ("model", "field", "fields"),
    [
        ("persona", "phrase_lists", NEW),
        ("tool", "personas", {"name": "look", "description": ""}),
        ("toolexample", "tool", {"text": "look at this"}),
    ],
)
def test_a_key_that_no_row_can_have_is_a_form_error(
    operator: Client, model: str, field: str, fields: dict[str, Any], value: str
) -> None:
    answer = operator.post(reverse(f"admin:personas_{model}_add"), fields | {field: [value]})
    assert answer.status_code == 200
    assert field in errors_of(answer)

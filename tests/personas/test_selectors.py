from __future__ import annotations

import pytest
from pytest_django import DjangoAssertNumQueries

from personas import selectors, services
from personas.models import Persona, PhraseList
from personas.phrase_services import create_phrase_list
from personas.selectors import catalogue_version, load_catalogue
from personas.snapshot import PhraseRule

pytestmark = pytest.mark.django_db


def test_snapshots_carry_what_a_turn_needs(persona: Persona) -> None:
    bans = create_phrase_list("mine", [PhraseRule(" - "), PhraseRule("US", -5.0, True, True)])
    persona.temperature, persona.top_k, persona.output_style = 0.5, 20, "speech"
    persona.openai_tool_decision = True
    persona.nickname, persona.label_stops, persona.skip_actions, persona.skip_code = "Addy", False, True, True
    services.save_persona(persona, [bans])
    snapshot = load_catalogue().by_slug("ada")
    assert snapshot is not None
    assert (snapshot.name, snapshot.gender, snapshot.personality) == ("Ada", "female", "dry")
    assert (snapshot.chat_prompt, snapshot.tool_prompt) == (persona.chat_prompt, None)
    assert snapshot.sampling == {"temperature": 0.5, "top_k": 20}
    assert snapshot.phrases == (PhraseRule(" - "), PhraseRule("US", -5.0, True, True))
    assert (snapshot.output_style, snapshot.version) == ("speech", 2)
    assert (snapshot.nickname, snapshot.char, snapshot.label_stops) == ("Addy", "Addy", False)
    assert snapshot.skipped_in_speech == {"actions", "code"}
    assert snapshot.openai_tool_decision
    mia = load_catalogue().personas["mia"]
    assert (mia.char, mia.label_stops, mia.skipped_in_speech) == ("Mia", True, frozenset())


def test_personas_are_sorted_and_disabled_ones_are_unknown(persona: Persona) -> None:
    assert list(load_catalogue().personas) == ["ada", "mia", "nova", "theo"]
    services.set_personas_enabled(Persona.objects.filter(slug="mia"), False)
    catalogue = load_catalogue()
    assert catalogue.by_slug("mia") is None
    assert list(catalogue.personas) == ["ada", "nova", "theo"]


def test_global_attached_and_disabled_lists(persona: Persona) -> None:
    PhraseList.objects.all().delete()
    shared = create_phrase_list("shared", [PhraseRule("a")], is_global=True)
    own = create_phrase_list("own", [PhraseRule("b")])
    off = create_phrase_list("off", [PhraseRule("c")])
    create_phrase_list("nobody's", [PhraseRule("d")])
    PhraseList.objects.filter(pk=off.pk).update(enabled=False)
    services.save_persona(persona, [shared, own, off])
    catalogue = load_catalogue()
    assert catalogue.phrases == (PhraseRule("a"),)
    assert catalogue.personas["ada"].phrases == (PhraseRule("b"),)


def test_a_file_replaces_the_builtin_list_alone() -> None:
    create_phrase_list("shared", [PhraseRule("mine")], is_global=True)
    rules = [rule.text for rule in load_catalogue().phrases]
    assert " - " in rules
    assert load_catalogue([PhraseRule("from the file", -5.0)]).phrases == (
        PhraseRule("from the file", -5.0),
        PhraseRule("mine"),
    )
    assert load_catalogue([]).phrases == (PhraseRule("mine"),)


def test_queries_are_few(persona: Persona, django_assert_num_queries: DjangoAssertNumQueries) -> None:
    for number in range(5):
        create_phrase_list(f"list {number}", [PhraseRule("a"), PhraseRule("b")])
    services.save_persona(persona, PhraseList.objects.all())
    with django_assert_num_queries(8):
        load_catalogue()
    with django_assert_num_queries(1):
        catalogue_version()


def test_the_version_is_of_what_was_read() -> None:
    assert load_catalogue().version == catalogue_version() > 0


def test_a_change_while_reading_is_read_again(persona: Persona, monkeypatch: pytest.MonkeyPatch) -> None:
    read, edits = selectors._read, iter(["edited meanwhile"])

    def slow_read(*args: object) -> object:
        catalogue = read(*args)  # type: ignore[arg-type]
        for prompt in edits:
            persona.chat_prompt = prompt
            services.save_persona(persona)
        return catalogue

    monkeypatch.setattr(selectors, "_read", slow_read)
    catalogue = load_catalogue()
    assert catalogue.personas["ada"].chat_prompt == "edited meanwhile"
    assert catalogue.version == catalogue_version()


def test_an_empty_database_is_an_empty_catalogue() -> None:
    Persona.objects.all().delete()
    PhraseList.objects.all().delete()
    catalogue = load_catalogue()
    assert (catalogue.personas, catalogue.phrases) == ({}, ())

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from django.core.exceptions import ValidationError

from personas import cards, phrase_services, services
from personas.models import CatalogueVersion, Persona, PhraseList
from personas.phrase_rules import MAX_TOKEN_BIASES
from personas.selectors import catalogue_version
from personas.snapshot import PhraseRule
from tests.personas.card_samples import as_json, v2
from tests.personas.conftest import WordCounter

pytestmark = pytest.mark.django_db


def biased(count: int, word: str = "w") -> list[PhraseRule]:
    return [PhraseRule(f"{word}{number}", -5.0) for number in range(count)]


def changes_of() -> list[Callable[[Persona, PhraseList], object]]:
    return [
        lambda persona, _: services.save_persona(persona),
        lambda persona, bans: services.save_persona(persona, [bans]),
        lambda persona, _: services.set_personas_enabled(Persona.objects.filter(pk=persona.pk), False),
        lambda persona, _: services.delete_personas(Persona.objects.filter(pk=persona.pk)),
        lambda _, bans: phrase_services.import_phrases(bans, [PhraseRule("more")]),
        lambda _, bans: phrase_services.import_phrases(bans, [PhraseRule("else")], replace=True),
        lambda _, bans: phrase_services.set_phrase_lists_enabled(PhraseList.objects.filter(pk=bans.pk), False),
        lambda _, bans: phrase_services.delete_phrase_lists(PhraseList.objects.filter(pk=bans.pk)),
        lambda *_: phrase_services.create_phrase_list("another"),
        lambda *_: services.import_card(cards.read(as_json(v2())), gender="male", personality="warm"),
    ]


@pytest.mark.parametrize("change", changes_of())
def test_every_change_raises_the_version_and_is_told_after_the_commit(
    change: Callable[[Persona, PhraseList], object],
    persona: Persona,
    news: list[tuple[str, str]],
    django_capture_on_commit_callbacks: Callable[..., object],
) -> None:
    bans = phrase_services.create_phrase_list("bans", [PhraseRule("a")])
    before = catalogue_version()
    with django_capture_on_commit_callbacks(execute=True):  # type: ignore[attr-defined]
        change(persona, bans)
        assert news == []
    assert catalogue_version() > before
    assert set(news) == {("catalogue", "")}


def test_a_refused_change_is_not_told(persona: Persona, news: list[tuple[str, str]]) -> None:
    before = catalogue_version()
    persona.gender = "neither"
    with pytest.raises(ValidationError):
        services.save_persona(persona)
    assert (catalogue_version(), news) == (before, [])


def test_versions_grow_and_never_go_back(persona: Persona) -> None:
    stale = Persona.objects.get(pk=persona.pk)
    for _ in range(3):
        services.save_persona(persona)
    assert persona.version == 4
    services.save_persona(stale)
    assert stale.version == Persona.objects.get(pk=persona.pk).version == 5


def test_a_lists_change_is_a_change_of_its_personas(persona: Persona) -> None:
    bans = phrase_services.create_phrase_list("bans")
    other = Persona.objects.get(slug="mia")
    services.save_persona(persona, [bans])
    version = persona.version
    phrase_services.import_phrases(bans, [PhraseRule("a")])
    persona.refresh_from_db()
    assert persona.version == version + 1
    assert Persona.objects.get(slug="mia").version == other.version
    phrase_services.delete_phrase_lists(PhraseList.objects.filter(pk=bans.pk))
    persona.refresh_from_db()
    assert persona.version == version + 2


def test_a_lost_version_row_is_made_again() -> None:
    CatalogueVersion.objects.all().delete()
    assert catalogue_version() == 0
    phrase_services.create_phrase_list("bans")
    assert catalogue_version() == 1


def test_enabled_personas_keep_the_token_limits(persona: Persona, counter: WordCounter) -> None:
    persona.chat_prompt = "word " * 21
    with pytest.raises(ValidationError, match="21 tokens; at most 20"):
        services.save_persona(persona)
    persona.enabled = False
    services.save_persona(persona)
    with pytest.raises(ValidationError, match="ada: 21 tokens"):
        services.set_personas_enabled(Persona.objects.filter(slug="ada"), True)
    persona.refresh_from_db()
    assert not persona.enabled


def test_import_adds_and_refuses_what_is_there() -> None:
    bans = phrase_services.create_phrase_list("bans", [PhraseRule("Oh honey")])
    with pytest.raises(ValidationError, match="In the list already: 'Oh honey'"):
        phrase_services.import_phrases(bans, [PhraseRule("new"), PhraseRule("oh HONEY")])
    assert phrase_services.rules_of(bans) == (PhraseRule("Oh honey"),)
    phrase_services.import_phrases(bans, [PhraseRule("new", -5.0, whole_word=True)])
    assert phrase_services.rules_of(bans) == (PhraseRule("Oh honey"), PhraseRule("new", -5.0, whole_word=True))


def test_replacing_keeps_notes() -> None:
    bans = phrase_services.create_phrase_list("bans", [PhraseRule("a"), PhraseRule("b")])
    bans.phrases.filter(text="a").update(note="why")
    phrase_services.import_phrases(bans, [PhraseRule("A"), PhraseRule("c")], replace=True)
    assert [(phrase.text, phrase.note) for phrase in bans.phrases.all()] == [("A", "why"), ("c", "")]


@pytest.mark.parametrize("rule", [PhraseRule(""), PhraseRule(" "), PhraseRule("a", 101.0)])
def test_import_refuses_broken_phrases_whole(rule: PhraseRule) -> None:
    with pytest.raises(ValidationError):
        phrase_services.create_phrase_list("bans", [PhraseRule("fine"), rule])
    assert not PhraseList.objects.filter(name="bans").exists()


def test_biases_are_bounded_over_all_lists_in_force(persona: Persona) -> None:
    phrase_services.create_phrase_list("shared", biased(MAX_TOKEN_BIASES - 10, "s"), is_global=True)
    own = phrase_services.create_phrase_list("own", biased(10, "o"))
    services.save_persona(persona, [own])
    with pytest.raises(ValidationError, match=f"{MAX_TOKEN_BIASES + 1} phrases"):
        phrase_services.import_phrases(own, biased(1, "x"))
    more = phrase_services.create_phrase_list("more", biased(11, "m"))  # attached nowhere: not in force
    with pytest.raises(ValidationError, match="at once"):
        services.save_persona(Persona.objects.get(slug="mia"), [more])
    with pytest.raises(ValidationError, match="at once"):
        phrase_services.create_phrase_list("global too", biased(1, "g"), is_global=True)
    phrase_services.set_phrase_lists_enabled(PhraseList.objects.filter(name="shared"), False)
    services.save_persona(Persona.objects.get(slug="mia"), [more])
    with pytest.raises(ValidationError, match="at once"):
        phrase_services.set_phrase_lists_enabled(PhraseList.objects.filter(name="shared"), True)


def test_biased_tokens_are_bounded_over_all_lists_in_force(persona: Persona, counter: WordCounter) -> None:
    words = [PhraseRule(f"a b c {word}", -5.0) for word in "defghijkl"]  # 12 different ones
    phrase_services.create_phrase_list("shared", words, is_global=True)
    phrase_services.create_phrase_list("same words", [PhraseRule("d e f", -5.0)], is_global=True)
    own = phrase_services.create_phrase_list("own", [PhraseRule("z", -5.0), PhraseRule("y banned")])
    with pytest.raises(ValidationError, match="13 tokens; an engine takes 12"):
        services.save_persona(persona, [own])
    with pytest.raises(ValidationError, match="13 tokens"):
        phrase_services.create_phrase_list("more", [PhraseRule("d e y", -5.0)], is_global=True)


def test_a_card_becomes_a_persona_and_comes_back() -> None:
    card = cards.read(as_json(v2()))
    made = services.import_card(card, gender="female", personality="Warm")
    assert (made.slug, made.name, made.gender, made.personality) == ("mia-2", "Mia", "female", "warm")
    back = cards.read(cards.to_png(services.card_of(made)))
    made.delete()
    again = services.import_card(back)
    for name in ("slug", "name", "gender", "personality", "chat_prompt", "card", "sampling", "output_style"):
        assert getattr(again, name) == getattr(made, name)


def test_a_card_without_gender_is_refused() -> None:
    with pytest.raises(ValidationError) as refusal:
        services.import_card(cards.read(as_json(v2())), personality="warm")
    assert set(refusal.value.error_dict) == {"gender"}


def test_a_cards_sampling_is_held_to_the_ranges() -> None:
    card = replace(
        cards.read(as_json(v2())), gender="male", personality="warm", sampling={"temperature": 9.0, "x": 1.0}
    )
    with pytest.raises(ValidationError) as refusal:
        services.import_card(card)
    assert set(refusal.value.error_dict) == {"temperature"}


def test_a_long_card_is_kept_disabled(counter: WordCounter) -> None:
    made = services.import_card(cards.read(as_json(v2())), gender="male", personality="warm")
    assert not made.enabled

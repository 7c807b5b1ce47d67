from __future__ import annotations

from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from pytest_django import Settings

from personas.models import CatalogueVersion, Persona, Phrase, PhraseList
from personas.sampling_ranges import SAMPLING_BOUNDS, SAMPLING_KEYS, sampling_range
from personas.selectors import load_catalogue

pytestmark = pytest.mark.django_db
FIELDS: dict[str, Any] = {
    "slug": "x", "name": "X", "gender": "female", "personality": "calm", "chat_prompt": "You are X."
}  # fmt: skip
OUTSIDE = [(key, value) for key, (low, high) in SAMPLING_BOUNDS.items() for value in (low - 1, high + 1)]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("gender", "other"),
        ("gender", ""),
        ("output_style", "loud"),
        ("slug", ""),
        ("name", ""),
        ("chat_prompt", ""),
        ("personality", ""),
        ("personality", "Calm"),
        *OUTSIDE,
    ],
)
def test_the_database_and_the_form_refuse(field: str, value: Any) -> None:
    persona = Persona(**FIELDS | {field: value})
    with pytest.raises(ValidationError) as refusal:
        persona.full_clean()
    assert field in refusal.value.error_dict
    with pytest.raises(IntegrityError), transaction.atomic():
        persona.save()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("slug", "not a slug"),
        ("personality", "very calm"),
        ("personality", "calm2"),
        ("personality", "x" * 21),
        ("chat_prompt", "x" * 50_001),
        ("chat_prompt", "a\0b"),
    ],
)
def test_the_form_refuses(field: str, value: Any) -> None:
    with pytest.raises(ValidationError) as refusal:
        Persona(**FIELDS | {field: value}).full_clean()
    assert field in refusal.value.error_dict


def test_range_ends_are_allowed_and_empty_means_default() -> None:
    for end in (0, 1):
        Persona(**FIELDS | {key: sampling_range(key)[end] for key in SAMPLING_KEYS}).full_clean()
    persona = Persona(**FIELDS)
    persona.full_clean()
    assert persona.sampling == {}
    persona.min_p = 0.0
    assert persona.sampling == {"min_p": 0.0}


def test_the_form_follows_the_ranges_of_the_environment(settings: Settings) -> None:
    persona = Persona(**FIELDS | {"temperature": 1.5})
    with pytest.raises(ValidationError, match=r"between 0\.2 and 1\.2"):
        persona.full_clean()
    settings.SAMPLING_RANGES = settings.SAMPLING_RANGES | {"temperature": (0.0, 2.0)}
    persona.full_clean()
    persona.save()
    settings.SAMPLING_RANGES = settings.SAMPLING_RANGES | {"temperature": (0.0, 0.5)}
    snapshot = load_catalogue().by_slug("x")
    assert snapshot is not None
    assert snapshot.sampling == {"temperature": 0.5}  # never past what a client may ask for


def test_slugs_are_unique() -> None:
    Persona.objects.create(**FIELDS)
    with pytest.raises(IntegrityError), transaction.atomic():
        Persona.objects.create(**FIELDS)


@pytest.mark.parametrize("text", ["", " ", "\n\t", "​"])
def test_phrases_are_not_blank(text: str) -> None:
    phrase = Phrase(phrase_list=PhraseList.objects.create(name="mine"), text=text)
    with pytest.raises(ValidationError):
        phrase.full_clean()


@pytest.mark.parametrize(
    ("text", "key", "bias"), [("", "~", -100.0), ("a", "", -100.0), ("a", "~a", -101.0), ("a", "~a", 101.0)]
)
def test_the_database_refuses_broken_phrases(text: str, key: str, bias: float) -> None:
    phrase_list = PhraseList.objects.create(name="mine")
    with pytest.raises(IntegrityError), transaction.atomic():
        Phrase.objects.create(phrase_list=phrase_list, text=text, key=key, bias=bias)


def test_a_phrase_is_in_a_list_once() -> None:
    mine, other = PhraseList.objects.create(name="mine"), PhraseList.objects.create(name="other")
    for phrase_list in (mine, other):
        phrase = Phrase(phrase_list=phrase_list, text="It’s me")
        phrase.full_clean()
        phrase.save()
    again = Phrase(phrase_list=mine, text="IT'S ME")
    with pytest.raises(ValidationError, match="in the list already"):
        again.full_clean()
    with pytest.raises(IntegrityError), transaction.atomic():
        again.save()
    marked = Phrase(phrase_list=mine, text="IT'S ME", case_sensitive=True)
    marked.full_clean()
    marked.save()


def test_one_catalogue_version() -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        CatalogueVersion.objects.create(pk=2)


def test_migrations_install_the_builtin_list_and_three_personas() -> None:
    builtin = PhraseList.objects.get(builtin=True)
    assert (builtin.is_global, builtin.enabled) == (True, True)
    texts = [phrase.text for phrase in builtin.phrases.order_by("pk")]
    assert len(texts) == 24
    assert {texts[0], texts[-1]} == {"*winks*", " - "}
    for phrase in builtin.phrases.all():
        assert phrase.rule.banned
        key = phrase.key
        phrase.clean()
        assert phrase.key == key
    demo = list(Persona.objects.order_by("slug"))
    assert [persona.slug for persona in demo] == ["mia", "nova", "theo"]
    assert {persona.gender for persona in demo} == {"female", "male"}
    assert len({persona.personality for persona in demo}) == 3
    for persona in demo:
        persona.full_clean()
        assert len(persona.chat_prompt.split()) < 80

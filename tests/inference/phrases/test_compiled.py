from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from inference.phrases.compiled import MAX_BIASED_TOKENS, CompiledPhrases, PhraseStore, token_biases
from inference.phrases.guard import PhraseGuard
from inference.prompting.chat_template import ChatFormat
from personas.snapshot import Catalogue, PersonaSnapshot, PhraseRule
from tests.fakes.engine import tiny_tokenizer
from tests.fakes.serving import ANNA, MAX, catalogue

FORM = ChatFormat(tiny_tokenizer())
LISTED = replace(ANNA, phrases=(PhraseRule("my dear"),))
GLOBAL = (PhraseRule("oh honey"),)


def store(*personas: PersonaSnapshot, phrases: tuple[PhraseRule, ...] = ()) -> PhraseStore:
    made = PhraseStore(FORM)
    made.install(made.compile(catalogue(*personas, phrases=phrases)))
    return made


def bans(compiled: CompiledPhrases, text: str) -> bool:
    _, hit = PhraseGuard(compiled.automaton).feed(f"{text}.")
    return hit is not None


def test_a_persona_has_the_global_phrases_and_its_own() -> None:
    made = store(LISTED, MAX, phrases=GLOBAL)
    for text, banned in {"oh honey": (True, True, True), "my dear": (True, False, False)}.items():
        assert (bans(made.of(LISTED), text), bans(made.of(MAX), text), bans(made.of(None), text)) == banned


def test_an_empty_store_bans_nothing() -> None:
    made = PhraseStore(None)
    assert made.catalogue == Catalogue()
    assert not bans(made.of(None), "oh honey. ")
    assert not made.of(None).logit_bias


def test_a_list_is_compiled_once_and_shared() -> None:
    made = store(LISTED, replace(MAX, phrases=LISTED.phrases), phrases=GLOBAL)
    before = made.of(LISTED)
    assert made.of(made.catalogue.by_slug(MAX.slug)) is before
    made.install(made.compile(replace(made.catalogue, version=2)))
    assert made.of(LISTED) is before


def test_nothing_is_in_force_before_it_is_installed() -> None:
    made = store(LISTED)
    compiled = made.compile(catalogue(LISTED, phrases=GLOBAL))
    assert not bans(made.of(LISTED), "oh honey")
    made.install(compiled)
    assert bans(made.of(LISTED), "oh honey")
    assert made.catalogue is compiled.catalogue


@pytest.mark.parametrize("edits", [1, 2, 3])
def test_a_persona_that_left_the_catalogue_keeps_its_phrases_and_gets_new_global_ones(
    edits: int, caplog: pytest.LogCaptureFixture
) -> None:
    made = store(LISTED, MAX)
    for edit in range(edits):
        rules = (PhraseRule(f"edit number {edit}"), *GLOBAL)
        made.install(made.compile(catalogue(MAX, phrases=rules), [LISTED] if edit else []))
    with caplog.at_level(logging.WARNING):
        kept = made.of(LISTED)
    assert bans(kept, "my dear")
    assert bans(kept, "oh honey")
    assert bans(kept, f"edit number {edits - 1}")
    assert made.of(LISTED) is kept
    assert not caplog.messages  # the answer was ready


def test_a_snapshot_that_the_store_never_saw_is_guarded_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    made = store(MAX, phrases=GLOBAL)
    with caplog.at_level(logging.WARNING):
        found = made.of(LISTED)
    assert bans(found, "my dear")
    assert bans(found, "oh honey")
    assert caplog.messages == ["phrases of persona anna compiled on the serving loop"]


def test_no_list_is_walked_for_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    made = store(LISTED, MAX, phrases=GLOBAL)
    gone = replace(LISTED, slug="gone")
    made.install(made.compile(catalogue(LISTED, phrases=GLOBAL), [gone]))
    walked: list[PhraseRule] = []

    def walk(rule: PhraseRule) -> int:
        walked.append(rule)
        return 0

    monkeypatch.setattr(PhraseRule, "__hash__", walk)
    for snapshot in (None, LISTED, gone):
        made.of(snapshot)
    assert not walked


def test_a_bias_above_the_ban_is_a_token_bias() -> None:
    bias = store(phrases=(PhraseRule("weather", bias=-3.0), *GLOBAL)).of(None).logit_bias
    assert bias == token_biases(FORM.text.encode, [PhraseRule("weather", bias=-3.0)])
    assert set(bias.values()) == {-3.0}
    assert set(bias) == {*FORM.text.encode("weather"), *FORM.text.encode(" weather")}


def test_more_biases_than_an_engine_takes_are_cut() -> None:
    assert MAX_BIASED_TOKENS + 48 * 2 <= 1024
    rules = tuple(PhraseRule(chr(0x4E00 + n) + chr(0x61 + n % 26), bias=-1.0) for n in range(500))
    assert len(store(phrases=rules).of(None).logit_bias) <= MAX_BIASED_TOKENS

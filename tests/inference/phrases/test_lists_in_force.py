"""From rows to what a session forbids: lists as operators keep them, loaded, compiled, run."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from inference.phrases.compiled import CompiledPhrases, PhraseStore
from inference.phrases.guard import PhraseGuard
from inference.prompting.chat_template import ChatFormat
from personas.models import Persona, PhraseList
from personas.phrase_files import dump_json, dump_lines, parse
from personas.phrase_services import create_phrase_list, import_phrases, rules_of
from personas.selectors import load_catalogue
from personas.snapshot import PhraseRule
from tests.fakes.engine import tiny_tokenizer

pytestmark = pytest.mark.django_db
FORM = ChatFormat(tiny_tokenizer())


def in_force(slug: str | None = None) -> CompiledPhrases:
    """What holds for a persona, or for who names none."""
    made = PhraseStore(FORM)
    made.install(made.compile(load_catalogue()))
    return made.of(made.catalogue.by_slug(slug) if slug else None)


def met(compiled_phrases: CompiledPhrases, text: str) -> list[str]:
    """The phrases that are cut from a text, by their listed spelling."""
    guard, found = PhraseGuard(compiled_phrases.automaton), []
    for step in (*text, None):
        _, hit = guard.finish() if step is None else guard.feed(step)
        while hit is not None:
            found.append(hit.phrase)
            _, hit = guard.skip()
    return found


@pytest.fixture
def _no_builtin_list(db: None) -> None:
    PhraseList.objects.all().delete()


own_lists = pytest.mark.usefixtures("_no_builtin_list")


@pytest.fixture
def ada(db: None) -> Persona:
    return Persona.objects.create(slug="ada", name="Ada", gender="female", personality="dry", chat_prompt="Be Ada.")


def test_the_builtin_list_of_the_migration_is_in_force() -> None:
    compiled_phrases = in_force()
    for text in ("Oh, honey", "so - no", "WELL, WELL", "hi ;)", "*Winks*.", "What’s really on your mind?"):
        assert met(compiled_phrases, text), text
    assert not met(compiled_phrases, "Oh dear honey. Well-known: winks")


@own_lists
def test_global_lists_hold_for_all_and_attached_ones_for_theirs(ada: Persona) -> None:
    create_phrase_list("all", [PhraseRule("oh honey")], is_global=True)
    ada.phrase_lists.add(create_phrase_list("hers", [PhraseRule("dear me")]))
    create_phrase_list("nobody's", [PhraseRule("never mind")])
    text = "Oh honey, dear me, never mind"
    assert met(in_force(), text) == ["oh honey"]
    assert met(in_force("ada"), text) == ["oh honey", "dear me"]


@own_lists
def test_a_disabled_list_is_not_in_force() -> None:
    off = create_phrase_list("off", [PhraseRule("oh honey")], is_global=True)
    off.enabled = False
    off.save()
    assert met(in_force(), "oh honey") == []


MARKED = (
    PhraseRule("don't you"),
    PhraseRule("“Quote”"),
    PhraseRule("Rose", case_sensitive=True),
    PhraseRule("cat", whole_word=True),
    PhraseRule(" - "),
    PhraseRule("Straße"),
)


@own_lists
@pytest.mark.parametrize("way", ["rows", "json"])
def test_marks_and_quotes_come_through(way: str) -> None:
    rules = parse(dump_json(MARKED)) if way == "json" else MARKED
    made = create_phrase_list("marked", rules, is_global=True)
    assert rules_of(made) == MARKED
    compiled_phrases = in_force()
    said = {
        "DON’T YOU know": ["don't you"],
        'a "quote" here': ["“Quote”"],
        "Rose rose ROSE": ["Rose"],
        "cat, cats, bobcat, Cat": ["cat", "cat"],
        "well - yes-no": [" - "],
        "STRASSE": ["Straße"],
    }
    assert {text: met(compiled_phrases, text) for text in said} == said


@own_lists
def test_plain_text_in_and_out() -> None:
    text = "oh honey\n - \nwell, well\n"
    made = create_phrase_list("lines", parse(text), is_global=True)
    assert dump_lines(rules_of(made)) == text
    assert met(in_force(), "So - Well, WELL, oh honey") == [" - ", "well, well", "oh honey"]
    import_phrases(made, parse("only this"), replace=True)
    assert met(in_force(), "Well, well, ONLY THIS") == ["only this"]


def biased(texts: Iterable[str]) -> set[int]:
    return {token for text in texts for token in FORM.text.encode(text)}


@own_lists
def test_a_bias_above_the_ban_is_a_token_bias_and_no_ban(ada: Persona) -> None:
    create_phrase_list("all", parse('{"hello": -3.5, "oh honey": -100}'), is_global=True)
    ada.phrase_lists.add(create_phrase_list("hers", parse('{"weather": 2}')))
    assert met(in_force(), "hello oh honey") == ["oh honey"]
    assert dict(in_force().logit_bias) == dict.fromkeys(biased(["hello", " hello"]), -3.5)
    hers = in_force("ada").logit_bias
    assert {hers[token] for token in biased(["weather"])} == {2.0}

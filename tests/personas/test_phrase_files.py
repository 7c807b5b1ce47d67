from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from personas.phrase_files import MAX_FILE_BYTES, decode, dump_json, dump_lines, load_phrase_file, parse
from personas.phrase_rules import MAX_TOKEN_BIASES, check_rules, phrase_key
from personas.snapshot import PhraseRule
from tests.examples import examples


def test_json_keeps_order_spaces_and_biases() -> None:
    assert parse('{" - ": -100, "Oh honey": -5.5}') == (PhraseRule(" - ", -100.0), PhraseRule("Oh honey", -5.5))


def test_json_takes_marks() -> None:
    assert parse('{"US": {"bias": -100, "case_sensitive": true, "whole_word": true}}') == (
        PhraseRule("US", -100.0, case_sensitive=True, whole_word=True),
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no phrases"),
        ("{", "looks like a part of a JSON"),
        ('{"a', "not JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('[["a", 0.5], ["b", 3]]', "biases, probabilities or counts"),
        ('{"a": NaN}', "NaN is not a number"),
        ('{"a": 1' + "0" * 5000 + "}", "not JSON"),
        ('{"a": 1' + "0" * 400 + "}", "must be a number"),
        ('{"a": true}', "must be a number"),
        ('{"a": "-100"}', "must be a number"),
        ('{"a": null}', "must be a number"),
        ('{"a": -101}', "between -100 and 100"),
        ('{"a": 100.5}', "between -100 and 100"),
        ('{"": -100}', "phrase is empty"),
        ('{" \\t ": -100}', "only white space"),
        ('{"\\u200b": -100}', "only white space"),
        ('{"\\ud800": -100}', "not text"),
        ('{"a\\u0000": -100}', "not text"),
        ('{"a": -100, "a": -100}', "duplicate"),
        ('{"Oh honey": -100, "oh HONEY": -50}', "'oh HONEY' is a duplicate"),
        ('{"it\\u2019s": -100, "it\'s": -100}', "duplicate"),
        ('{"a": {"bias": -100, "colour": 1}}', "unknown 'colour'"),
        ('{"a": {"whole_word": "yes"}}', "true or false"),
        ('{"' + "a" * 301 + '": -100}', "longer than 300"),
    ],
)
def test_json_refusals_say_why(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse(text)


def test_case_matters_where_it_is_marked() -> None:
    rules = (PhraseRule("US", case_sensitive=True), PhraseRule("us", case_sensitive=True))
    assert check_rules(rules) == rules
    assert phrase_key("STRASSE") == phrase_key("straße")


def test_token_biases_are_bounded() -> None:
    rules = [PhraseRule(f"w{number}", -5.0) for number in range(MAX_TOKEN_BIASES + 1)]
    assert len(check_rules(rules[:-1])) == MAX_TOKEN_BIASES
    with pytest.raises(ValueError, match=f"{MAX_TOKEN_BIASES + 1} phrases have a bias above -100"):
        check_rules(rules)
    assert check_rules([PhraseRule(rule.text) for rule in rules])  # bans have no such bound


def test_lines_keep_spaces_and_skip_empty_lines() -> None:
    assert parse(" - \r\n\r\n# not a comment\n") == (PhraseRule(" - "), PhraseRule("# not a comment"))


@pytest.mark.parametrize(("text", "reason"), [("a\n \nb", "line 2"), ("a\nA\n", "duplicate"), ("\n\n", "no phrases")])
def test_line_refusals_say_why(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse(text)


def test_numbers_of_an_object_are_biases() -> None:
    assert parse('\n{"a": 3}\n') == (PhraseRule("a", 3.0),)
    assert parse('[["a", -3]]') == (PhraseRule("a", -3.0),)
    assert parse("{{char}}\nb") == (PhraseRule("{{char}}"), PhraseRule("b"))


def test_files_in_other_encodings() -> None:
    assert decode("\ufeffé".encode()) == "é"
    assert decode("é\n".encode("utf-16")) == "é\n"
    with pytest.raises(ValueError, match=r"not UTF-8 text \(byte 0\)"):
        decode("é".encode("latin-1"))


@pytest.mark.parametrize(
    "phrases", [['"quoted"'], ["a: 5", "b: 6"], ["- a", "- b"], ["phrase", "a"], ["[1]"], ["a||$||b"]]
)
def test_plain_text_refuses_what_would_come_back_changed(phrases: list[str]) -> None:
    rules = [PhraseRule(phrase) for phrase in phrases]
    with pytest.raises(ValueError, match="as another format"):
        dump_lines(rules)
    assert parse(dump_json(rules)) == tuple(rules)


@pytest.mark.parametrize(
    "rule", [PhraseRule("a", -5.0), PhraseRule("a", whole_word=True), PhraseRule("a\nb"), PhraseRule("a\rb")]
)
def test_plain_text_refuses_what_it_cannot_keep(rule: PhraseRule) -> None:
    with pytest.raises(ValueError, match="plain text cannot keep"):
        dump_lines([rule])


def test_json_refuses_one_text_twice() -> None:
    with pytest.raises(ValueError, match="listed twice"):
        dump_json([PhraseRule("US"), PhraseRule("US", case_sensitive=True)])


texts = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), min_size=1, max_size=20).filter(
    lambda text: any(character.isalnum() for character in text)
)
rules = st.builds(PhraseRule, texts, st.floats(-100, 100), st.booleans(), st.booleans())


@examples(40)
@given(st.lists(rules, max_size=8, unique_by=lambda rule: rule.text.casefold()))
def test_json_round_trip(listed: list[PhraseRule]) -> None:
    try:
        checked = check_rules(listed)
    except ValueError:
        return  # equal after their quotes were straightened
    assert parse(dump_json(checked)) == checked


def test_lines_round_trip() -> None:
    listed = (PhraseRule(" - "), PhraseRule("*winks*"), PhraseRule("Well, well"))
    assert parse(dump_lines(listed)) == listed


def test_file(tmp_path: Path) -> None:
    path = tmp_path / "bans.json"
    path.write_bytes(b'\xef\xbb\xbf{"Oh honey": -100}')
    assert load_phrase_file(path) == (PhraseRule("Oh honey"),)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"a: 1\nb: 2", b'{"": -100}', b" " * (MAX_FILE_BYTES + 1)])
def test_broken_file_is_one_line_that_names_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bans.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"bans\.json: ") as refusal:
        load_phrase_file(path)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", ["missing.json", "."])
def test_unreadable_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"(No such file|Is a directory)"):
        load_phrase_file(tmp_path / name)

"""Phrase lists as people bring them: every format is read, or refused with the reason and the place."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from personas.phrase_formats import Reading, read
from personas.phrase_import import NumberMeaning, preview, suggested_meaning


def texts(reading: Reading) -> list[str]:
    return [entry.text for entry in reading.entries]


def numbers(reading: Reading) -> list[float | None]:
    return [entry.number for entry in reading.entries]


ANTISLOP = '[\n    ["symphony", 0.03125],\n    ["testament to", 0.03125],\n    ["delving", 0.05988111477573171]\n]'
COUNTS = '[\r\n  ["took a deep breath", 28671],\r\n  ["voice, a low, resonant", 20]\r\n]\r\n'


@pytest.mark.parametrize(
    ("text", "found", "with_numbers"),
    [
        # JSON
        (ANTISLOP, ["symphony", "testament to", "delving"], True),
        (COUNTS, ["took a deep breath", "voice, a low, resonant"], True),
        ('["a b", "c"]', ["a b", "c"], False),
        ('[["a"], ["b"]]', ["a", "b"], False),
        ('[[0.5, "a"], [0.25, "b"]]', ["a", "b"], True),
        ('["a", ["b", 2]]', ["a", "b"], True),
        ('[{"phrase": "a"}, {"Text": "b", "Count": 3}]', ["a", "b"], True),
        ('{"phrases": ["a", "b"]}', ["a", "b"], False),
        ('{"a": -100, " b ": -5}', ["a", " b "], True),
        ('{"phrases": -100}', ["phrases"], True),
        ('"a"\n"b",\n"c"', ["a", "b", "c"], False),
        ('["a", 1]\n["b", 2]\n', ["a", "b"], True),
        ('["a", 1],\n["b", 2],', ["a", "b"], True),
        ('{"text": "a"}\n{"text": "b"}', ["a", "b"], False),
        ('\ufeff["a"]'.lstrip("\ufeff"), ["a"], False),
        # SillyTavern: logit bias, banned tokens, a preset of a text completion backend
        ('[{"id": "1", "text": " word", "value": -50}, {"id": "2", "text": "{ verbatim }", "value": 3}]',
         [" word", " verbatim "], True),
        ('"a shiver ran"\n"down her spine"', ["a shiver ran", "down her spine"], False),
        ('"a \\"quoted\\" word"\n"b"', ['a "quoted" word', "b"], False),
        ('"shiver"\nbare words', ["shiver", "bare words"], False),
        (json.dumps({"temp": 1, "banned_tokens": '"a"\n"b"', "global_banned_tokens": "", "logit_bias": []}),
         ["a", "b"], False),
        (json.dumps({"temp": 1, "logit_bias": [{"id": "1", "text": "a", "value": -5}]}), ["a"], True),
        # KoboldCpp: the API's payload, KoboldAI Lite's text and settings
        ('{"prompt": "x", "banned_tokens": ["shiver", " ministrations"]}', ["shiver", " ministrations"], False),
        ("shiver||$||down her spine||$||", ["shiver", "down her spine"], False),
        ('{"savedsettings": {"tokenbans": "a||$||b c"}}', ["a", "b c"], False),
        # CSV
        ("phrase,bias\nOh honey,-100\n\"well, well\",-50\n", ["Oh honey", "well, well"], True),
        ("Phrase;Count\r\na;3\r\nb;4\r\n", ["a", "b"], True),
        ("rank\tword\tfreq\n1\tdelve\t500\n2\telara\t400\n", ["delve", "elara"], True),
        ("phrase\na\n\"b, c\"\n", ["a", "b, c"], False),
        ('text,whole_word\nUS,yes\n"say ""hi""",no', ["US", 'say "hi"'], False),
        # lines
        ("tapestry: -100\ntestament to: -50.5\n", ["tapestry", "testament to"], True),
        ("tapestry = 3\nwell, well = 2", ["tapestry", "well, well"], True),
        ("tapestry, 12\nshiver, 3", ["tapestry", "shiver"], True),
        ('"tapestry", 0.5\n"it: 5", 0.25\n', ["tapestry", "it: 5"], True),
        ('"tapestry": -5,\n"b": -6,', ["tapestry", "b"], True),
        ("tapestry\t5\nshiver\t6", ["tapestry", "shiver"], True),
        ("“a shiver”\n“ran down”", ["a shiver", "ran down"], False),
        ("'a shiver'\n'ran down',", ["a shiver", "ran down"], False),
        ("- a shiver\n- ran down", ["a shiver", "ran down"], False),
        ("* a\n* b", ["a", "b"], False),
        ("1. a\n2. b", ["a", "b"], False),
        (" - \n*winks*\n:)\n~\nWell, well, well\n", [" - ", "*winks*", ":)", "~", "Well, well, well"], False),
        ("{{char}}\n[OOC\n(laughs)", ["{{char}}", "[OOC", "(laughs)"], False),
        ("at 5: 30\nlate", ["at 5: 30", "late"], False),
        ("a\r\nb\rc", ["a", "b", "c"], False),
        ("# no comment\na", ["# no comment", "a"], False),
    ],
)  # fmt: skip
def test_formats(text: str, found: list[str], with_numbers: bool) -> None:
    reading = read(text)
    assert texts(reading) == found
    assert reading.has_numbers is with_numbers
    for entry in reading.entries:
        assert entry.text not in ("[", "]", "{", "}", "")
        assert entry.place


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no phrases"),
        ("\n \n", "no phrases"),
        ("[]", "no phrases"),
        ("{}", "no phrases"),
        ('{"banned_tokens": []}', "no phrases"),
        ('{"banned_tokens": "", "temp": 1}', "no phrases"),
        ('[\n  ["symphony", 0.03125],\n  ["testa', r"not JSON: .* \(line 3"),
        ('["a", "b",]', "not JSON"),
        ("[" * 100_000 + "1", "nested too deeply|not JSON"),
        ('{"a": NaN}', "NaN is not a number"),
        ("[1, 2, 3]", "entry 1 .*token ids"),
        ("[[1, 2]]", r"entry 1 .*not a pair"),
        ('[["a", 1, 2]]', r"entry 1 .*not a pair"),
        ('[["a", true]]', "entry 1: the bias must be a number"),
        ("[null]", "entry 1"),
        ('{"50256": -100, "198": -100}', "token ids"),
        ('[{"token": 198, "bias": -100}]', "token ids"),
        ('[{"id": "x", "text": "[198, 50256]", "value": -100}]', "entry 1 .*token ids"),
        ('[{"bias": -100}]', "entry 1: no phrase"),
        ('{"a": true}', "must be a number"),
        ('{"a": "b"}', "must be a number"),
        ('{"a": {"bias": -100, "colour": 1}}', "unknown 'colour'"),
        ('{"a": {"whole_word": "yes"}}', "true or false"),
        ('{"a": 1' + "0" * 400 + "}", "must be a number"),
        ('"shiver"\n[198, 50256]', r"line 2 .*token ids"),
        ("a\n[\nb", r"line 2 \('\['\) looks like a part of a JSON"),
        ('    ["symphony", 0.03125],\nbroken', "line 2 .*has no number|looks like a part of|not JSON"),
        ('words:\n["a", "b"],', "line 2 .*looks like a part of"),
        ("a: 1\nb: 2\nc: 3\nd: 4\ne: 5\nf", r"line 6 \('f'\) has no number, and 5 other lines have one"),
        ("phrase,bias\na,b\n", "line 2: 'b' is not a number"),
        ("phrase,bias\na,-1,3\n", "line 2: 3 columns, and the header has 2"),
        ("phrase,bias\n,5\n", "line 2"),
        ('phrase,bias\n"a"b,5\n', "line 2: not CSV"),
        ("a\n \nb", "line 2: the phrase is only white space"),
        ('"a\\q"\n"b"', "line 1: .*broken escape"),
        ("x" * 5_000, "line 1 .*longer than 300"),
        (json.dumps([f"w{number}" for number in range(100_001)]), "100001 phrases; a list holds at most 100000"),
    ],
)
def test_refusals_name_the_place(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read(text)


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        (ANTISLOP, NumberMeaning.IGNORED),
        (COUNTS, NumberMeaning.IGNORED),
        ('[["a", -5]]', NumberMeaning.BIAS),
        ("a: -5\nb: 3", NumberMeaning.BIAS),
        ("phrase,bias\na,5", NumberMeaning.BIAS),
        ("phrase,count\na,5", NumberMeaning.IGNORED),
        ('[{"text": "a", "bias": 5}]', NumberMeaning.BIAS),
        ('[{"text": "a", "probability": 0.5}]', NumberMeaning.IGNORED),
        ('{"a": {"bias": 5}}', NumberMeaning.BIAS),
    ],
)
def test_the_meaning_of_numbers_is_offered(text: str, meaning: NumberMeaning) -> None:
    assert suggested_meaning(read(text)) is meaning


def test_what_numbers_mean() -> None:
    reading = read('[["a", 0.5], ["b", 0], ["c", 1], ["d"]]')
    assert [rule.bias for rule in preview(reading, NumberMeaning.IGNORED).rules] == [-100] * 4
    assert [rule.bias for rule in preview(reading, NumberMeaning.BIAS).rules] == [0.5, 0, 1, -100]
    probable = preview(reading, NumberMeaning.PROBABILITY)
    assert [rule.bias for rule in probable.rules] == pytest.approx([-0.693147, -100, 0, -100])
    assert (probable.banned, probable.biased) == (2, 2)
    with pytest.raises(ValueError, match=r"entry 1 \('took a deep breath'\): 28671 is no probability"):
        preview(read(COUNTS), NumberMeaning.PROBABILITY)
    with pytest.raises(ValueError, match=r"entry 1 .*between -100 and 100"):
        preview(read(COUNTS), NumberMeaning.BIAS)


def test_equal_phrases_are_left_out_once() -> None:
    """Whatever the guard cannot tell apart is one phrase."""
    same = ["It's cafe\u0301", "it\u2019s café", "IT\u00b4S\u00a0CAFÉ", "it's\u200b ca\u00adfé", "it's\u202fcafé"]
    found = preview(read(json.dumps([*same, "other", "in it"])), NumberMeaning.IGNORED, known_keys={"~in it"})
    assert [rule.text for rule in found.rules] == [same[0], "other"]
    assert (found.duplicates, found.known) == (tuple(same[1:]), ("in it",))


def test_whole_words_for_all() -> None:
    found = preview(read("a\nb"), NumberMeaning.IGNORED, whole_word=True)
    assert all(rule.whole_word for rule in found.rules)


@pytest.mark.parametrize(
    ("phrase", "reason"),
    [("x" * 301, "longer than 300"), ("\u200b", "only white space"), ("\ufe0f", "invisible"), ("a\0", "not text")],
)
def test_unusable_phrases_are_refused_with_their_place(phrase: str, reason: str) -> None:
    with pytest.raises(ValueError, match=f"entry 2 .*{reason}"):
        preview(read(json.dumps(["a", phrase])), NumberMeaning.IGNORED)


@pytest.mark.parametrize(
    "text",
    [
        '"' * 4_000,
        '"\\' * 2_000,
        " " * 4_000 + "x",
        ("a" + " " * 100) * 40,
        ":" * 4_000,
        "a: " * 1_300,
        "[" + " " * 4_000,
        "[{" * 2_000,
        ", " * 2_000,
        "1" * 4_000,
        "- " * 2_000,
    ],
)
def test_hostile_lines_take_no_time(text: str) -> None:
    started = time.process_time()
    for lines in (text, "\n".join([text] * 50)):
        try:
            read(lines)
        except ValueError:
            continue
    assert time.process_time() - started < 3


@pytest.mark.thorough
def test_a_hundred_thousand_phrases() -> None:
    pairs: list[Any] = [[f"phrase number {number}", number] for number in range(100_000)]
    started = time.process_time()
    found = preview(read(json.dumps(pairs)), NumberMeaning.IGNORED)
    assert len(found.rules) == 100_000
    assert time.process_time() - started < 20

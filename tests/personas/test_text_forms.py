"""Forms of text that read the same: tables, examples of the issue, and properties over all of Unicode."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from personas.text_forms import BLANKS, FORMS, INVISIBLE, fold_case, fold_form

TEXT = st.text(st.one_of(st.characters(), st.sampled_from([*map(chr, FORMS), "e", "\u0301", "\u0345", "ß", "İ"])))


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("cafe\u0301", "café"),
        ("no\u00a0break", "no break"),
        ("narrow\u202fblank", "narrow blank"),
        ("ideographic\u3000blank", "ideographic blank"),
        ("well\u2010known", "well-known"),
        ("well\u2011known", "well-known"),
        ("zero\u200bwidth", "zerowidth"),
        ("zero\u200c\u200d\u2060\ufeffwidth", "zerowidth"),
        ("soft\u00adhyphen", "softhyphen"),
        ("e\u200b\u0301", "é"),
        ("\u202eright\u202c", "right"),
        ("it\u2019s \u201cgood\u201d", 'it\'s "good"'),
        ("it\u00b4s", "it's"),
        ("❤\ufe0f", "❤"),
        ("\U0001f3f4\U000e0067\U000e007f", "\U0001f3f4"),
        ("한\u1100", "한\u1100"),
        ("a — b – c − d", "a — b – c − d"),
        ("«a» `b` …", "«a» `b` …"),
        ("tab\tand\nline", "tab\tand\nline"),
        ("Case", "Case"),
        ("\u3164", "\u3164"),
    ],
)
def test_forms(text: str, plain: str) -> None:
    assert fold_form(text) == plain


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("STRASSE", "straße"),
        ("É", "e\u0301"),
        ("ΐ", "\u03b9\u0308\u0301"),
        ("\u1f80", "\u03b1\u0313\u0345"),
        ("İ", "i\u0307"),
        ("Σ", "ς"),
    ],
)
def test_case(one: str, other: str) -> None:
    assert fold_case(one) == fold_case(other)


def test_case_is_kept_by_the_form() -> None:
    assert fold_form("É") != fold_form("é")


def test_the_blanks_are_those_of_unicode() -> None:
    separators = {chr(code) for code in range(0x110000) if unicodedata.category(chr(code)) == "Zs"}
    assert set(BLANKS) | {" "} == separators


@given(TEXT)
def test_the_form_is_idempotent(text: str) -> None:
    assert fold_form(fold_form(text)) == fold_form(text)


@given(TEXT)
def test_the_case_folded_form_is_idempotent(text: str) -> None:
    assert fold_case(fold_case(text)) == fold_case(text)


@given(TEXT)
def test_composition_does_not_matter(text: str) -> None:
    assert fold_form(unicodedata.normalize("NFD", text)) == fold_form(text)
    assert fold_case(unicodedata.normalize("NFD", text)) == fold_case(text)


@given(TEXT, st.data())
def test_an_invisible_character_anywhere_does_not_matter(text: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(text)))
    hidden = text[:at] + data.draw(st.sampled_from(INVISIBLE)) + text[at:]
    assert fold_form(hidden) == fold_form(text)
    assert fold_case(hidden) == fold_case(text)

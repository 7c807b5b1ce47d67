"""Macros of cards: the specification's examples, what people write instead, bounds, and stability."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from personas.macros import MAX_DEPTH, ExpansionTooLong, display_user_name, expand, steady_moment

NOW = datetime(2026, 11, 5, 16, 9, tzinfo=UTC)


def said(template: str, *, user: str = "Bob", char: str = "Mia", seed: str = "s", max_chars: int = 50_000) -> str:
    return expand(template, user=user, char=char, seed=seed, now=NOW, max_chars=max_chars)


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{user}}", "Bob"),
        ("{{User}}, {{ user }}, {{USER}}, <USER>, <user>, <User>", "Bob, Bob, Bob, Bob, Bob, Bob"),
        ("{{char}}, {{Char}}, {{ CHAR }}, <BOT>, <bot>, <CHAR>, <char>", "Mia, Mia, Mia, Mia, Mia, Mia, Mia"),
        ("{{{user}}}", "{Bob}"),
        ("{{{{user}}}}", "{{Bob}}"),
        ("{{\nuser\t}}", "Bob"),
        ("{user} < user > <users>", "{user} < user > <users>"),
        ("{{// a note for {{user}} }}x", "x"),
        ("{{//}}x", "x"),
        ("{{ // x\ny }}z", "z"),
        ("{{comment: inline}}x{{hidden_key:lore}}", "x"),
        ("{{comment}} {{reverse Hello}}", "{{comment}} {{reverse Hello}}"),
        ("{{reverse:Hello}}", "olleH"),
        ("{{REVERSE:{{char}}}}", "aiM"),
        ("{{reverse:e\u0301a}}", "ae\u0301"),
        ("{{reverse:}}", ""),
        ("{{time}} {{date}} {{weekday}}", "4:09 PM November 5, 2026 Thursday"),
        ("{{isotime}} {{ ISODATE }}", "16:09 2026-11-05"),
        ("{{random:only}}", "only"),
        ("{{random:}}", ""),
        (r"{{pick:a\,b}}", "a,b"),
        ("{{random:{{user}}}}", "Bob"),
        ("{{roll:1}}", "1"),
        ("{{roll:d1}} {{roll:D1}} {{roll 3d1}} {{roll:2d1+5}} {{roll: 2d1-1 }}", "1 1 3 7 1"),
        ("{{roll:0}} {{roll:cat}} {{roll:999d6}} {{roll:}}", "{{roll:0}} {{roll:cat}} {{roll:999d6}} {{roll:}}"),
        ("{{getvar::{{char}}}} {{}} {{ }}", "{{getvar::Mia}} {{}} {{ }}"),
        ("{{ open {{user}}", "{{ open Bob"),
        ("}} {{user}} }}", "}} Bob }}"),
        ("Hello.\nA  b\t", "Hello.\nA  b\t"),
        ("", ""),
    ],
)
def test_macros(template: str, text: str) -> None:
    assert said(template) == text


@pytest.mark.parametrize(
    "macro", ["random:Hello,Hi,Hey", "pick:Hello, Hi, Hey", "pick::Hello,Hi,Hey", "random::Hello::Hi::Hey"]
)
def test_every_option_is_drawn_some_time(macro: str) -> None:
    drawn = {said(f"{{{{{macro}}}}}", seed=str(seed)) for seed in range(100)}
    assert drawn == {"Hello", "Hi", "Hey"}


def test_a_die_shows_each_of_its_faces() -> None:
    assert {said("{{roll:d6}}", seed=str(seed)) for seed in range(200)} == set("123456")


def test_options_with_double_colons_keep_their_commas() -> None:
    assert {said("{{random::a, b::c}}", seed=str(seed)) for seed in range(50)} == {"a, b", "c"}


def test_two_equal_macros_are_drawn_apart() -> None:
    assert len({said("{{roll:1000000}}" * 2, seed=str(seed)).count("7") for seed in range(20)}) > 1
    assert any(len(set(said("{{pick:a,b}}{{pick:a,b}}", seed=str(seed)))) == 2 for seed in range(20))


@pytest.mark.parametrize("macro", ["pick:a,b,c,d,e,f,g,h", "random:a,b,c,d,e,f,g,h", "roll:1000000"])
def test_a_seed_settles_everything(macro: str) -> None:
    first = said(f"{{{{{macro}}}}}")
    assert said(f"{{{{{macro}}}}}") == first
    assert said(f"Something else before: {{{{{macro}}}}}").endswith(first)


def test_a_name_is_text_and_no_macro() -> None:
    assert said("{{user}} {{char}}", user="{{roll:6}}", char="{{user}}") == "{{roll:6}} {{user}}"
    assert said("{{random:{{user}},{{user}}}}", user="Doe, John") == "Doe, John"
    assert said("{{random::{{user}}::{{user}}}}", user="a::b") == "a::b"
    assert said("<USER>", user="<BOT>") == "<BOT>"


def test_macros_nest_up_to_a_depth() -> None:
    deep = "{{reverse:" * MAX_DEPTH + "ab" + "}}" * MAX_DEPTH
    assert said(deep) == "ab"
    beyond = "{{reverse:" * (MAX_DEPTH + 2) + "ab" + "}}" * (MAX_DEPTH + 2)
    assert "{{reverse:" in said(beyond) or ":esrever{{" in said(beyond)


@pytest.mark.parametrize(
    "template",
    [
        "{{user}}" * 5_000,
        "{{reverse:{{user}}{{user}}}}" * 1_000,
        "{{random:{{user}},{{user}}}}" * 1_000,
        "<BOT>" * 9_000,
    ],
)
def test_length_is_bounded_before_anything_is_built(template: str) -> None:
    started = time.process_time()
    with pytest.raises(ExpansionTooLong, match="characters"):
        said(template, user="x" * 40_000, char="x" * 40_000)
    assert time.process_time() - started < 0.5


def test_the_limit_itself_is_allowed() -> None:
    assert len(said("{{user}}" * 10, user="x" * 10, max_chars=100)) == 100
    with pytest.raises(ExpansionTooLong):
        said("{{user}}" * 10 + "y", user="x" * 10, max_chars=100)
    with pytest.raises(ExpansionTooLong):
        said("y" * 101, max_chars=100)


@pytest.mark.parametrize(
    "template",
    [
        "{{" * 25_000,
        "}}" * 25_000,
        "{{{{}}}}" * 6_000,
        "{{reverse:" * 4_000 + "}}" * 4_000,
        "<user" * 10_000,
        "{" * 50_000,
    ],
)
def test_hostile_templates_take_no_time(template: str) -> None:
    started = time.process_time()
    said(template)
    assert time.process_time() - started < 1


PIECES = [*"{}<>:,/\\d6 u", "user", "{{user}}", "{{", "}}", "{{pick:", "random", "reverse:"]


@given(st.lists(st.sampled_from(PIECES)).map("".join))
def test_any_text_expands_within_its_bound(template: str) -> None:
    try:
        assert len(said(template, max_chars=60)) <= 60
    except ExpansionTooLong:
        assert len(said(template)) > 60 or "{{" in template


@given(st.text())
def test_text_without_macros_is_kept(text: str) -> None:
    if "{{" not in text and "<" not in text:
        assert said(text) == text


@pytest.mark.parametrize(
    ("identity", "name"),
    [
        (None, "the user"),
        ("", "the user"),
        ("  ", "the user"),
        ("Bob", "Bob"),
        ("  Bob  Doe ", "Bob Doe"),
        ("woman", "a woman"),
        ("Man", "a man"),
        ("non-binary", "a non-binary person"),
        ("Nonbinary", "a non-binary person"),
        ("Manfred", "Manfred"),
    ],
)
def test_names_of_users(identity: str | None, name: str) -> None:
    assert display_user_name(identity) == name


def test_the_moment_stands_still_for_a_day() -> None:
    assert steady_moment(None, NOW) == NOW
    assert steady_moment(NOW, NOW + timedelta(hours=7)) == NOW
    tomorrow = NOW + timedelta(hours=8)
    assert steady_moment(NOW, tomorrow) == tomorrow
    tokyo = NOW.astimezone(timezone(timedelta(hours=9)))
    assert steady_moment(tokyo, NOW) == tokyo

from __future__ import annotations

import base64
import time
import zlib
from datetime import UTC, datetime
from typing import Any

import pytest

from personas import cards, png
from personas.card_document import MAX_FIELD_CHARS
from personas.card_prompt import SYSTEM_PROMPT
from personas.cards import CardRefused
from personas.macros import expand
from tests.personas.card_samples import as_charx, as_json, as_png, chunk, picture, v2, v3


def prompt(**fields: Any) -> str:
    return cards.read(as_json(v2(**fields))).chat_prompt


@pytest.mark.parametrize("document", [v2(), v3()])
def test_a_card_becomes_a_prompt(document: dict[str, Any]) -> None:
    card = cards.read(as_json(document))
    assert card.name == "Mia"
    assert card.chat_prompt == (
        "You are {{char}}, talking with {{user}}. Stay in character.\n\n"
        "{{char}} is a baker. <BOT> likes <USER>.\n\n"
        "Personality: warm\n\n"
        "Scenario: {{CHAR}} meets {{ User }}.\n\n"
        "Example dialogue:\n{{user}}: hi\n{{char}}: hello"
    )
    assert (card.slug, card.gender, card.personality, card.notes) == (None, None, None, ())
    said = expand(card.chat_prompt, user="Bob", char="Mia", seed="", now=datetime.now(UTC), max_chars=MAX_FIELD_CHARS)
    assert said == (
        "You are Mia, talking with Bob. Stay in character.\n\nMia is a baker. Mia likes Bob.\n\n"
        "Personality: warm\n\nScenario: Mia meets Bob.\n\nExample dialogue:\nBob: hi\nMia: hello"
    )


def test_original_is_the_default_system_prompt() -> None:
    text = prompt(system_prompt="{{Original}} Be brief.", post_history_instructions="{{original}}Now!")
    assert text.startswith(SYSTEM_PROMPT + " Be brief.\n\n")
    assert text.endswith("\n\nNow!")
    assert prompt(system_prompt="Only this.").startswith("Only this.\n\n{{char}} is")


def test_notes_greetings_and_the_lorebook_never_prompt() -> None:
    text = prompt()
    for unwanted in ("DO NOT PROMPT", "LORE", "Hi "):
        assert unwanted not in text


@pytest.mark.parametrize(
    ("field", "text", "left"),
    [
        ("mes_example", "<START>\r\n{{user}}: hi\r\n{{char}}: ho", "{{user}}: hi\n{{char}}: ho"),
        ("mes_example", "<START> {{user}}: hi", "{{user}}: hi"),
        ("mes_example", "<START>{{user}}: hi\n<Start>\n{{user}}: ho", "{{user}}: hi\n{{user}}: ho"),
        ("mes_example", " \t<start>\t\r\nA\r<START>\rB", "A\nB"),
        ("mes_example", "A<START>B", "A\nB"),
        ("mes_example", "<START>\n<START>\n", ""),
        (
            "description",
            "[traits]\r\n<START>\r\n{{user}}: Who?\r\n{{char}}: I.\r\n",
            "[traits]\n{{user}}: Who?\n{{char}}: I.",
        ),
        ("scenario", "A\r\rB", "A\n\nB"),
        ("description", "<STARTLED> <start", "<STARTLED> <start"),
    ],
)
def test_marks_and_line_ends(field: str, text: str, left: str) -> None:
    made = prompt(**{field: text})
    assert "\r" not in made
    assert "<START>" not in made.upper()
    assert (left in made) if left else ("Example dialogue" not in made)


def test_nickname_is_what_char_means() -> None:
    assert (cards.read(as_json(v3(nickname="Mimi"))).nickname, cards.read(as_json(v3(nickname=" "))).nickname) == (
        "Mimi",
        "",
    )
    assert cards.read(as_json(v3(nickname=None))).nickname == ""
    assert cards.read(as_json(v3(nickname=" Mi \n mi "))).nickname == "Mi mi"


def test_ccv3_wins() -> None:
    assert cards.read(as_png(chara=v2(name="Old"), ccv3=v3(name="New"))).name == "New"
    assert cards.read(as_png(chara=v2(name="Old"))).name == "Old"


def packed(document: Any) -> bytes:
    return base64.b64encode(as_json(document))


@pytest.mark.parametrize(
    "text",
    [
        packed(v2()).rstrip(b"="),
        b"\n".join(packed(v2())[at : at + 76] for at in range(0, 4000, 76)) + b"\r\n",
        b" " + packed(v2()) + b"\t",
        base64.urlsafe_b64encode(as_json(v2())),
        packed(v2()) + b"==",
        as_json(v2()),
        base64.b64encode(b"\xef\xbb\xbf" + as_json(v2())),
    ],
)
@pytest.mark.parametrize("keyword", [b"chara", b"Chara", b"CHARA", b"ccv3", b"CCV3", b"chara "])
def test_pictures_are_read_as_browsers_tools_read_them(keyword: bytes, text: bytes) -> None:
    card = cards.read(picture(chunk(b"tEXt", keyword + b"\0" + text)))
    assert (card.name, card.notes) == ("Mia", ())


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt"])
def test_packed_card(kind: bytes) -> None:
    head = b"chara\0\0" if kind == b"zTXt" else b"chara\0\1\0\0\0"
    assert cards.read(picture(chunk(kind, head + zlib.compress(packed(v2()))))).name == "Mia"


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (b"!!!", "not base64"),
        (base64.b64encode(b"{"), "not JSON"),
        (packed({"spec": "chara_card_v3", "data": {}}), "name is missing"),
        (packed(v3(description=5)), "description is not text"),
    ],
)
def test_a_broken_ccv3_gives_way_to_chara_with_a_note(broken: bytes, reason: str) -> None:
    both = chunk(b"tEXt", b"ccv3\0" + broken), chunk(b"tEXt", b"chara\0" + packed(v2(name="Old")))
    card = cards.read(picture(*both))
    assert card.name == "Old"
    assert len(card.notes) == 1
    assert reason in card.notes[0]
    assert card.notes[0].endswith("the older chara card was used.")
    with pytest.raises(CardRefused, match=f"ccv3: .*{reason}.*; chara: .*base64"):
        cards.read(picture(both[0], chunk(b"tEXt", b"chara\0?")))


def test_older_and_flat_cards() -> None:
    v1 = {"name": "Mia", "description": "A baker.", "first_mes": "Hi"}
    pygmalion = {"char_name": "Mia", "char_persona": "A baker.", "char_greeting": "Hi", "example_dialogue": "<START>"}
    flat = {"spec": "chara_card_v2", "spec_version": "2.0", **v2()["data"], "description": "A baker."}
    without_spec = {"data": v2(description="A baker.")["data"]}
    for document in (v1, pygmalion, flat, without_spec, {**v1, "data": None}):
        card = cards.read(as_json(document))
        assert (card.name, "\n\nA baker." in card.chat_prompt, card.notes) == ("Mia", True, ())
        assert card.document["data"]["first_mes"].startswith("Hi")


def test_a_newer_specification_is_read_with_a_note() -> None:
    card = cards.read(as_json(v2() | {"spec": "chara_card_v9"}))
    assert card.name == "Mia"
    assert card.notes == ("The card's spec is unknown ('chara_card_v9'): read as Character Card V3.",)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("creator_notes", 5),
        ("creator_notes", ["a", "b"]),
        ("character_version", 1.2),
        ("creator", {"name": "x"}),
        ("tags", "a, b"),
        ("alternate_greetings", "Hi"),
        ("group_only_greetings", {"a": 1}),
        ("first_mes", ["Hi", "Ho"]),
        ("extensions", []),
        ("extensions", [1]),
        ("extensions", "none"),
        ("character_book", "none"),
        ("assets", {"type": "icon"}),
        ("assets", ["icon", 5, {"type": "icon", "uri": 5}]),
        ("creation_date", "yesterday"),
        ("talkativeness", "0.5"),
    ],
)
def test_fields_that_never_reach_a_prompt_are_kept_whatever_their_type(field: str, value: Any) -> None:
    card = cards.read(as_json(v2(**{field: value})))
    assert card.document["data"][field] == value
    again = cards.read(cards.to_json(card))
    assert again.chat_prompt == card.chat_prompt
    assert again.document["data"][field] == value


def test_half_an_emoji_does_not_refuse_a_card() -> None:
    card = cards.read(as_json(v2(description="A \ud83d baker\0.", creator="\udc00", tags=["\ud800"])))
    assert "A \ufffd baker\ufffd." in card.chat_prompt
    assert (card.document["data"]["creator"], card.document["data"]["tags"]) == ("\ufffd", ["\ufffd"])
    whole = cards.read(as_json(v2(description="A 😀 baker.")))
    assert "😀" in whole.chat_prompt


def test_a_small_file_cannot_make_a_large_prompt() -> None:
    """A nickname and ten thousand marks for it: five hundred megabytes, once."""
    hostile = v2(nickname="N " * 25_000, description="<bot>" * 10_000)
    started = time.process_time()
    with pytest.raises(CardRefused, match="nickname is longer than 100"):
        cards.read(as_json(hostile))
    with pytest.raises(CardRefused, match=r"prompt has .* characters; at most 50000"):
        cards.read(as_json(v2(system_prompt="{{original}}" * 4_000)))
    with pytest.raises(CardRefused, match=r"prompt has .* characters; at most 50000"):
        cards.read(as_json(v2(description="x" * 49_000, scenario="x" * 49_000)))
    for blanks in (" " * 49_000, "\t" * 49_000, "<START " * 7_000, "{{original" * 4_900, "{{" * 24_000):
        cards.read(as_json(v2(description=blanks)))
    assert time.process_time() - started < 2


def nested(depth: int) -> bytes:
    return as_json(v2())[:-1] + b', "deep": ' + b"[" * depth + b"]" * depth + b"}"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON .*line 1, column 2"),
        (b"\xff\xfe{}", "not UTF-8"),
        (b"[]", "not a JSON object"),
        (b"RIFF\x10\0\0\0WEBPVP8 ", "in WebP format; only PNG"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", "in JPEG format; only PNG"),
        (b"GIF89a....", "in GIF format; only PNG"),
        (b"\0\0\0\x1cftypavif\0\0", "in AVIF format; only PNG"),
        (nested(100), "nested too deeply"),
        (b"[" * 500_000, "nested too deeply"),
        (as_json(v2() | {"many": [0] * 200_001}), "too many values"),
        (as_json(v2(tags=["x" * 3 * 2**20])), "larger than 3 MiB"),
        (as_json(v2() | {"n": float("nan")}), "number out of range .*'n'"),
        (as_json(v2(creation_date=10**400)), r"number out of range .*'data\.creation_date'"),
        (as_json(v2() | {"n": 1}).replace(b'"n": 1', b'"n": 1' + b"0" * 5000), "not JSON"),
        (as_json({"hello": "world"}), "not a character card"),
        (as_json({"name": "only a name"}), "not a character card"),
        (as_json({"spec": "chara_card_v2"}), "not a character card"),
        (as_json({"spec": "chara_card_v2", "data": []}), "not a character card"),
        (as_json({"spec": "chara_card_v2", "data": {}}), "name is missing"),
        (as_json(v2(name=" \n")), "name is missing"),
        (as_json(v2(name="x" * 101)), "name is longer than 100"),
        (as_json(v3(nickname="x" * 101)), "nickname is longer than 100"),
        (as_json(v2(name=5)), "name is not text"),
        (as_json(v2(nickname=5)), "nickname is not text"),
        (as_json(v2(description=["a"])), "description is not text"),
        (as_json(v2(mes_example={})), "mes_example is not text"),
        (as_json(v2(description="x" * 50_001)), "description is longer than 50000"),
        (as_json(v2(extensions={"yap": 1})), "extensions.yap is not an object"),
        (as_json(v2(extensions={"yap": {"gender": 1}})), "gender is not text"),
        (as_json(v2(extensions={"yap": {"sampling": {"top_k": True}}})), "sampling"),
        (as_json(v2(extensions={"yap": {"label_stops": "no"}})), "label_stops is not true or false"),
        (as_json(v2(extensions={"yap": {"skipped_in_speech": ["songs"]}})), "skipped_in_speech is not a list of"),
        (as_json(v2(extensions={"yap": {"skipped_in_speech": [[]]}})), "skipped_in_speech is not a list of"),
        (picture(), "no character card"),
        (png.plain_picture(), "no character card"),
        (picture(chunk(b"tEXt", b"chara\0!!! not base64")), "not base64"),
        (picture(chunk(b"tEXt", b"chara\0" + b"A" * 5)), "not base64"),
        (picture(chunk(b"tEXt", b"chara\0" + base64.b64encode(b"not json"))), "not JSON"),
        (picture(chunk(b"tEXt", b"chara\0" + b"A" * (png.MAX_TEXT_BYTES + 4))), "too large"),
        (picture(chunk(b"zTXt", b"chara\0\0" + zlib.compress(b"A" * (png.MAX_TEXT_BYTES + 4)))), "too large"),
        (picture(chunk(b"zTXt", b"ccv3\0\0broken"), chunk(b"tEXt", b"chara\0e30=")), "broken"),
        (as_charx(v2())[:-30], "not JSON|not UTF-8"),
        (b"\0" * (10 * 2**20 + 1), "larger than 10 MiB"),
    ],
)
def test_broken_and_hostile_files_are_refused(data: bytes, reason: str) -> None:
    with pytest.raises(CardRefused, match=reason):
        cards.read(data)

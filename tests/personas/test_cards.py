from __future__ import annotations

import base64
import json
import zlib
from typing import Any

import pytest

from personas import cards, png
from personas.cards import SYSTEM_PROMPT, Card, CardRefused
from tests.personas.test_png import chunk, picture


def v2(**fields: Any) -> dict[str, Any]:
    data = {
        "name": "Mia",
        "description": "{{char}} is a baker. <BOT> likes <USER>.",
        "personality": "warm",
        "scenario": "{{CHAR}} meets {{ User }}.",
        "first_mes": "Hi {{user}}!",
        "mes_example": "<START>\n{{user}}: hi\n{{char}}: hello",
        "creator_notes": "DO NOT PROMPT",
        "system_prompt": "",
        "post_history_instructions": "",
        "alternate_greetings": ["Hey"],
        "tags": ["baker"],
        "creator": "someone",
        "character_version": "1",
        "extensions": {"other/tool": {"depth": 4}},
        "character_book": {"entries": [{"keys": ["sea"], "content": "LORE"}], "extensions": {}},
    }
    return {"spec": "chara_card_v2", "spec_version": "2.0", "data": data | fields}


def v3(**fields: Any) -> dict[str, Any]:
    return v2(group_only_greetings=[], **fields) | {"spec": "chara_card_v3", "spec_version": "3.0"}


def as_json(document: Any) -> bytes:
    return json.dumps(document).encode()


def as_png(**documents: Any) -> bytes:
    return png.write_texts({key: base64.b64encode(as_json(document)) for key, document in documents.items()})


@pytest.mark.parametrize("document", [v2(), v3()])
def test_a_card_becomes_a_prompt(document: dict[str, Any]) -> None:
    card = cards.read(as_json(document))
    assert card.name == "Mia"
    assert card.chat_prompt == (
        "You are Mia, talking with {{user}}. Stay in character.\n\n"
        "Mia is a baker. Mia likes {{user}}.\n\n"
        "Personality: warm\n\n"
        "Scenario: Mia meets {{user}}.\n\n"
        "Example dialogue:\n{{user}}: hi\nMia: hello"
    )
    assert (card.slug, card.gender, card.personality) == (None, None, None)


def test_original_is_our_own_system_prompt() -> None:
    card = cards.read(as_json(v2(system_prompt="{{Original}} Be brief.", post_history_instructions="{{original}}Now!")))
    assert card.chat_prompt.startswith(SYSTEM_PROMPT.replace("{{char}}", "Mia") + " Be brief.\n\n")
    assert card.chat_prompt.endswith("\n\nNow!")
    assert cards.read(as_json(v2(system_prompt="Only this."))).chat_prompt.startswith("Only this.\n\nMia is")


def test_notes_greetings_and_comments_never_prompt() -> None:
    prompt = cards.read(as_json(v2(description="A{{// hidden }}B{{comment: x}}C{{hidden_key: y}}"))).chat_prompt
    assert "ABC" in prompt
    for unwanted in ("DO NOT PROMPT", "LORE", "Hi ", "hidden"):
        assert unwanted not in prompt


def test_nickname_is_what_char_means() -> None:
    card = cards.read(as_json(v3(nickname="Mimi")))
    assert (card.name, "Mimi is a baker." in card.chat_prompt) == ("Mia", True)


def test_macros_in_a_name_are_not_expanded_again() -> None:
    card = cards.read(as_json(v2(name="{{user}} {{char}}", description="{{char}}")))
    assert "\n\n{{user}} {{char}}\n\n" in card.chat_prompt


def test_ccv3_wins() -> None:
    assert cards.read(as_png(chara=v2(name="Old"), ccv3=v3(name="New"))).name == "New"
    assert cards.read(as_png(chara=v2(name="Old"))).name == "Old"


def test_packed_card() -> None:
    text = zlib.compress(base64.b64encode(as_json(v2())))
    assert cards.read(picture(chunk(b"zTXt", b"chara\0\0" + text))).name == "Mia"


def test_v1_card() -> None:
    card = cards.read(as_json({"name": "Mia", "description": "A baker.", "first_mes": "Hi"}))
    assert card.chat_prompt.endswith("\n\nA baker.")
    assert cards.document(card)["data"]["first_mes"] == "Hi"


@pytest.mark.parametrize("original", [v2(), v3(nickname="Mimi", assets=[{"type": "icon", "uri": "ccdefault:"}])])
@pytest.mark.parametrize("way", ["v2", "v3", "png"])
def test_import_export_import_is_equal(original: dict[str, Any], way: str) -> None:
    original["made_by"] = {"unknown": [1, 2.5, None]}
    imported = cards.read(as_json(original))
    exported = cards.to_png(imported) if way == "png" else cards.to_json(imported, "v2" if way == "v2" else "v3")
    assert cards.read(exported) == imported
    kept = cards.document(imported)
    assert kept["made_by"] == {"unknown": [1, 2.5, None]}
    for key, value in original["data"].items():
        assert kept["data"][key] == value


def test_specification_names() -> None:
    card = cards.read(as_json(v2()))
    for spec, name, version in (("v2", "chara_card_v2", "2.0"), ("v3", "chara_card_v3", "3.0")):
        whole = cards.document(card, spec)  # type: ignore[arg-type]
        assert (whole["spec"], whole["spec_version"]) == (name, version)
    texts = png.read_texts(cards.to_png(card), ("chara", "ccv3"))
    specs = {key: json.loads(base64.b64decode(text))["spec"] for key, text in texts.items()}
    assert specs == {"chara": "chara_card_v2", "ccv3": "chara_card_v3"}


def test_a_persona_born_here_comes_back_whole() -> None:
    born = Card(
        name="Ada",
        chat_prompt="You are Ada.\n\n- dry\n- with {{user}}",
        document={},
        slug="ada",
        gender="female",
        personality="dry",
        tool_prompt="Tools!",
        sampling={"temperature": 0.7, "top_k": 20},
        output_style="speech",
    )
    back = cards.read(cards.to_png(born))
    assert back.document["data"].pop("system_prompt") == born.chat_prompt
    for name in ("name", "chat_prompt", "slug", "gender", "personality", "tool_prompt", "sampling", "output_style"):
        assert getattr(back, name) == getattr(born, name)


def test_an_edited_prompt_is_what_goes_out() -> None:
    card = cards.read(as_json(v2()))
    edited = Card(card.name, "You are Mia, a sailor now.", card.document)
    back = cards.read(cards.to_json(edited))
    assert back.chat_prompt == "You are Mia, a sailor now."
    assert back.document["data"]["extensions"] == {"other/tool": {"depth": 4}}
    assert back.document["data"]["creator_notes"] == "DO NOT PROMPT"


def nested(depth: int) -> bytes:
    return as_json(v2())[:-1] + b', "deep": ' + b"[" * depth + b"]" * depth + b"}"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe{}", "not UTF-8"),
        (b"[]", "not a JSON object"),
        (b"PK\x03\x04 a CHARX archive", "not JSON"),
        (nested(100), "nested too deeply"),
        (b"[" * 500_000, "nested too deeply"),
        (as_json(v2() | {"many": [0] * 200_001}), "too many values"),
        (as_json(v2(tags=["x" * 3 * 2**20])), "larger than 3 MiB"),
        (as_json(v2() | {"n": float("nan")}), "number"),
        (as_json(v2() | {"n": 10**400}), "number"),
        (as_json(v2() | {"n": 1}).replace(b'"n": 1', b'"n": 1' + b"0" * 5000), "not JSON"),
        (as_json(v2(description="a\0b")), "not text"),
        (as_json(v2(creator="\ud800")), "not text"),
        (as_json({"spec": "chara_card_v9", "data": {"name": "x"}}), "spec"),
        (as_json({"hello": "world"}), "spec"),
        (as_json({"spec": "chara_card_v2"}), "no data"),
        (as_json({"spec": "chara_card_v2", "data": []}), "no data"),
        (as_json({"spec": "chara_card_v2", "data": {}}), "name is missing"),
        (as_json(v2(name=" \n")), "name is missing"),
        (as_json(v2(name="x" * 101)), "name is too long"),
        (as_json(v2(name=5)), "name is not text"),
        (as_json(v2(description=["a"])), "description is not text"),
        (as_json(v2(extensions=[])), "extensions is not an object"),
        (as_json(v2(tags="a")), "tags is not a list"),
        (as_json(v2(description="x" * 50_001)), "longer than 50000"),
        (as_json(v2(extensions={"yap": 1})), "not an object"),
        (as_json(v2(extensions={"yap": {"gender": 1}})), "gender is not text"),
        (as_json(v2(extensions={"yap": {"sampling": {"top_k": True}}})), "sampling"),
        (png.write_texts({}), "no character card"),
        (png.write_texts({"chara": b"!!! not base64"}), "not base64"),
        (png.write_texts({"chara": base64.b64encode(b"not json")}), "not JSON"),
        (picture(chunk(b"tEXt", b"chara\0" + b"A" * (png.MAX_TEXT_BYTES + 4))), "too large"),
        (picture(chunk(b"zTXt", b"chara\0\0" + zlib.compress(b"A" * (png.MAX_TEXT_BYTES + 4)))), "too large"),
        (picture(chunk(b"zTXt", b"ccv3\0\0broken"), chunk(b"tEXt", b"chara\0e30=")), "broken"),
    ],
)
def test_broken_and_hostile_files_are_refused(data: bytes, reason: str) -> None:
    with pytest.raises(CardRefused, match=reason):
        cards.read(data)

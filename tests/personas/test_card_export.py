"""Cards that go out and come back: nothing is lost, whatever was edited in between."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from dataclasses import replace
from typing import Any

import pytest

from personas import cards, png
from personas.card_document import build
from personas.cards import Card
from tests.personas.card_samples import as_charx, as_json, as_png, chunk, picture, v2, v3

GIF = b"GIF89a\x01\0\x01\0\0\0\0;"


@pytest.mark.parametrize(
    "original",
    [
        v2(),
        v3(nickname="Mimi", assets=[{"type": "icon", "uri": "ccdefault:", "name": "main", "ext": "png"}]),
        v2(description="A\r\nB\rC\n", mes_example="<START>\r\nx", system_prompt=" {{original}} Be brief. "),
        v2(description="{{// a note }}{{random:a,b}} {{getvar::x}}", post_history_instructions="{{original}}!"),
    ],
)
@pytest.mark.parametrize("way", ["v2", "v3", "png", "charx"])
def test_import_export_import_is_equal(original: dict[str, Any], way: str) -> None:
    original["made_by"] = {"unknown": [1, 2.5, None]}
    imported = cards.read(as_json(original))
    exported = {
        "v2": lambda card: cards.to_json(card, "v2"),
        "v3": lambda card: cards.to_json(card, "v3"),
        "png": cards.to_png,
        "charx": cards.to_charx,
    }[way](imported)
    assert cards.read(exported) == imported
    kept = build(imported)
    assert kept["made_by"] == {"unknown": [1, 2.5, None]}
    for key, value in original["data"].items():
        assert kept["data"][key] == value


def test_other_fields_and_the_name_can_change(tmp_path: Any) -> None:
    """A new style, a new name: description, personality and the rest are as imported, line ends included."""
    card = cards.read(as_json(v2(description="{{char}} is\r\na baker.", mes_example="<START>\r\nMia: hi")))
    edited = replace(card, name="Ada", output_style="speech", gender="female", personality="dry", slug="ada")
    data = json.loads(cards.to_json(edited))["data"]
    assert data["name"] == "Ada"
    for key, value in v2(description="{{char}} is\r\na baker.", mes_example="<START>\r\nMia: hi")["data"].items():
        if key not in ("name", "extensions"):
            assert data[key] == value
    again = cards.read(cards.to_json(edited))
    assert (again.name, again.chat_prompt, again.output_style) == ("Ada", card.chat_prompt, "speech")


def test_a_nickname_comes_and_goes() -> None:
    card = cards.read(as_json(v3(nickname="Mimi")))
    assert build(replace(card, nickname="Mo"))["data"]["nickname"] == "Mo"
    assert build(replace(card, nickname=""))["data"]["nickname"] == ""
    assert "nickname" not in build(cards.read(as_json(v2())))["data"]


def test_specification_names() -> None:
    card = cards.read(as_json(v2()))
    for spec, name, version in (("v2", "chara_card_v2", "2.0"), ("v3", "chara_card_v3", "3.0")):
        whole = build(card, spec)  # type: ignore[arg-type]
        assert (whole["spec"], whole["spec_version"]) == (name, version)
    texts = png.read_texts(cards.to_png(card), ("chara", "ccv3"))
    specs = {key: json.loads(base64.b64decode(text))["spec"] for key, text in texts.items()}
    assert specs == {"chara": "chara_card_v2", "ccv3": "chara_card_v3"}


def test_a_persona_of_the_admin_comes_back_whole() -> None:
    made = Card(
        name="Ada",
        nickname="Addy",
        chat_prompt="You are Ada.\n\n- dry\n- with {{user}}",
        document={},
        slug="ada",
        gender="female",
        personality="dry",
        tool_prompt="Tools!",
        sampling={"temperature": 0.7, "top_k": 20},
        output_style="speech",
        label_stops=False,
        skipped_in_speech=frozenset({"actions", "ooc"}),
        portrait=picture(),
    )
    for data in (cards.to_png(made), cards.to_charx(made), cards.to_json(made)):
        back = cards.read(data)
        for name in (*made.__dataclass_fields__,):
            if name not in ("document", "portrait", "label_stops", "notes"):
                assert getattr(back, name) == getattr(made, name), name
        assert back.label_stops is False
        assert back.document["data"]["system_prompt"] == made.chat_prompt


def test_an_edited_prompt_goes_out() -> None:
    card = cards.read(as_json(v2()))
    edited = Card(card.name, "You are Mia, a sailor now.", card.document)
    back = cards.read(cards.to_json(edited))
    assert back.chat_prompt == "You are Mia, a sailor now."
    assert back.document["data"]["extensions"] == {"other/tool": {"depth": 4}}
    assert back.document["data"]["creator_notes"] == "DO NOT PROMPT"


@pytest.mark.parametrize("value", ["none", [1], 5])
def test_strange_extensions_survive_beside_ours(value: Any) -> None:
    card = replace(cards.read(as_json(v2(extensions=value))), slug="mia")
    assert build(card)["data"]["extensions"] == {"imported": value, "yap": {"slug": "mia"}}


# -- portraits -------------------------------------------------------------------------------------


def test_a_portrait_is_kept_byte_for_byte() -> None:
    original = as_png(chara=v2())
    card = cards.read(original)
    assert card.portrait == original
    assert card.chat_prompt
    again = cards.read(cards.to_png(card))
    assert (again.chat_prompt, again.document) == (card.chat_prompt, card.document)
    same = {"chara": b"same", "ccv3": b"same"}
    assert png.with_texts(again.portrait, same) == png.with_texts(original, same) == png.with_texts(picture(), same)


def test_export_replaces_only_the_cards_own_chunks() -> None:
    other = chunk(b"tEXt", b"Software\0GIMP"), chunk(b"eXIf", b"MM\0*"), chunk(b"tEXt", b"Chara\0e30=")
    again = png.with_texts(picture(*other), {"chara": b"new", "ccv3": b"newer"})
    assert other[0] in again
    assert other[1] in again
    assert other[2] not in again
    assert png.read_texts(again, ("chara", "ccv3", "software")) == {
        "chara": b"new", "ccv3": b"newer", "software": b"GIMP"
    }  # fmt: skip
    assert again.index(b"IDAT") < again.index(b"new")


def test_a_plain_picture_is_no_portrait() -> None:
    card = cards.read(as_json(v2()))
    assert cards.read(cards.to_png(card)).portrait == b""


def test_a_portrait_of_another_format_goes_out_as_charx() -> None:
    card = replace(cards.read(as_json(v2())), portrait=GIF)
    assert cards.read(cards.to_charx(card)).portrait == GIF
    assert cards.read(cards.to_png(card)).portrait == b""


def test_charx_names_its_main_icon_and_drops_files_it_has_not() -> None:
    assets = [
        {"type": "icon", "uri": "embeded://old.png", "name": "main", "ext": "png"},
        {"type": "background", "uri": "embeded://bg.png", "name": "main", "ext": "png"},
        {"type": "icon", "uri": "https://example.com/x.png", "name": "second", "ext": "png"},
    ]
    card = cards.read(as_charx(v3(assets=assets), old_png=picture()))
    exported = cards.to_charx(card)
    with zipfile.ZipFile(io.BytesIO(exported)) as archive:
        assert archive.namelist() == ["card.json", "assets/icon/images/main.png"]
        assert archive.read("assets/icon/images/main.png") == picture()
        written = json.loads(archive.read("card.json"))["data"]["assets"]
    assert [(asset["type"], asset["uri"]) for asset in written] == [
        ("icon", "embeded://assets/icon/images/main.png"),
        ("icon", "https://example.com/x.png"),
    ]
    assert cards.to_charx(card) == exported

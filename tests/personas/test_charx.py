"""CHARX archives: the card and its main icon, and what an archive may not do."""

from __future__ import annotations

import base64
import io
import struct
import time
import zipfile
from typing import Any

import pytest

from personas import cards, charx
from personas.cards import CardRefused
from tests.personas.card_samples import as_charx, as_json, picture, v3

JPEG = b"\xff\xd8\xff\xe0\0\x10JFIF\0"


def icon(uri: str, name: str = "main") -> dict[str, Any]:
    return {"type": "icon", "uri": uri, "name": name, "ext": "png"}


@pytest.mark.parametrize("scheme", ["embeded", "embedded"])
@pytest.mark.parametrize("body", [picture(), JPEG, b"RIFF\x10\0\0\0WEBPVP8 "])
def test_the_main_icon_is_the_portrait(scheme: str, body: bytes) -> None:
    assets = [
        {"type": "background", "uri": f"{scheme}://bg.png", "name": "main", "ext": "png"},
        icon(f"{scheme}://other.png", "sad"),
        icon(f"{scheme}://assets/icon/images/a.png"),
    ]
    data = as_charx(v3(assets=assets), assets__icon__images__a_png=body, other_png=b"?", bg_png=b"?")
    card = cards.read(data)
    assert (card.name, card.portrait, card.notes) == ("Mia", body, ())


def test_without_a_main_icon_the_first_counts() -> None:
    data = as_charx(v3(assets=[icon("embeded://a.png", "sad"), icon("embeded://b.png", "gay")]), a_png=picture())
    assert cards.read(data).portrait == picture()


def test_icons_inside_the_json() -> None:
    url = "data:image/png;base64," + base64.b64encode(picture()).decode()
    assert cards.read(as_json(v3(assets=[icon(url)]))).portrait == picture()
    assert cards.read(as_charx(v3(assets=[icon(url)]))).portrait == picture()
    broken = cards.read(as_json(v3(assets=[icon("data:image/png;base64,!!")])))
    assert (broken.portrait, len(broken.notes)) == (b"", 1)


@pytest.mark.parametrize("uri", ["ccdefault:", "https://example.com/a.png", "", "embeded://"])
def test_other_icons_are_left_alone(uri: str) -> None:
    assert cards.read(as_charx(v3(assets=[icon(uri)]))).portrait == b""


def test_a_missing_or_strange_icon_does_not_refuse_the_card() -> None:
    missing = cards.read(as_charx(v3(assets=[icon("embeded://a.png")])))
    assert (missing.portrait, missing.notes) == (
        b"",
        ("The archive has no embeded://a.png: imported without portrait.",),
    )
    script = cards.read(as_charx(v3(assets=[icon("embeded://a.png")]), a_png=b"<svg onload=alert(1)>"))
    assert script.portrait == b""
    assert "not a PNG, JPEG" in script.notes[0]


@pytest.mark.parametrize("before", [JPEG + b"\0" * 100, picture()])
def test_an_archive_behind_a_picture_is_read(before: bytes) -> None:
    assert cards.read(before + as_charx(v3())).name == "Mia"


def encrypted() -> bytes:
    data = bytearray(as_charx(v3()))
    data[6] |= 1  # the local header's flags
    at = data.index(b"PK\x01\x02")
    data[at + 8] |= 1  # the directory's
    return bytes(data)


def lying() -> bytes:
    """An archive whose directory claims ten bytes for an entry of four MiB."""
    data = bytearray(as_charx(b"{" + b" " * 2**22 + b"}"))
    at = data.index(b"PK\x01\x02")
    data[at + 24 : at + 28] = struct.pack("<L", 10)
    return bytes(data)


def crowded() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("card.json", as_json(v3()))
        for number in range(20_000):
            archive.writestr(f"{number}.png", b"")
    return buffer.getvalue()


def wide() -> bytes:
    """A locator of a zip64 directory before the end record."""
    data = as_charx(v3())
    at = data.rindex(b"PK\x05\x06")
    return data[:at] + b"PK\x06\x07" + b"\0" * 16 + data[at:]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (as_charx(b"[]"), "not a JSON object"),
        (as_charx(b" " * (3 * 2**20 + 1)), "card.json in the archive is larger than 3 MiB"),
        (as_charx(b" " * (64 * 2**20)), "card.json in the archive is larger than 3 MiB"),
        (lying(), "larger than|broken|not JSON"),
        (encrypted(), "encrypted"),
        (as_charx(v3(), method=zipfile.ZIP_LZMA), "unsupported method"),
        (as_charx(v3(), method=zipfile.ZIP_BZIP2), "unsupported method"),
        (crowded(), "too many entries"),
        (wide(), "too many entries"),
        (as_charx(v3()).replace(b"card.json", b"kard.json"), "no card.json"),
        (b"PK\x05\x06" + b"\0" * 18, "no card.json"),
        (as_charx(v3(assets=[icon("embeded://a.png")]), a_png=b"\0" * (10 * 2**20 + 1)), "larger than 10 MiB"),
    ],
)
def test_hostile_archives_are_refused_at_once(data: bytes, reason: str) -> None:
    started = time.process_time()
    with pytest.raises(CardRefused, match=reason):
        cards.read(data)
    assert time.process_time() - started < 2


def test_a_corrupt_entry_is_refused() -> None:
    data = bytearray(as_charx(v3()))
    at = data.index(b"card.json") + 20
    data[at : at + 20] = b"\xff" * 20
    with pytest.raises(CardRefused, match="broken"):
        cards.read(bytes(data))


def test_names_are_paths_in_the_archive_alone() -> None:
    assert charx.read_entry(as_charx(v3()), "../../etc/passwd", 100) is None

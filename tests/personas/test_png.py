from __future__ import annotations

import struct
import zlib

import pytest

from personas import png
from personas.images import PNG_SIGNATURE
from tests.personas.card_samples import chunk, picture


def test_written_texts_are_read_back() -> None:
    data = png.with_texts(picture(), {"chara": b"one", "ccv3": b"two"})
    assert png.read_texts(data, ("chara", "ccv3", "other")) == {"chara": b"one", "ccv3": b"two"}
    assert png.read_texts(data, ("ccv3",)) == {"ccv3": b"two"}


def test_written_picture_is_one() -> None:
    data = png.plain_picture(width=3, height=2)
    (at,) = [index for index in range(len(data)) if data[index : index + 4] == b"IDAT"]
    (length,) = struct.unpack(">I", data[at - 4 : at])
    assert len(zlib.decompress(data[at + 4 : at + 4 + length])) == 2 * (1 + 3 * 3)


def test_packed_and_international_texts() -> None:
    data = picture(
        chunk(b"zTXt", b"a\0\0" + zlib.compress(b"zipped")),
        chunk(b"iTXt", b"b\0\0\0en\0\0plain"),
        chunk(b"iTXt", b"c\0\1\0\0\0" + zlib.compress(b"both")),
    )
    assert png.read_texts(data, ("a", "b", "c")) == {"a": b"zipped", "b": b"plain", "c": b"both"}


def test_first_text_of_a_keyword_counts() -> None:
    assert png.read_texts(picture(chunk(b"tEXt", b"a\0one"), chunk(b"tEXt", b"a\0two")), ("a",)) == {"a": b"one"}


bomb = zlib.compress(b"\0" * (png.MAX_TEXT_BYTES + 1), 9)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"GIF89a", "not a PNG"),
        (PNG_SIGNATURE, "ends too early"),
        (picture()[:-6], "ends too early|longer than the file"),
        (PNG_SIGNATURE + b"\xff\xff\xff\xff" + b"IHDR" + b"\0" * 40, "longer than the file"),
        (picture()[:-1] + b"\0", "checksum"),
        (PNG_SIGNATURE + chunk(b"tEXt", b"a\0b") + chunk(b"IEND", b""), "not those of a PNG"),
        (picture(chunk(b"IHDR", b"\0" * 13)), "not those of a PNG"),
        (picture(chunk(b"\0\0\0\0", b"")), "not those of a PNG"),
        (picture(chunk(b"tEXt", b"a")), "broken"),
        (picture(chunk(b"zTXt", b"a\0\0not packed")), "broken"),
        (picture(chunk(b"zTXt", b"a\0\0" + zlib.compress(b"cut off")[:-4])), "broken"),
        (picture(chunk(b"zTXt", b"a\0\0" + bomb)), "too large when unpacked"),
        (picture(chunk(b"iTXt", b"a\0\1\0\0\0" + bomb)), "too large when unpacked"),
        (picture(chunk(b"iTXt", b"a\0\1\0")), "broken"),
        (picture(chunk(b"tEXt", b"a\0" + b"x" * (png.MAX_TEXT_BYTES + 1))), "too large"),
        (picture(chunk(b"tEXt", b"b\0") * 10_000), "more than 10000 chunks"),
        (picture() + b"\0" * png.MAX_BYTES, "larger than 10 MiB"),
    ],
)
def test_hostile_files_are_refused(data: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        png.read_texts(data, ("a",))

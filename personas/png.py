"""PNG text chunks, read and written without decoding a picture. Every length is checked before use.

Source: Portable Network Graphics (PNG) Specification, third edition, sections 5 (datastream structure) and 11.3.3
(textual information).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Collection, Iterator, Mapping

from personas.images import PNG_SIGNATURE

MAX_BYTES = 10 * 2**20
MAX_TEXT_BYTES = 5 * 2**20  # one unpacked text: base64 of the largest card and a little more
_MAX_CHUNKS = 10_000
_HEAD = struct.Struct(">I4s")
_CRC = struct.Struct(">I")
_TEXT_KINDS = (b"tEXt", b"zTXt", b"iTXt")
_PLAIN = "yap-plain-picture"  # the keyword that marks a picture made here, which is no portrait


def read_texts(data: bytes, keywords: Collection[str]) -> dict[str, bytes]:
    """Return the first text under each of these keywords (``tEXt``, ``zTXt``, ``iTXt``), by keyword.

    Args:
        data: The whole file.
        keywords: Lower case; the file's may be in any letter case, with blanks around.

    Raises:
        ValueError: With a reason, for anything but a whole, well-formed PNG within bounds.
    """
    found: dict[str, bytes] = {}
    for kind, body in _chunks(data):
        name = _keyword(kind, body)
        if name is None or name not in keywords or name in found:
            continue
        _, separator, rest = body.partition(b"\0")
        if not separator:
            raise ValueError(f"the picture's {name} text chunk is broken")
        found[name] = _text(kind, rest)
    return found


def with_texts(data: bytes, texts: Mapping[str, bytes]) -> bytes:
    """Return the picture with these ``tEXt`` chunks in place of its own of the same keywords.

    Every other chunk is copied byte for byte. Texts must not contain NUL.
    """
    chunks = [_chunk(kind, body) for kind, body in _chunks(data) if _keyword(kind, body) not in texts]
    chunks += [_chunk(b"tEXt", keyword.encode("latin-1") + b"\0" + text) for keyword, text in texts.items()]
    return PNG_SIGNATURE + b"".join(chunks) + _chunk(b"IEND", b"")


def plain_picture(width: int = 256, height: int = 384) -> bytes:
    """Return a picture of one colour for cards of personas without a portrait. Sizes in pixels."""
    rows = (b"\0" + b"\x6d\x5b\xd0" * width) * height  # filter type 0, then one violet row
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bits a channel, RGB
    mark = _chunk(b"tEXt", _PLAIN.encode() + b"\0")
    return PNG_SIGNATURE + b"".join(
        (_chunk(b"IHDR", header), mark, _chunk(b"IDAT", zlib.compress(rows, 9)), _chunk(b"IEND", b""))
    )


def is_plain_picture(data: bytes) -> bool:
    """Return whether :func:`plain_picture` made the picture. Raises ``ValueError`` as :func:`read_texts` does."""
    return _PLAIN in read_texts(data, (_PLAIN,))


def _keyword(kind: bytes, body: bytes) -> str | None:
    """The keyword of a text chunk (at most 79 bytes), in lower case; None for other chunks."""
    return body[:80].partition(b"\0")[0].decode("latin-1").strip().lower() if kind in _TEXT_KINDS else None


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    if len(data) > MAX_BYTES:
        raise ValueError(f"the file is larger than {MAX_BYTES // 2**20} MiB")
    if not data.startswith(PNG_SIGNATURE):
        raise ValueError("not a PNG file")
    at = len(PNG_SIGNATURE)
    for number in range(_MAX_CHUNKS):
        if at + _HEAD.size + _CRC.size > len(data):
            raise ValueError("the picture ends too early")
        length, kind = _HEAD.unpack_from(data, at)
        start, end = at + _HEAD.size, at + _HEAD.size + length
        if end + _CRC.size > len(data):
            raise ValueError("a chunk is longer than the file")
        if not kind.isalpha() or (number == 0) != (kind == b"IHDR"):
            raise ValueError("the chunks are not those of a PNG")
        if zlib.crc32(data[at + 4 : end]) != _CRC.unpack_from(data, end)[0]:
            raise ValueError("a chunk's checksum is wrong")
        if kind == b"IEND":
            return
        yield kind, data[start:end]
        at = end + _CRC.size
    raise ValueError(f"more than {_MAX_CHUNKS} chunks")


def _text(kind: bytes, rest: bytes) -> bytes:
    packed = False
    if kind == b"zTXt":
        packed, rest = True, rest[1:]  # one byte: the method, always 0
    elif kind == b"iTXt":
        if rest.count(b"\0", 2) < 2:
            raise ValueError("a text chunk is broken")
        packed, rest = rest[:1] == b"\1", rest[2:].split(b"\0", 2)[2]  # past language and translated keyword
    if not packed:
        if len(rest) > MAX_TEXT_BYTES:
            raise ValueError("a text chunk is too large")
        return rest
    unpacker = zlib.decompressobj()
    try:
        text = unpacker.decompress(rest, MAX_TEXT_BYTES + 1)
    except zlib.error:
        raise ValueError("a packed text chunk is broken") from None
    if len(text) > MAX_TEXT_BYTES:
        raise ValueError("a packed text chunk is too large when unpacked")
    if not unpacker.eof:
        raise ValueError("a packed text chunk is broken")
    return text


def _chunk(kind: bytes, body: bytes) -> bytes:
    return _HEAD.pack(len(body), kind) + body + _CRC.pack(zlib.crc32(kind + body))

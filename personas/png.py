"""PNG text chunks, read and written without decoding a picture. Every length is checked before it is used."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Collection, Iterator, Mapping

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_BYTES = 10 * 2**20
MAX_TEXT_BYTES = 5 * 2**20  # one text, unpacked: base64 of the largest card and a little more
_MAX_CHUNKS = 10_000
_HEAD = struct.Struct(">I4s")
_CRC = struct.Struct(">I")


def read_texts(data: bytes, keywords: Collection[str]) -> dict[str, bytes]:
    """The first text under each of these keywords (``tEXt``, ``zTXt``, ``iTXt``).

    Raises :class:`ValueError` with a reason for anything but a whole, well-formed PNG within bounds.
    """
    found: dict[str, bytes] = {}
    for kind, body in _chunks(data):
        if kind not in (b"tEXt", b"zTXt", b"iTXt"):
            continue
        keyword, separator, rest = body.partition(b"\0")
        name = keyword.decode("latin-1")
        if name not in keywords or name in found:
            continue
        if not separator:
            raise ValueError("a text chunk is broken")
        found[name] = _text(kind, rest)
    return found


def write_texts(texts: Mapping[str, bytes], width: int = 256, height: int = 384) -> bytes:
    """A plain picture that carries these texts as ``tEXt`` chunks, which must not contain NUL."""
    rows = (b"\0" + b"\x6d\x5b\xd0" * width) * height  # filter type 0, then one violet row
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bits a channel, RGB
    chunks = [_chunk(b"IHDR", header)]
    chunks += [_chunk(b"tEXt", keyword.encode("latin-1") + b"\0" + text) for keyword, text in texts.items()]
    chunks += [_chunk(b"IDAT", zlib.compress(rows, 9)), _chunk(b"IEND", b"")]
    return SIGNATURE + b"".join(chunks)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    if len(data) > MAX_BYTES:
        raise ValueError(f"the file is larger than {MAX_BYTES // 2**20} MiB")
    if not data.startswith(SIGNATURE):
        raise ValueError("not a PNG file")
    at = len(SIGNATURE)
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

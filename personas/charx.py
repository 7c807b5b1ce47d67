"""CHARX files: a zip archive with ``card.json`` and pictures (Character Card Specification V3, "CHARX").

Two entries at most are unpacked, each within its own limit, whatever the archive's directory claims.
"""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

MAX_ENTRY_BYTES = 10 * 2**20
_MAX_DIRECTORY_BYTES = 2**20  # about 10,000 entries
_MAX_COMMENT_BYTES = 2**16
_END = struct.Struct("<4s4H2LH")  # end of central directory record
_END_SIGNATURE = b"PK\x05\x06"
_ZIP64_LOCATOR = b"PK\x06\x07"
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_TIMESTAMP = (1980, 1, 1, 0, 0, 0)  # equal personas make equal files


def is_archive(data: bytes) -> bool:
    """Return whether the file is a zip archive, also one behind a picture (as RisuAI writes)."""
    return _directory_bytes(data) is not None


def read_entry(data: bytes, name: str, limit: int) -> bytes | None:
    """Return one unpacked entry, or None where the archive has no entry of this name.

    Args:
        data: The whole archive.
        name: The path in the archive, case-sensitive.
        limit: The most bytes that the entry may have when unpacked.

    Raises:
        ValueError: With a reason, for an archive or entry that is broken, encrypted, too large, or packed otherwise
            than by deflate.
    """
    end = _directory_bytes(data)
    if end is None:
        raise ValueError("the file is not a zip archive")
    if end > _MAX_DIRECTORY_BYTES:  # checked before zipfile makes an object of every entry
        raise ValueError("the archive has too many entries")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            try:
                entry = archive.getinfo(name)
            except KeyError:
                return None
            if entry.flag_bits & 1:
                raise ValueError(f"{name} in the archive is encrypted")
            if entry.compress_type not in _METHODS:
                raise ValueError(f"{name} in the archive is packed by an unsupported method")
            with archive.open(entry) as stream:
                body = stream.read(limit + 1)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError) as error:
        raise ValueError(f"the archive is broken ({error})") from None
    if len(body) > limit:
        raise ValueError(f"{name} in the archive is larger than {limit // 2**20} MiB")
    return body


def write_archive(card: Mapping[str, Any], files: Mapping[str, bytes]) -> bytes:
    """Return a CHARX file with this card and these files (path → bytes)."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        text = json.dumps(card, ensure_ascii=False, indent=2).encode()
        archive.writestr(zipfile.ZipInfo("card.json", _TIMESTAMP), text, zipfile.ZIP_DEFLATED)
        for path, body in files.items():
            archive.writestr(zipfile.ZipInfo(path, _TIMESTAMP), body, zipfile.ZIP_STORED)
    return buffer.getvalue()


def _directory_bytes(data: bytes) -> int | None:
    """The size of the archive's directory by its end record, found as zipfile finds it; None without a record."""
    start = max(0, len(data) - _END.size - _MAX_COMMENT_BYTES)
    at = data.rfind(_END_SIGNATURE, start)
    if at < 0 or len(data) - at < _END.size:
        return None
    if data[max(0, at - 20) : at].startswith(_ZIP64_LOCATOR):  # its own size fields count; no card needs it
        return 2**32
    size: int = _END.unpack_from(data, at)[5]
    return size

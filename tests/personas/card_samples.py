"""Character cards for tests, in every kind of file."""

from __future__ import annotations

import base64
import io
import json
import struct
import zipfile
import zlib
from typing import Any

from personas import png
from personas.images import PNG_SIGNATURE


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
    texts = {key: base64.b64encode(as_json(document)) for key, document in documents.items()}
    return png.with_texts(picture(), texts)


def as_charx(document: Any, method: int = zipfile.ZIP_DEFLATED, **files: bytes) -> bytes:
    """A CHARX archive; names of files with ``__`` for ``/`` and ``_png`` for ``.png``."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr("card.json", document if isinstance(document, bytes) else as_json(document))
        for name, body in files.items():
            archive.writestr(name.replace("__", "/").replace("_png", ".png"), body)
    return buffer.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def picture(*chunks: bytes) -> bytes:
    """A PNG of one grey pixel with these chunks."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    pixel = chunk(b"IDAT", zlib.compress(b"\0\x80"))
    return PNG_SIGNATURE + header + b"".join(chunks) + pixel + chunk(b"IEND", b"")

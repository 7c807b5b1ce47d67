"""Character card files: JSON, PNG with an embedded card, and CHARX archives, read and written."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import replace
from typing import Any

from personas import card_json, charx, images, png
from personas.card_document import Card, CardRefused, Spec, build, parse

MAX_FILE_BYTES = png.MAX_BYTES
CARD_KEYWORDS = ("ccv3", "chara")  # the first wins
_EMBEDDED = ("embeded://", "embedded://")  # the specification's spelling, and the dictionary's
_ICON_PATH = "assets/icon/images/main"
_URL_SAFE = bytes.maketrans(b"-_", b"+/")

__all__ = ["MAX_FILE_BYTES", "Card", "CardRefused", "read", "to_charx", "to_json", "to_png"]


def read(data: bytes) -> Card:
    """Return the card in a JSON, PNG or CHARX file.

    Raises:
        CardRefused: With the reason, for any other file and for a card that cannot be used.
    """
    try:
        return _read(data)
    except CardRefused:
        raise
    except ValueError as error:
        raise CardRefused(str(error)) from None


def to_json(card: Card, spec: Spec = "v3") -> bytes:
    """Return the card as a JSON file, without its portrait."""
    return json.dumps(build(card, spec), ensure_ascii=False, indent=2).encode()


def to_png(card: Card) -> bytes:
    """Return the card in its portrait, in both specifications; in a plain picture where the portrait is no PNG."""
    documents = {"chara": build(card, "v2"), "ccv3": build(card, "v3")}
    texts = {
        keyword: base64.b64encode(json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode())
        for keyword, document in documents.items()
    }
    picture = card.portrait if images.media_type(card.portrait) == "image/png" else png.plain_picture()
    return png.with_texts(picture, texts)


def to_charx(card: Card) -> bytes:
    """Return the card as a CHARX archive with its portrait, whatever the portrait's format."""
    document = build(card, "v3")
    kind = images.media_type(card.portrait)
    if kind is None:
        return charx.write_archive(document, {})
    path = f"{_ICON_PATH}.{images.EXTENSIONS[kind]}"
    icon = {"type": "icon", "uri": f"embeded://{path}", "name": "main", "ext": images.EXTENSIONS[kind]}
    document["data"]["assets"] = [icon, *filter(_is_elsewhere, _assets(document["data"]))]
    return charx.write_archive(document, {path: card.portrait})


def _read(data: bytes) -> Card:
    if len(data) > MAX_FILE_BYTES:
        raise CardRefused(f"the file is larger than {MAX_FILE_BYTES // 2**20} MiB")
    kind = images.media_type(data)
    if kind == "image/png":
        texts = png.read_texts(data, CARD_KEYWORDS)
        if texts:
            card = _from_texts(texts)
            return card if png.is_plain_picture(data) else replace(card, portrait=data)
    if charx.is_archive(data):
        return _from_archive(data)
    if kind == "image/png":
        raise CardRefused("the picture carries no character card (no chara or ccv3 text)")
    if kind is not None:
        raise CardRefused(f"the file is a picture in {images.FORMAT_NAMES[kind]} format; only PNG pictures carry cards")
    card = parse(card_json.load(data))
    return _with_icon(card, _data_icon(card.document["data"]))


def _from_texts(texts: dict[str, bytes]) -> Card:
    """The card of a picture. Where the first text is broken, the second is used, and a note says so."""
    problems: list[str] = []
    for keyword in CARD_KEYWORDS:
        if keyword not in texts:
            continue
        try:
            card = parse(card_json.load(_decoded(texts[keyword])))
        except ValueError as error:
            problems.append(f"{keyword}: {error}")
        else:
            notes = tuple(f"The picture's {problem}; the older {keyword} card was used." for problem in problems)
            return replace(card, notes=notes + card.notes)
    raise CardRefused("; ".join(problems) if len(problems) > 1 else problems[0].partition(": ")[2])


def _decoded(text: bytes) -> bytes:
    """Base64 as browsers' tools read it: white space inside, padding missing, either alphabet; or plain JSON."""
    if text.lstrip().startswith(b"{"):
        return text
    packed = b"".join(text.split()).translate(_URL_SAFE).rstrip(b"=")
    try:
        return base64.b64decode(packed + b"=" * (-len(packed) % 4), validate=True)
    except binascii.Error:
        raise CardRefused("the picture's card is not base64") from None


def _from_archive(data: bytes) -> Card:
    body = charx.read_entry(data, "card.json", card_json.MAX_JSON_BYTES)
    if body is None:
        raise CardRefused("the archive has no card.json: not a CHARX file")
    card = parse(card_json.load(body))
    icon = _main_icon(card.document["data"])
    uri = icon.get("uri", "") if icon else ""
    for prefix in _EMBEDDED:
        if uri.startswith(prefix):
            picture = charx.read_entry(data, uri.removeprefix(prefix), charx.MAX_ENTRY_BYTES)
            if picture is None:
                return replace(card, notes=(*card.notes, f"The archive has no {uri[:100]}: imported without portrait."))
            return _with_icon(card, picture)
    return _with_icon(card, _data_icon(card.document["data"]))


def _with_icon(card: Card, picture: bytes | None) -> Card:
    if picture is None:
        return card
    if images.media_type(picture) is None:
        note = "The card's icon is not a PNG, JPEG, WebP, GIF or AVIF picture: imported without portrait."
        return replace(card, notes=(*card.notes, note))
    return replace(card, portrait=picture)


def _data_icon(data: dict[str, Any]) -> bytes | None:
    """The picture of a main icon that is a base64 data URL, else None."""
    icon = _main_icon(data)
    head, comma, body = str(icon.get("uri", "") if icon else "").partition(",")
    if not comma or not head.startswith("data:image/") or not head.endswith(";base64"):
        return None
    try:
        return _decoded(body.encode("ascii", "replace"))
    except CardRefused:
        return b""


def _main_icon(data: dict[str, Any]) -> dict[str, Any] | None:
    """The asset of type icon that is named main, else the first icon, else None (V3, "assets")."""
    icons = [asset for asset in _assets(data) if asset.get("type") == "icon" and isinstance(asset.get("uri"), str)]
    return next((icon for icon in icons if icon.get("name") == "main"), icons[0] if icons else None)


def _assets(data: dict[str, Any]) -> list[dict[str, Any]]:
    assets = data.get("assets")
    return [asset for asset in assets if isinstance(asset, dict)] if isinstance(assets, list) else []


def _is_elsewhere(asset: dict[str, Any]) -> bool:
    """Whether an asset is found without the imported archive, and is not the main icon."""
    main = asset.get("type") == "icon" and asset.get("name") == "main"
    return not main and not str(asset.get("uri", "")).startswith(_EMBEDDED)

"""The record of a session as bytes, so that another process can go on with it."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from inference.prompting.conversation import Conversation, ConversationContents
from inference.prompting.history import Exchange, ExchangeText, HistoryContents
from inference.prompting.persona import SessionPersona
from inference.prompting.persona_resolver import PersonaResolver
from inference.session_state import SessionState

FORMAT = 1
MAX_RECORD_BYTES = 32 * 1024 * 1024
_LEVEL = 1  # of zlib: ids compress about as well as at higher levels


class BadRecord(ValueError):
    """Bytes that this server cannot go on with."""


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """The contents of a session at one moment. Frozen parts are shared with the session, so that taking one is cheap.

    Args:
        fingerprint: `PersonaEncoder.fingerprint`; the ids are used only by an equal encoder.
        session_id: the client's id.
        chosen: the persona choice.
        sampling: the client's overrides.
        contents: the conversation.
    """

    fingerprint: str
    session_id: str
    chosen: SessionPersona
    sampling: dict[str, float]
    contents: ConversationContents

    @classmethod
    def of(cls, state: SessionState, fingerprint: str) -> SessionRecord | None:
        """Return the record of a session; None before its first turn."""
        if state.session_id is None or state.chosen is None or state.conversation is None:
            return None
        return cls(fingerprint, state.session_id, state.chosen, dict(state.sampling), state.conversation.contents())

    def encode(self) -> bytes:
        """Return the record as compressed bytes. Takes milliseconds where the history is long."""
        chosen, contents = self.chosen, self.contents
        fields: dict[str, Any] = {
            "format": FORMAT,
            "fingerprint": self.fingerprint,
            "session_id": self.session_id,
            "persona": {
                "slug": chosen.snapshot.slug if chosen.snapshot else None,
                "gender": chosen.gender,
                "personality": chosen.personality,
                "chat": chosen.own_chat_template,
                "tool": chosen.own_tool_template,
                "user_name": chosen.user_name,
                "seed": chosen.session_id,
                "moment": chosen.moment.isoformat() if chosen.moment else None,
            },
            "sampling": self.sampling,
            "chat": _history(contents.chat),
            "tool": _history(contents.tool),
            "pending": contents.pending,
            "last_reply": contents.last_reply,
        }
        return zlib.compress(orjson.dumps(fields), _LEVEL)


def decode(data: bytes, resolver: PersonaResolver) -> SessionState:
    """Return a session with the contents of an encoded record. Takes milliseconds; call this in a thread.

    Args:
        data: from :meth:`SessionRecord.encode`.
        resolver: the catalogue and the encoder in force.

    Raises:
        BadRecord: another format, or a stored persona that this server does not have.
    """
    try:
        unpack = zlib.decompressobj()
        fields = orjson.loads(unpack.decompress(data, MAX_RECORD_BYTES))
        if not unpack.eof or fields["format"] != FORMAT:
            raise BadRecord("another format")
        persona = fields["persona"]
        snapshot = None
        if persona["slug"] is not None and (snapshot := resolver.catalogue.by_slug(persona["slug"])) is None:
            raise BadRecord("a stored persona that is not there")
        state = SessionState(fields["session_id"])
        state.chosen = SessionPersona(
            snapshot,
            gender=persona["gender"],
            personality=persona["personality"],
            own_chat_template=persona["chat"],
            own_tool_template=persona["tool"],
            user_name=persona["user_name"],
            session_id=persona["seed"],
            moment=datetime.fromisoformat(persona["moment"]) if persona["moment"] else None,
        )
        state.sampling = dict(fields["sampling"])
        contents = ConversationContents(
            _contents(fields["chat"]), _contents(fields["tool"]), fields["pending"], fields["last_reply"]
        )
        same = fields["fingerprint"] == resolver.encoder.fingerprint
        state.conversation = Conversation.restored(resolver.encoder, contents, same_ids=same)
    except (zlib.error, orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise BadRecord(str(error)) from error
    return state


def _history(history: HistoryContents | None) -> dict[str, Any] | None:
    if history is None:
        return None
    return {
        "trimmed": history.trimmed,
        "exchanges": [
            (each.text.user, each.text.reply, list(each.user_ids), list(each.reply_ids)) for each in history.exchanges
        ],
    }


def _contents(fields: dict[str, Any] | None) -> HistoryContents | None:
    if fields is None:
        return None
    exchanges = [Exchange(ExchangeText(user, reply), ids, said) for user, reply, ids, said in fields["exchanges"]]
    return HistoryContents(tuple(exchanges), fields["trimmed"])

"""The conversational state of a session: its id, persona choice, history and sampling."""

from __future__ import annotations

import asyncio

from accounts.callers import Caller
from inference.prompting.conversation import Conversation
from inference.prompting.heard import Heard
from inference.prompting.history import ExchangeText, History, HistoryError, parse_history_text
from inference.prompting.persona import PersonaFields, ResolvedPersona, SessionPersona
from inference.prompting.persona_resolver import PersonaResolver
from inference.prompting.text_encoder import LONG_TEXT_CHARS
from inference.protocol.errors import ErrorCode, ProtocolError
from personas.snapshot import PersonaSnapshot

MIN_SIZE = 64  # tokens; a state without a history takes about this much memory


class SessionState:
    """The state that survives from turn to turn. A ``start`` with another ``session_id`` begins with an empty one.

    Attributes:
        session_id: the client's id; None before the first ``start``.
        chosen: the persona choice; None before the first ``start``.
        conversation: the history; None before the first ``start``.
        sampling: the client's overrides, valid until another ``start`` gives some.
        version: grows with each copy outside this process.
    """

    def __init__(self, session_id: str | None = None) -> None:
        self.session_id = session_id
        self.chosen: SessionPersona | None = None
        self.conversation: Conversation | None = None
        self.sampling: dict[str, float] = {}
        self.version = 0

    @property
    def snapshot(self) -> PersonaSnapshot | None:
        """The stored persona in use, in the version that was chosen; None where there is none."""
        return self.chosen.snapshot if self.chosen else None

    @property
    def slug(self) -> str:
        """The slug of the stored persona in use; empty where there is none."""
        return self.snapshot.slug if self.snapshot else ""

    @property
    def turns(self) -> int:
        """The number of exchanges that the history holds."""
        return self.conversation.exchanges if self.conversation is not None else 0

    @property
    def size(self) -> int:
        """The memory of this state in tokens, an own prompt included (4 characters count as one token)."""
        own = (self.chosen.own_chat_template or "", self.chosen.own_tool_template or "") if self.chosen else ()
        held = self.conversation.tokens if self.conversation is not None else 0
        return MIN_SIZE + held + sum(map(len, own)) // 4

    def cut_last_reply(self, heard: Heard | None) -> None:
        """Cut the last reply to the part that the user heard. None changes nothing."""
        if heard is not None and self.conversation is not None:
            self.conversation.cut_last_reply(heard)

    @property
    def log_name(self) -> str:
        """The session id as one word of letters, digits and ``._:-``, at most 48 characters."""
        return "".join(c if c.isalnum() or c in "._:-" else "?" for c in (self.session_id or "-")[:48])

    def become(self, other: SessionState) -> None:
        """Take over the contents of another state, which must not be used afterwards."""
        self.session_id, self.sampling, self.version = other.session_id, other.sampling, other.version
        self.chosen, self.conversation = other.chosen, other.conversation

    def adopt(self, chosen: SessionPersona, persona: ResolvedPersona, resolver: PersonaResolver) -> Conversation:
        """Store a choice and fit the history to the persona's length. Returns the history."""
        self.chosen = chosen
        if self.conversation is None:
            self.conversation = Conversation(resolver.encoder)
        self.conversation.switch_persona(persona)
        return self.conversation


async def resolve_persona(resolver: PersonaResolver, chosen: SessionPersona, caller: Caller) -> ResolvedPersona:
    """Resolve a choice under the rights and the catalogue in force now; a long own prompt is encoded in a thread.

    Raises:
        PersonaError: see :meth:`PersonaResolver.resolve`.
    """
    await resolver.encode_ahead(chosen)
    return resolver.resolve(chosen, caller)


async def parse_history(text: str) -> tuple[ExchangeText, ...]:
    """Parse ``history_text``, a long one in a thread.

    Raises:
        ProtocolError: ``invalid_history``.
    """
    try:
        if len(text) > LONG_TEXT_CHARS:
            return await asyncio.to_thread(parse_history_text, text)
        return parse_history_text(text)
    except HistoryError as error:
        raise ProtocolError(ErrorCode.INVALID_HISTORY, str(error)) from None


async def persona_prefix(
    resolver: PersonaResolver, state: SessionState, caller: Caller, chat_prompt: str
) -> tuple[int, ...]:
    """Return the ids of a persona's prompt as a ``start`` of this session with this prompt would begin.

    Raises:
        PersonaError: the key may not bring its own prompt, or the prompt is too long.
    """
    current = state.chosen or SessionPersona(None, session_id=state.session_id or "")
    chosen = resolver.choose(PersonaFields(chat_prompt=chat_prompt), current, caller)
    return (await resolve_persona(resolver, chosen, caller)).chat_ids


async def history_prefix(
    resolver: PersonaResolver, state: SessionState, caller: Caller, history_text: str
) -> list[int]:
    """Return the ids of the session's persona and a history, as a ``start`` with this history would begin.

    Raises:
        ProtocolError: ``invalid_history``.
        PersonaError: the session's persona is no longer allowed.
    """
    texts = await parse_history(history_text)
    encoder = resolver.encoder
    assert encoder.chat is not None
    opening: list[int] = list(encoder.chat.before_system)
    if state.chosen is not None:
        opening = [*(await resolve_persona(resolver, state.chosen, caller)).chat_ids]
    history = History(encoder.chat, encoder.limits.chat_history(len(opening)))
    if len(history_text) > LONG_TEXT_CHARS:
        await asyncio.to_thread(history.replace, texts)
    else:
        history.replace(texts)
    return [*opening, *history.ids]

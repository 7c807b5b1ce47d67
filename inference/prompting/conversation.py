"""What was said in one session, for both engines: the chat engine's record and the tool engine's transcript."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from inference.prompting.history import Exchange, ExchangeText, History
from inference.prompting.persona_resolver import PersonaResolver, ResolvedPersona
from inference.prompting.text_encoder import LONG_TEXT_CHARS
from inference.turn import Turn


class Conversation:
    """The two bounded records of a session, kept in step. An engine that is not deployed has none."""

    def __init__(self, resolver: PersonaResolver) -> None:
        self._casting = resolver
        self._chat = History(resolver.chat, resolver.history_limit(None)) if resolver.chat else None
        self._tool = History(resolver.transcript, resolver.tool_history_limit(None)) if resolver.transcript else None

    def become(self, character: ResolvedPersona) -> None:
        """Another character speaks: what was said stays, the room for it follows the persona's length."""
        if self._chat is not None:
            self._chat.limit(self._casting.history_limit(character))
        if self._tool is not None:
            self._tool.limit(self._casting.tool_history_limit(character))

    async def replace(self, lines: Sequence[ExchangeText]) -> None:
        """Take a client's own record. In a thread where it is long and all of it is new."""
        fresh = not any(map(len, filter(None, (self._chat, self._tool))))
        if fresh and sum(len(line.user or "") + len(line.reply) for line in lines) > LONG_TEXT_CHARS:
            await asyncio.to_thread(self._replace, lines)
        else:
            self._replace(lines)

    def _replace(self, lines: Sequence[ExchangeText]) -> None:
        for record in (self._chat, self._tool):
            if record is not None:
                record.replace(lines)

    def cut_last_reply(self, heard: int) -> None:
        """The user heard only so many characters of the last reply."""
        for record in (self._chat, self._tool):
            if record is not None:
                record.cut_last_reply(heard)

    def remember(self, turn: Turn) -> bool:
        """After a turn, however it ended: what was said, and what was delivered. True when a record was trimmed for
        it: the next prompt begins as none before it did."""
        delivered, form, transcript = turn.delivered(), self._casting.chat, self._casting.transcript
        if turn.ended_by in ("timeout", "error") and not delivered:
            return False
        trimmed = False
        line = ExchangeText(turn.plan.utterance, delivered)
        if self._chat is not None and form is not None:
            user_ids = [] if turn.user_text is None else form.user(turn.user_text, first=not len(self._chat))
            trimmed = self._chat.append(Exchange(line, user_ids, turn.delivered_ids(form.text.encode)))
        if self._tool is not None and transcript is not None:
            trimmed |= self._tool.append(transcript.encode_line(line, first=not len(self._tool)))
        return trimmed

    def prefix(self, character: ResolvedPersona) -> list[int]:
        """What the chat engine's next prompt begins with, whatever is said."""
        return [*character.chat_ids, *(self._chat.ids if self._chat is not None else ())]

    def tool_prefix(self, character: ResolvedPersona) -> list[int]:
        """The same of the tool engine's next prompt."""
        return [*character.tool_ids, *(self._tool.ids if self._tool is not None else ())]

    def chat_prompt(self, character: ResolvedPersona, user_text: str | None) -> list[int]:
        """The chat engine's whole prompt: persona, record, this turn. Only this turn's text is encoded."""
        form = self._casting.chat
        assert form is not None
        assert self._chat is not None
        first = not len(self._chat)
        user_ids = None if user_text is None else form.user(user_text, first=first)
        return [*character.chat_ids, *self._chat.ids, *form.turn(user_ids, first=first)]

    def tool_prompt(self, character: ResolvedPersona, utterance: str) -> list[int] | None:
        """The tool engine's whole prompt, None where it is not deployed."""
        transcript = self._casting.transcript
        if transcript is None or self._tool is None:
            return None
        return [*character.tool_ids, *self._tool.ids, *transcript.utterance(utterance)]

"""The history of one session for both engines: the chat engine's exchanges and the tool engine's transcript."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from inference.engines.base import EngineRole
from inference.prompting.heard import Heard
from inference.prompting.history import Exchange, ExchangeText, History, HistoryContents
from inference.prompting.persona import ResolvedPersona
from inference.prompting.persona_encoder import PersonaEncoder
from inference.prompting.text_encoder import LONG_TEXT_CHARS
from inference.prompting.transcript import TranscriptFormat
from inference.turn_result import EncodedUtterance, EndReason, TurnResult

# Characters. The user's texts of superseded turns are joined up to this length; older text is dropped first.
MAX_PENDING_CHARS = 1000
ARGUMENT_EXCHANGES = 2  # exchanges that a model sees when it writes the arguments of a tool call


@dataclass(frozen=True, slots=True)
class ConversationContents:
    """Contents of a conversation. A history is None where its engine is not deployed.

    Args:
        chat: the chat engine's history.
        tool: the tool engine's history.
        pending: user text that waits for the next turn; None where there is none.
        last_reply: the delivered text of the last reply; None before the first one.
    """

    chat: HistoryContents | None
    tool: HistoryContents | None
    pending: str | None
    last_reply: str | None


class Conversation:
    """Two bounded histories with the same exchanges. An engine that is not deployed has none.

    A user text whose turn was cancelled before anything was delivered is *pending*: :meth:`joined` puts it in front of
    the next user text, so that no empty assistant turn appears in a prompt.
    """

    def __init__(self, encoder: PersonaEncoder) -> None:
        self._encoder = encoder
        limits = encoder.limits
        self._chat = History(encoder.chat, limits.chat_history(0)) if encoder.chat else None
        self._tool = History(encoder.transcript, limits.tool_transcript(0)) if encoder.transcript else None
        self._pending: str | None = None
        self._pending_before = ""  # restored when the turn that took it fails
        self._last_reply: str | None = None  # of the client's last turn, as far as it was delivered

    # -- prompts -----------------------------------------------------------------------------------

    def joined(self, text: str | None) -> str | None:
        """Take the pending user text and return it joined with ``text``; None where both are absent."""
        pending, self._pending = self._pending, None
        self._pending_before = pending or ""
        return "\n".join(filter(None, (pending, text))) or None

    def keep_pending_for_later(self) -> None:
        """Give the pending text back that :meth:`joined` took: the turn did not start."""
        self._pending = self._pending_before or None

    def encode(self, text: str | None, *, ask_tool: bool) -> EncodedUtterance:
        """Encode one user text, once for each engine that reads it in this turn."""
        chat, transcript = self._encoder.chat, self._encoder.transcript
        if text is None:
            return EncodedUtterance(None)
        return EncodedUtterance(
            text,
            chat.user(text, first=not self._chat) if chat is not None else None,
            transcript.user(text) if transcript is not None and ask_tool else None,
        )

    def encode_reply(self, text: str) -> list[int]:
        """Encode the part of a delivered reply that generated ids do not spell."""
        chat = self._encoder.chat
        return chat.text.encode(text) if chat is not None else []

    def chat_prompt(self, persona: ResolvedPersona, utterance: EncodedUtterance) -> list[int]:
        """Return the chat engine's whole prompt: persona, history, this user message."""
        chat = self._encoder.chat
        assert chat is not None
        assert self._chat is not None
        return [*persona.chat_ids, *self._chat.ids, *chat.turn(utterance.chat_ids, first=not self._chat)]

    def tool_prompt(self, persona: ResolvedPersona, utterance: EncodedUtterance) -> list[int] | None:
        """Return the tool engine's whole prompt; None where it is not asked."""
        transcript = self._encoder.transcript
        if transcript is None or self._tool is None or utterance.tool_ids is None:
            return None
        return [*persona.tool_ids, *self._tool.ids, *transcript.decision(utterance.tool_ids)]

    def chat_prefix(self, persona: ResolvedPersona) -> list[int]:
        """Return the ids that begin the chat engine's next prompt, independent of the next user message."""
        return [*persona.chat_ids, *(self._chat.ids if self._chat is not None else ())]

    def tool_prefix(self, persona: ResolvedPersona) -> list[int]:
        """Return the ids that begin the tool engine's next prompt."""
        return [*persona.tool_ids, *(self._tool.ids if self._tool is not None else ())]

    def prefixes(self, persona: ResolvedPersona) -> list[tuple[EngineRole, list[int]]]:
        """Return the ids that begin the next prompt of each engine."""
        return [(EngineRole.CHAT, self.chat_prefix(persona)), (EngineRole.TOOL, self.tool_prefix(persona))]

    def recent_lines(self, count: int) -> list[str]:
        """Return the texts of the last lines of both speakers, oldest first."""
        return [line for text in self._recent(count) for line in (text.user, text.reply) if line][-count:]

    def arguments_prompt(self, instructions: str, text: str, *, by_tool_engine: bool) -> list[int]:
        """Return the prompt of an engine that writes the arguments of a tool call.

        Args:
            instructions: the tool, and the form of the output.
            text: the line that asks for the tool.
            by_tool_engine: whether the tool engine writes them, else the chat engine.
        """
        transcript = self._encoder.arguments_transcript(by_tool_engine=by_tool_engine)
        return self._after(transcript, transcript.system(instructions), text)

    def decision_prompt_of_chat(self, system_ids: Sequence[int], text: str) -> list[int]:
        """Return the prompt of the chat engine that decides about tools in the tool engine's place.

        Args:
            system_ids: ids of the tools' prompt, from ``PersonaEncoder.tool_ids_for_chat``.
            text: the line to decide on.
        """
        return self._after(self._encoder.arguments_transcript(by_tool_engine=False), system_ids, text)

    @property
    def decision_room_of_chat(self) -> int:
        """Tokens of such a prompt that the chat engine's context leaves beside a call."""
        limits = self._encoder.limits
        return limits.chat_context - limits.tool_reply

    def _after(self, transcript: TranscriptFormat, system_ids: Sequence[int], text: str) -> list[int]:
        ids = [*system_ids]
        for exchange in self._recent(ARGUMENT_EXCHANGES):
            ids += transcript.exchange_ids(transcript.encode_exchange(exchange, first=False), first=False)
        return [*ids, *transcript.decision(transcript.user(text))]

    def _recent(self, count: int) -> Sequence[ExchangeText]:
        history = next(iter(self._histories()), None)
        return history.texts[-count:] if history is not None else ()

    # -- changes -----------------------------------------------------------------------------------

    def copy(self) -> Conversation:
        """Return a conversation with the same exchanges, so that two continuations of one history never mix."""
        other = Conversation(self._encoder)
        other._chat = self._chat.copy() if self._chat is not None else None
        other._tool = self._tool.copy() if self._tool is not None else None
        return other

    def contents(self) -> ConversationContents:
        """Return the contents at this moment; later changes do not affect the returned object."""
        chat, tool = (None if history is None else history.contents for history in (self._chat, self._tool))
        return ConversationContents(chat, tool, self._pending, self._last_reply)

    @classmethod
    def restored(cls, encoder: PersonaEncoder, contents: ConversationContents, *, same_ids: bool) -> Conversation:
        """Return a conversation with these contents.

        Args:
            encoder: the encoder in force.
            contents: from :meth:`contents`, perhaps of another process.
            same_ids: whether an equal encoder made the ids; if not, the texts are encoded again.
        """
        other = cls(encoder)
        for history, own in ((other._chat, contents.chat), (other._tool, contents.tool)):
            found = own or contents.chat or contents.tool
            if history is not None and found is not None:
                history.restore(found, same_ids=same_ids and found is own)
        other._pending, other._last_reply = contents.pending, contents.last_reply
        return other

    @property
    def tokens(self) -> int:
        """Token ids that both histories hold."""
        return sum(len(history.ids) for history in self._histories())

    @property
    def exchanges(self) -> int:
        """The number of recorded exchanges."""
        return max((len(history) for history in self._histories()), default=0)

    def switch_persona(self, persona: ResolvedPersona, utterance_tokens: int = 0) -> None:
        """Adapt the histories' limits to the length of another persona. The exchanges stay.

        Args:
            persona: the persona of the next turn.
            utterance_tokens: tokens of the next user message, where they may exceed ``USER_UTT_MAX_TOKENS``.
        """
        limits = self._encoder.limits
        if self._chat is not None:
            self._chat.limit(limits.chat_history(len(persona.chat_ids), utterance_tokens))
        if self._tool is not None:
            self._tool.limit(limits.tool_transcript(len(persona.tool_ids)))

    async def replace(self, texts: Sequence[ExchangeText]) -> None:
        """Take the client's own history. A long history is compared and encoded in a thread."""
        self._pending = self._last_reply = None
        if sum(len(text.user or "") + len(text.reply) for text in texts) > LONG_TEXT_CHARS:
            await asyncio.to_thread(self._replace, texts)
        else:
            self._replace(texts)

    def _replace(self, texts: Sequence[ExchangeText]) -> None:
        for history in self._histories():
            history.replace(texts)

    def append(self, result: TurnResult) -> bool:
        """Record an ended turn as far as it was delivered.

        Returns:
            True where a history was trimmed, so that the next prompt has another prefix than this turn's.
        """
        self._last_reply = None
        if not result.delivered:
            if result.ended_by in (EndReason.TIMEOUT, EndReason.ERROR):
                self.keep_pending_for_later()  # the client repeats a turn that failed
                return False
            if result.ended_by is EndReason.CANCELLED:
                self._keep_pending(result.utterance.text)
                return False
        self._last_reply = result.delivered
        text = ExchangeText(result.utterance.text, result.delivered)
        trimmed = False
        if self._chat is not None:
            trimmed = self._chat.append(Exchange(text, result.utterance.chat_ids or [], result.reply_ids))
        if self._tool is not None and (transcript := self._encoder.transcript) is not None:
            line = result.utterance.tool_ids
            if line is None and text.user is not None:
                line = transcript.user(text.user)
            user_ids = [] if line is None else transcript.past_user(line)
            trimmed |= self._tool.append(Exchange(text, user_ids, transcript.past_reply(text.reply)))
        return trimmed

    def cut_last_reply(self, heard: Heard) -> None:
        """Cut the reply of the client's last turn to the part that the user heard. Older replies never change.

        Where nothing was heard the exchange is removed and its user text becomes pending.
        """
        if self._last_reply is None:
            return
        characters = heard.code_points_of(self._last_reply)
        self._last_reply = self._last_reply[:characters]
        last = next((history.texts[-1] for history in self._histories() if len(history)), None)
        for history in self._histories():
            if not len(history):
                continue
            if characters:
                history.cut_last_reply(characters)
            else:
                history.drop_last()
        if not characters:
            self._last_reply = None
            self._keep_pending(last.user if last else None)

    def _keep_pending(self, text: str | None) -> None:
        self._pending = (text or "")[-MAX_PENDING_CHARS:] or None

    def _histories(self) -> list[History]:
        return [history for history in (self._chat, self._tool) if history is not None]

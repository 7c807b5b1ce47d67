"""Who a session speaks as, ready to use: a persona's text as ids, its sampling, its phrases compiled.

Everything here is computed once per persona or per phrase list and shared by all sessions; a session only holds
references.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache

from accounts.callers import Caller
from inference.phrases.compiled import CompiledPhrases, PhraseStore
from inference.prompting.chat_template import ChatFormat
from inference.prompting.text_encoder import LONG_TEXT_CHARS
from inference.prompting.tool_prompt import DEFAULT_TOOL_PROMPT
from inference.prompting.transcript import TranscriptFormat
from inference.protocol.errors import ErrorCode, ProtocolError
from inference.protocol.messages import PersonaFields
from personas.snapshot import Catalogue, PersonaSnapshot

DEFAULT_USER_NAME = "the user"  # what {{user}} is where a client does not say who it is
# No tokenizer in use packs more characters into a token on average than this: a longer text need not be encoded to
# be refused.
MAX_CHARS_PER_TOKEN = 24


@dataclass(frozen=True, slots=True)
class PromptLimits:
    """Tokens that the server allows for each part of a prompt."""

    chat_prompt: int = 1800
    tool_prompt: int = 1450
    history: int = 3000
    tool_history: int = 1200
    utterance: int = 350
    chat_context: int = 5160
    chat_reply: int = 150
    tool_context: int = 3000
    tool_reply: int = 64


@dataclass(frozen=True, slots=True)
class ResolvedPersona:
    """Everything a turn needs of a persona. ``snapshot`` is None where the client wrote its own prompt without
    naming one.

    ``chat_ids`` and ``tool_ids`` begin every prompt of the two engines (empty where the engine is not deployed).
    """

    gender: str | None
    personality: str | None
    chat_prompt: str | None
    tool_prompt: str
    chat_ids: tuple[int, ...]
    tool_ids: tuple[int, ...]
    compiled_phrases: CompiledPhrases
    snapshot: PersonaSnapshot | None = None
    sampling: Mapping[str, float] = field(default_factory=dict)
    output_style: str = "raw"
    own_prompt: bool = False  # chat_prompt came from the client

    @property
    def slug(self) -> str | None:
        return self.snapshot.slug if self.snapshot else None


class PersonaResolver:
    """Makes characters out of what messages say and what the catalogue holds. One per process.

    ``chat`` and ``tool`` are the formats of the deployed engines, None for the one that is not deployed.
    ``phrases`` holds the compiled phrase lists, and the catalogue in force with them.
    """

    def __init__(
        self, chat: ChatFormat | None, tool: ChatFormat | None, limits: PromptLimits, phrases: PhraseStore
    ) -> None:
        self.chat = chat
        self.transcript = TranscriptFormat(tool, utterance_max_tokens=limits.utterance) if tool else None
        self.limits = limits
        self._tool = tool
        self.phrases = phrases
        self._chat_ids = lru_cache(maxsize=512)(self._encode_chat)
        self._tool_ids = lru_cache(maxsize=512)(self._encode_tool)

    # -- the catalogue -----------------------------------------------------------------------------

    @property
    def catalogue(self) -> Catalogue:
        """The version in force. Replaced whole: what a turn has taken from it stays one version."""
        return self.phrases.catalogue

    # -- characters --------------------------------------------------------------------------------

    def cast(
        self,
        fields: PersonaFields,
        before: ResolvedPersona | None,
        tool_prompt: str | None,
        user_name: str | None,
        caller: Caller,
    ) -> ResolvedPersona:
        """The character that a message of this caller asks for, ``before`` being the session's own so far.

        Raises :class:`ProtocolError` where the message leaves it unknown, or asks for what the key may not have.
        """
        if fields.chat_prompt is not None and not caller.own_chat_prompt:
            raise ProtocolError(ErrorCode.INVALID_CHAT_PROMPT, "this key may not bring its own chat_prompt")
        if tool_prompt is not None and not caller.own_tool_prompt:
            raise ProtocolError(ErrorCode.INVALID_TOOL_PROMPT, "this key may not bring its own tool_prompt")
        if before is None and fields.persona is None:
            if fields.gender is None:
                raise ProtocolError(ErrorCode.MISSING_GENDER, "a session's first start needs gender, or persona")
            if fields.personality is None:
                raise ProtocolError(
                    ErrorCode.MISSING_PERSONALITY, "a session's first start needs personality, or persona"
                )
        if before is not None:
            before = self.renewed(before, user_name)
            if not fields and tool_prompt is None:
                return before
            if fields.persona is None and (fields.gender or fields.personality):
                fields = replace(
                    fields,
                    gender=fields.gender or before.gender,
                    personality=fields.personality or before.personality,
                )
        snapshot: PersonaSnapshot | None = self.stored(fields, caller.personas)
        same = before is not None and (fields.gender, fields.personality) in (
            (None, None),
            (before.gender, before.personality),
        )
        if snapshot is None and before is not None and same and fields.persona is None:
            snapshot = before.snapshot
            if before.own_prompt and fields.chat_prompt is None:
                fields = replace(fields, chat_prompt=before.chat_prompt)
        return self.character(fields, snapshot=snapshot, before=before, tool_prompt=tool_prompt, user_name=user_name)

    async def encode_ahead(self, fields: PersonaFields, before: ResolvedPersona | None, user_name: str | None) -> None:
        """Where a message brings a long prompt that is new, encode it in a thread, for :meth:`cast` to find."""
        if fields.chat_prompt is None or len(fields.chat_prompt) <= LONG_TEXT_CHARS:
            return
        prompt = fields.chat_prompt.replace("{{user}}", user_name or DEFAULT_USER_NAME)
        if before is None or prompt != before.chat_prompt:
            with suppress(ProtocolError):  # it is too long: cast says so, in its turn
                await asyncio.to_thread(self._chat_ids, prompt)

    def stored(self, fields: PersonaFields, allowed: frozenset[str] | None) -> PersonaSnapshot | None:
        """The stored persona that a message names, by slug, else by gender and personality.

        Raises ``unknown_persona`` for a slug that does not exist, is disabled, or is not this key's (``allowed``).
        """
        if fields.persona is not None:
            found = self.catalogue.by_slug(fields.persona)
            if found is None or (allowed is not None and found.slug not in allowed):
                raise ProtocolError(ErrorCode.UNKNOWN_PERSONA, f"there is no persona {fields.persona[:64]!r}")
            return found
        if fields.gender is None or fields.personality is None:
            return None
        return self.catalogue.by_style(fields.gender, fields.personality, allowed)

    def character(
        self,
        fields: PersonaFields,
        *,
        snapshot: PersonaSnapshot | None,
        before: ResolvedPersona | None,
        tool_prompt: str | None,
        user_name: str | None,
    ) -> ResolvedPersona:
        """The character after a message: its own prompt, else the stored persona's, else what the session has.

        ``tool_prompt`` is the message's; ``before`` is what the session has. Raises ``missing_chat_prompt``,
        ``chat_prompt_too_long``, ``tool_prompt_too_long``.
        """
        prompt = fields.chat_prompt or (snapshot.chat_prompt if snapshot else None)
        if prompt is None and before is not None:
            prompt = before.chat_prompt
        if prompt is None and self.chat is not None:
            raise ProtocolError(ErrorCode.MISSING_CHAT_PROMPT, "no chat_prompt was given and no stored persona fits")
        if prompt is not None:
            prompt = prompt.replace("{{user}}", user_name or DEFAULT_USER_NAME)
        tool_text = tool_prompt or (snapshot.tool_prompt if snapshot else None)
        tool_text = tool_text or (before.tool_prompt if before else None) or DEFAULT_TOOL_PROMPT
        gender = fields.gender or (snapshot.gender if snapshot else before.gender if before else None)
        personality = fields.personality or (
            snapshot.personality if snapshot else before.personality if before else None
        )
        return ResolvedPersona(
            gender=gender,
            personality=personality,
            chat_prompt=prompt,
            tool_prompt=tool_text,
            chat_ids=self._chat_ids(prompt) if prompt is not None else (),
            tool_ids=self._tool_ids(tool_text),
            compiled_phrases=self.phrases.of(snapshot),
            snapshot=snapshot,
            sampling=snapshot.sampling if snapshot else {},
            output_style=snapshot.output_style if snapshot else "raw",
            own_prompt=fields.chat_prompt is not None
            or (snapshot is None and before is not None and before.own_prompt),
        )

    def renewed(self, character: ResolvedPersona, user_name: str | None) -> ResolvedPersona:
        """The same character after the catalogue changed: the new version of its persona, its own prompt kept."""
        old = character.snapshot
        new = self.catalogue.by_slug(old.slug) if old else None
        if old is not None and new is None:
            new = old  # disabled or deleted: sessions that have it keep it
        compiled_phrases = self.phrases.of(new)
        if new is old and compiled_phrases is character.compiled_phrases:
            return character
        fields = PersonaFields(
            chat_prompt=character.chat_prompt if character.own_prompt else None,
            gender=None if new is not old else character.gender,
            personality=None if new is not old else character.personality,
        )
        return self.character(fields, snapshot=new, before=character, tool_prompt=None, user_name=user_name)

    def chat_ids(self, chat_prompt: str) -> tuple[int, ...]:
        """The ids of a persona's text. Raises ``chat_prompt_too_long``."""
        return self._chat_ids(chat_prompt)

    def prefix(self, stored_prompt: str) -> tuple[int, ...]:
        """The ids that a stored persona's prompts begin with. Raises ``ValueError`` where it is too long to be used."""
        try:
            return self._chat_ids(stored_prompt.replace("{{user}}", DEFAULT_USER_NAME))
        except ProtocolError as error:
            raise ValueError(error.message) from None

    def history_limit(self, character: ResolvedPersona | None) -> int:
        """Tokens of history that fit beside this persona, the longest utterance and the longest reply."""
        limits = self.limits
        used = len(character.chat_ids) if character else 0
        room = limits.chat_context - limits.chat_reply - limits.utterance - used - 64
        return max(0, min(limits.history, room))

    def tool_history_limit(self, character: ResolvedPersona | None) -> int:
        """The same for the tool engine's transcript."""
        limits = self.limits
        used = len(character.tool_ids) if character else 0
        room = limits.tool_context - limits.tool_reply - limits.utterance - used - 64
        return max(0, min(limits.tool_history, room))

    def tool_warm_ids(self) -> list[list[int]]:
        """Prefixes worth priming in the tool engine before anyone asks."""
        return [[*self._tool_ids(DEFAULT_TOOL_PROMPT), *self.transcript.utterance("hi")]] if self.transcript else []

    def _encode_chat(self, prompt: str) -> tuple[int, ...]:
        if self.chat is None:
            return ()
        limit = self.limits.chat_prompt
        too_long = ProtocolError(ErrorCode.CHAT_PROMPT_TOO_LONG, f"chat_prompt may have at most {limit} tokens")
        if len(prompt) > limit * MAX_CHARS_PER_TOKEN or len(ids := self.chat.system(prompt)) > limit:
            raise too_long
        return (*self.chat.before_system, *ids)

    def _encode_tool(self, prompt: str) -> tuple[int, ...]:
        if self._tool is None or self.transcript is None:
            return ()
        limit = self.limits.tool_prompt
        too_long = ProtocolError(ErrorCode.TOOL_PROMPT_TOO_LONG, f"tool_prompt may have at most {limit} tokens")
        if len(prompt) > limit * MAX_CHARS_PER_TOKEN or len(self._tool.system(prompt)) > limit:
            raise too_long
        return tuple(self.transcript.system(prompt))

"""Chooses the persona of a session and resolves it for a turn, under the catalogue and the key's rights in force."""

from __future__ import annotations

from datetime import datetime

from accounts.callers import Caller
from inference.phrases.compiled import PhraseStore
from inference.prompting.persona import (
    PersonaError,
    PersonaFields,
    PersonaProblem,
    ResolvedPersona,
    SessionPersona,
)
from inference.prompting.persona_encoder import PersonaEncoder
from inference.prompting.text_encoder import LONG_TEXT_CHARS
from inference.prompting.tool_definitions import CallGrammar, grammar_of, grammar_with_stored
from inference.prompting.tool_prompt import DEFAULT_TOOL_PROMPT, prompt_of_tools
from personas.macros import ExpansionTooLong, display_user_name, expand, has_macros, steady_moment
from personas.snapshot import Catalogue, PersonaSnapshot
from personas.tool_snapshot import tools_of

DEFAULT_CHARACTER_NAME = "the character"  # {{char}} in a prompt of the client without a stored persona


class PersonaResolver:
    """Pure functions of a message, the session's stored choice, the caller's rights and the catalogue. One per process.

    Args:
        encoder: encodes prompts for the deployed engines.
        phrases: the compiled phrase lists and the catalogue in force.
    """

    def __init__(self, encoder: PersonaEncoder, phrases: PhraseStore) -> None:
        self.encoder = encoder
        self.phrases = phrases

    @property
    def catalogue(self) -> Catalogue:
        """The catalogue in force. An edit replaces the object; no object is changed in place."""
        return self.phrases.catalogue

    # -- choosing ------------------------------------------------------------------------------------

    def choose(
        self,
        fields: PersonaFields,
        current: SessionPersona | None,
        caller: Caller,
        *,
        tool_template: str | None = None,
        user_name: str | None = None,
        session_id: str = "",
    ) -> SessionPersona:
        """Return the session's persona after a message.

        The prompt is the message's own, else that of the named persona, else that of the stored persona with this
        gender and personality, else the one that the session has.

        Args:
            fields: the persona fields of the message.
            current: the session's persona so far; None for a new session.
            caller: the key's current rights.
            tool_template: the message's own tool prompt; None where the message has none.
            user_name: the user's name from the message; None keeps the session's.
            session_id: the id of a new session; an existing session keeps its own.

        Returns:
            ``current`` itself where the message changes nothing.

        Raises:
            PersonaError: fields that are missing, unknown, or not allowed for this key.
        """
        if fields.chat_prompt is not None and not caller.own_chat_prompt:
            raise _no_own_chat_prompt()
        if tool_template is not None and not caller.own_tool_prompt:
            raise _no_own_tool_prompt()
        if current is None:
            _require_labels(fields)
            current = SessionPersona(None, session_id=session_id)
        snapshot, tools = current.snapshot, tool_template or current.own_tool_template
        gender, personality = fields.gender or current.gender, fields.personality or current.personality
        own_chat_template = fields.chat_prompt or current.own_chat_template
        if (stored := self._stored(fields, current, caller)) is not None:
            snapshot, own_chat_template = stored, fields.chat_prompt
            gender = None if fields.gender == stored.gender else fields.gender
            personality = None if fields.personality == stored.personality else fields.personality
            if stored.tool_prompt:
                tools = tool_template
        chosen = SessionPersona(
            snapshot=snapshot,
            gender=gender,
            personality=personality,
            own_chat_template=own_chat_template,
            own_tool_template=tools,
            user_name=user_name or current.user_name,
            session_id=current.session_id,
            moment=steady_moment(current.moment, datetime.now().astimezone()),
        )
        return current if chosen.same_as(current) else chosen

    def _stored(self, fields: PersonaFields, current: SessionPersona, caller: Caller) -> PersonaSnapshot | None:
        """Return the stored persona that a message names by slug, else by gender and personality; None for neither."""
        if fields.persona is not None:
            found = self.catalogue.by_slug(fields.persona)
            if found is None or not _may_use(caller, found):
                raise PersonaError(
                    PersonaProblem.UNKNOWN_PERSONA, f"there is no persona {fields.persona[:64]!r} for this key"
                )
            return found
        if fields.gender is None and fields.personality is None:
            return None
        snapshot = current.snapshot
        gender = fields.gender or current.gender or (snapshot.gender if snapshot else None)
        personality = fields.personality or current.personality or (snapshot.personality if snapshot else None)
        if gender is None or personality is None:
            return None
        # Of several personas with this style the session's own comes first: repeated labels change nothing.
        if snapshot is not None and (gender, personality) == (snapshot.gender, snapshot.personality):
            same = self.catalogue.by_slug(snapshot.slug)
            if same is not None and _may_use(caller, same):
                return same
        return self.catalogue.by_style(gender, personality, caller.personas)

    # -- resolving -----------------------------------------------------------------------------------

    def resolve(self, chosen: SessionPersona, caller: Caller) -> ResolvedPersona:
        """Return the persona as a turn uses it: newest version, rights checked, macros expanded, prompts encoded.

        A persona that was disabled or deleted stays usable for the sessions that chose it before.

        Raises:
            PersonaError: the key's rights no longer cover the choice, no prompt is known, or a prompt is too long.
        """
        snapshot = self._current_version(chosen.snapshot)
        if snapshot is not None and not _may_use(caller, snapshot):
            raise PersonaError(
                PersonaProblem.UNKNOWN_PERSONA, f"this key may no longer use the persona {snapshot.slug!r}"
            )
        if chosen.own_chat_template is not None and not caller.own_chat_prompt:
            raise _no_own_chat_prompt()
        if chosen.own_tool_template is not None and not caller.own_tool_prompt:
            raise _no_own_tool_prompt()
        encoder = self.encoder
        chat_prompt = self.chat_prompt(chosen, snapshot)
        if chat_prompt is None and encoder.chat is not None:
            raise PersonaError(
                PersonaProblem.MISSING_CHAT_PROMPT, "no chat_prompt was given and no stored persona fits"
            )
        tool_prompt, grammar = self._tools(chosen, snapshot)
        return ResolvedPersona(
            gender=chosen.gender or (snapshot.gender if snapshot else None),
            personality=chosen.personality or (snapshot.personality if snapshot else None),
            chat_prompt=chat_prompt,
            tool_prompt=tool_prompt,
            chat_ids=encoder.chat_ids(chat_prompt) if chat_prompt is not None else (),
            tool_ids=encoder.tool_ids(tool_prompt),
            phrases=self.phrases.of(snapshot),
            grammar=grammar,
            snapshot=snapshot,
            sampling=snapshot.sampling if snapshot else {},
            output_style=snapshot.output_style if snapshot else "raw",
            user_name=chosen.user_name,
        )

    def _tools(self, chosen: SessionPersona, snapshot: PersonaSnapshot | None) -> tuple[str, CallGrammar]:
        """Return the tool prompt and the calls that it allows: the client's own prompt, the persona's, or the tools
        that operators defined; without any of these the server's default prompt."""
        template = chosen.own_tool_template or (snapshot.tool_prompt if snapshot else None)
        stored = tools_of(self.catalogue.tools, snapshot.slug if snapshot else None)
        if template is not None:
            prompt = self._expand(template, chosen, PersonaProblem.TOOL_PROMPT_TOO_LONG)
            return prompt, grammar_with_stored(prompt, stored)
        default = grammar_of(DEFAULT_TOOL_PROMPT)
        if not stored or [(tool.name, tool.parameters) for tool in stored] == [(name, None) for name in default.names]:
            return DEFAULT_TOOL_PROMPT, default
        prompt = prompt_of_tools(stored)
        return prompt, grammar_of(prompt)

    async def encode_ahead(self, chosen: SessionPersona) -> None:
        """Encode a long prompt of the client in a thread, before :meth:`resolve` needs the ids on the serving loop."""
        template = chosen.own_chat_template
        if template is None or (len(template) <= LONG_TEXT_CHARS and not has_macros(template)):
            return
        try:
            prompt = self.chat_prompt(chosen, chosen.snapshot)
        except PersonaError:
            return  # resolve() raises the same error
        await self.encoder.encode_ahead(prompt)

    def chat_prompt(self, chosen: SessionPersona, snapshot: PersonaSnapshot | None) -> str | None:
        """Return the expanded chat prompt: the client's own, else the snapshot's; None where there is neither.

        Raises:
            PersonaError: the expanded prompt is longer than ``max_chat_chars``.
        """
        template = chosen.own_chat_template or (snapshot.chat_prompt if snapshot else None)
        return None if template is None else self._expand(template, chosen, PersonaProblem.CHAT_PROMPT_TOO_LONG)

    def describe(self, chosen: SessionPersona) -> tuple[str | None, ...]:
        """Return the parts of a choice that ``chat_prompt`` can change: labels, slug, own prompt. For comparison."""
        snapshot = self._current_version(chosen.snapshot)
        return (
            chosen.gender or (snapshot.gender if snapshot else None),
            chosen.personality or (snapshot.personality if snapshot else None),
            snapshot.slug if snapshot else None,
            chosen.own_chat_template,
        )

    def stored_prefix(self, snapshot: PersonaSnapshot) -> tuple[int, ...]:
        """Return the ids that begin the prompts of a stored persona for a user without a name.

        Raises:
            PersonaError: the prompt is too long to be used.
        """
        prompt = self.chat_prompt(SessionPersona(snapshot), snapshot)
        return () if prompt is None else self.encoder.chat_ids(prompt)

    def encode_stored(self, snapshot: PersonaSnapshot) -> None:
        """Encode the prompts of a stored persona and read its tools, as its first turn needs them. In any thread.

        Raises:
            PersonaError: a prompt is too long to be used.
        """
        self.stored_prefix(snapshot)
        tool_prompt, _ = self._tools(SessionPersona(snapshot), snapshot)
        self.encoder.tool_ids(tool_prompt)

    def _current_version(self, snapshot: PersonaSnapshot | None) -> PersonaSnapshot | None:
        return None if snapshot is None else self.catalogue.by_slug(snapshot.slug) or snapshot

    def _expand(self, template: str, chosen: SessionPersona, too_long: PersonaProblem) -> str:
        is_chat = too_long is PersonaProblem.CHAT_PROMPT_TOO_LONG
        limit = self.encoder.max_chat_chars if is_chat else self.encoder.max_tool_chars
        try:
            return expand(
                template,
                user=display_user_name(chosen.user_name),
                char=chosen.snapshot.char if chosen.snapshot else DEFAULT_CHARACTER_NAME,
                seed=chosen.session_id,
                now=chosen.moment or datetime.now().astimezone(),
                max_chars=limit,
            )
        except ExpansionTooLong:
            name = "chat_prompt" if is_chat else "tool_prompt"
            raise PersonaError(too_long, f"{name} is too long") from None


def _may_use(caller: Caller, snapshot: PersonaSnapshot) -> bool:
    return caller.personas is None or snapshot.slug in caller.personas


def _require_labels(fields: PersonaFields) -> None:
    if fields.persona is not None:
        return
    if fields.gender is None:
        raise PersonaError(PersonaProblem.MISSING_GENDER, "a session's first start needs gender, or persona")
    if fields.personality is None:
        raise PersonaError(PersonaProblem.MISSING_PERSONALITY, "a session's first start needs personality, or persona")


def _no_own_chat_prompt() -> PersonaError:
    return PersonaError(PersonaProblem.CHAT_PROMPT_NOT_ALLOWED, "this key may not bring its own chat_prompt")


def _no_own_tool_prompt() -> PersonaError:
    return PersonaError(PersonaProblem.TOOL_PROMPT_NOT_ALLOWED, "this key may not bring its own tool_prompt")

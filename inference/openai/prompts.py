"""Prompts of this surface: the persona of a request, and histories whose user messages may fill the context."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime

from accounts.callers import Caller
from inference.openai.errors import context_length_exceeded
from inference.openai.models import Model
from inference.openai.requests import Ask
from inference.prompting.conversation import Conversation
from inference.prompting.persona import PersonaFields, ResolvedPersona, SessionPersona
from inference.prompting.persona_encoder import PersonaEncoder
from inference.prompting.persona_resolver import PersonaResolver
from inference.prompting.text_encoder import LONG_TEXT_CHARS, MAX_CHARS_PER_TOKEN
from inference.turn_result import EncodedUtterance
from personas.macros import steady_moment

DEFAULT_SYSTEM = "You are a helpful assistant."


class PromptFormats:
    """The prompt formats of this surface, made once for the engines' formats. ``/ws`` keeps its own.

    User messages are limited by the context alone: clients send long posts and whole task descriptions.
    """

    def __init__(self) -> None:
        self._base: PersonaEncoder | None = None
        self._encoders: dict[bool, PersonaEncoder] = {}

    def encoder(self, base: PersonaEncoder, *, ask_tool: bool) -> PersonaEncoder:
        """Return the encoder of this surface.

        Args:
            base: the encoder of ``/ws``.
            ask_tool: with a transcript for the tool engine.
        """
        if self._base is not base:
            chat = base.chat.with_utterance_limit(base.limits.chat_context) if base.chat is not None else None
            self._base = base
            self._encoders = {False: PersonaEncoder(chat, None, base.limits), True: base.with_chat(chat)}
        return self._encoders[ask_tool]


async def resolve_persona(
    resolver: PersonaResolver, model: Model, ask: Ask, caller: Caller, *, by_tool_engine: bool
) -> ResolvedPersona:
    """Resolve the persona of a request, with the request's tools.

    With a stored persona, the request's system text follows the persona's prompt where the key may bring its own
    prompt, and is left out where the key may not.

    Args:
        resolver: personas in force.
        model: the chosen model.
        ask: the request.
        caller: the key.
        by_tool_engine: whether the tool engine reads the tools' prompt, else the chat engine.

    Raises:
        PersonaError: a prompt that is too long.
    """
    system = ask.prompt.system
    if model.persona is None:
        moment = steady_moment(None, datetime.now().astimezone())
        chosen = SessionPersona(
            None, own_chat_template=system or DEFAULT_SYSTEM, user_name=ask.user_name, moment=moment
        )
    else:
        chosen = resolver.choose(PersonaFields(persona=model.persona.slug), None, caller, user_name=ask.user_name)
        if system and caller.own_chat_prompt:
            chosen = replace(chosen, own_chat_template=f"{model.persona.chat_prompt}\n\n{system}")
    await resolver.encode_ahead(chosen)
    persona = resolver.resolve(chosen, caller)
    if ask.tools is None:
        return persona
    tool_ids = await resolver.encoder.encode_tool_prompt(ask.tools.prompt, by_tool_engine=by_tool_engine)
    return replace(persona, tool_prompt=ask.tools.prompt, tool_ids=tool_ids, grammar=ask.tools.grammar)


async def encode_whole(encoder: PersonaEncoder, text: str) -> list[int]:
    """Encode a prompt that holds the template, a long one in a thread.

    Args:
        encoder: the encoder of this surface.
        text: the whole prompt.

    Raises:
        OpenAIError: ``context_length_exceeded``.
    """
    assert encoder.chat is not None
    room = max(0, encoder.limits.chat_room(0))
    too_long = f"the prompt is longer than the {room} tokens that the context leaves"
    if len(text) > room * MAX_CHARS_PER_TOKEN:
        raise context_length_exceeded(too_long)
    encode = encoder.chat.whole_prompt
    ids = await asyncio.to_thread(encode, text) if len(text) > LONG_TEXT_CHARS else encode(text)
    if len(ids) > room:
        raise context_length_exceeded(too_long)
    return ids


async def encode_end(
    encoder: PersonaEncoder, conversation: Conversation, persona: ResolvedPersona, ask: Ask
) -> tuple[EncodedUtterance, list[int]]:
    """Encode the end of a request's prompt, a long one in a thread, and make room for it in the history.

    Args:
        encoder: the encoder of ``conversation``.
        conversation: the history; old exchanges are dropped where the end needs their room.
        persona: the persona of the turn.
        ask: the request.

    Returns:
        The user's last message, and the ids of the reply's beginning (empty without one).

    Raises:
        OpenAIError: ``context_length_exceeded``.
    """
    chat = encoder.chat
    assert chat is not None
    user, prefill = ask.prompt.user, ask.prompt.prefill or ""
    room = max(0, encoder.limits.chat_room(len(persona.chat_ids)))
    characters = len(user or "") + len(prefill)
    if characters > room * MAX_CHARS_PER_TOKEN:
        raise context_length_exceeded(f"the last message is longer than the {room} tokens that the context leaves")

    def encode() -> tuple[EncodedUtterance, list[int]]:
        return conversation.encode(user, ask_tool=ask.has_tools), chat.reply(prefill) if prefill else []

    utterance, prefill_ids = await asyncio.to_thread(encode) if characters > LONG_TEXT_CHARS else encode()
    tokens = len(utterance.chat_ids or ()) + len(prefill_ids)
    if tokens > room:
        message = f"the last message has {tokens} tokens; the context leaves {room} beside the system text"
        raise context_length_exceeded(message)
    conversation.switch_persona(persona, tokens)
    return utterance, prefill_ids

"""Persona and tool prompts to token ids: bounded, cached, shared by all sessions of the process."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import suppress
from datetime import date
from functools import cached_property, lru_cache

from inference.prompting.chat_template import ChatFormat
from inference.prompting.history import ExchangeFormat, ExchangeText
from inference.prompting.persona import PersonaError, PersonaProblem
from inference.prompting.prompt_limits import PromptLimits
from inference.prompting.text_encoder import LONG_TEXT_CHARS
from inference.prompting.tool_prompt import DEFAULT_TOOL_PROMPT
from inference.prompting.transcript import TranscriptFormat

# The known tokenizers average fewer characters per token than this, so a longer text is refused without encoding.
MAX_CHARS_PER_TOKEN = 24
CACHED_PROMPTS = 512
FINGERPRINT_TEXT = "Hello, World! 3.14 \n Ünïcödé – 日本語 🎉 'quotes' def f(x): return x"


class PersonaEncoder:
    """Encodes the prompts that begin every request of the two engines.

    Args:
        chat: the chat engine's template; None where it is not deployed.
        tool: the tool engine's template; None where it is not deployed.
        limits: the token limits of both prompts.
    """

    def __init__(self, chat: ChatFormat | None, tool: ChatFormat | None, limits: PromptLimits) -> None:
        self.chat = chat
        self.transcript = TranscriptFormat(tool, utterance_max_tokens=limits.utterance) if tool else None
        self._chat_transcript = TranscriptFormat(chat, utterance_max_tokens=limits.utterance) if chat else None
        self.limits = limits
        self._tool = tool
        # The day is part of the key: a chat template may print the date.
        self._chat_ids = lru_cache(maxsize=CACHED_PROMPTS)(self._encode_chat)
        self._tool_ids = lru_cache(maxsize=CACHED_PROMPTS)(self._encode_tool)
        self._tool_ids_for_chat = lru_cache(maxsize=CACHED_PROMPTS)(self._encode_tool_for_chat)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the ids that both engines give one exchange; equal encoders have equal hashes."""
        text = ExchangeText(FINGERPRINT_TEXT, FINGERPRINT_TEXT)
        ids: list[list[int]] = []
        forms: list[ExchangeFormat] = [form for form in (self.chat, self.transcript) if form is not None]
        for form in forms:
            exchange = form.encode_exchange(text, first=False)
            ids += [list(form.exchange_ids(exchange, first=first)) for first in (True, False)]
        layout = (self.chat is not None, self.transcript is not None, ids)
        return hashlib.sha256(repr(layout).encode()).hexdigest()

    @property
    def max_chat_chars(self) -> int:
        """Characters beyond which a chat prompt is refused without being encoded."""
        return self.limits.chat_prompt * MAX_CHARS_PER_TOKEN

    @property
    def max_tool_chars(self) -> int:
        """Characters beyond which a tool prompt is refused without being encoded."""
        return self.limits.tool_prompt * MAX_CHARS_PER_TOKEN

    def chat_ids(self, prompt: str) -> tuple[int, ...]:
        """Return the ids of a persona's text with the template's opening; empty without a chat engine.

        Raises:
            PersonaError: ``CHAT_PROMPT_TOO_LONG``.
        """
        return self._chat_ids(prompt, self.chat.day if self.chat else None)

    def tool_ids(self, prompt: str) -> tuple[int, ...]:
        """Return the ids of a tool prompt, examples as turns; empty without a tool engine.

        Raises:
            PersonaError: ``TOOL_PROMPT_TOO_LONG``.
        """
        return self._tool_ids(prompt, self._tool.day if self._tool else None)

    def tool_ids_for_chat(self, prompt: str) -> tuple[int, ...]:
        """Return the ids of a tool prompt for the chat engine; empty without a chat engine.

        Raises:
            PersonaError: ``TOOL_PROMPT_TOO_LONG``.
        """
        return self._tool_ids_for_chat(prompt, self.chat.day if self.chat else None)

    def with_chat(self, chat: ChatFormat | None) -> PersonaEncoder:
        """Return an encoder with the same tool engine and another format of the chat engine."""
        return PersonaEncoder(chat, self._tool, self.limits)

    async def encode_tool_prompt(self, prompt: str, *, by_tool_engine: bool = True) -> tuple[int, ...]:
        """Return the ids of a tool prompt; a long one is encoded in a thread.

        Args:
            prompt: the tool prompt.
            by_tool_engine: whether the tool engine reads the prompt, else the chat engine.

        Raises:
            PersonaError: ``TOOL_PROMPT_TOO_LONG``.
        """
        encode = self.tool_ids if by_tool_engine else self.tool_ids_for_chat
        if LONG_TEXT_CHARS < len(prompt) <= self.max_tool_chars:
            return await asyncio.to_thread(encode, prompt)
        return encode(prompt)

    async def encode_ahead(self, prompt: str | None) -> None:
        """Encode a long prompt in a thread, so that :meth:`chat_ids` finds it in the cache.

        Errors are left to :meth:`chat_ids`.
        """
        if prompt is not None and LONG_TEXT_CHARS < len(prompt) <= self.max_chat_chars:
            with suppress(PersonaError):
                await asyncio.to_thread(self.chat_ids, prompt)

    def arguments_transcript(self, *, by_tool_engine: bool) -> TranscriptFormat:
        """Return the transcript format of the engine that writes the arguments of tool calls.

        Raises:
            ValueError: that engine is not deployed.
        """
        form = self.transcript if by_tool_engine else self._chat_transcript
        if form is None:
            raise ValueError("the engine that writes arguments is not deployed")
        return form

    def tool_warm_ids(self) -> list[list[int]]:
        """Return the prompts that the tool engine computes at start; empty without a tool engine."""
        if self.transcript is None:
            return []
        return [[*self.tool_ids(DEFAULT_TOOL_PROMPT), *self.transcript.decision(self.transcript.user("hi"))]]

    def _encode_chat(self, prompt: str, day: date | None) -> tuple[int, ...]:
        if self.chat is None:
            return ()
        limit = self.limits.chat_prompt
        if len(prompt) > self.max_chat_chars or len(ids := self.chat.system(prompt)) > limit:
            raise PersonaError(PersonaProblem.CHAT_PROMPT_TOO_LONG, f"chat_prompt may have at most {limit} tokens")
        return (*self.chat.before_system, *ids)

    def _encode_tool(self, prompt: str, day: date | None) -> tuple[int, ...]:
        return self._tool_prompt_ids(prompt, self._tool, self.transcript)

    def _encode_tool_for_chat(self, prompt: str, day: date | None) -> tuple[int, ...]:
        return self._tool_prompt_ids(prompt, self.chat, self._chat_transcript)

    def _tool_prompt_ids(
        self, prompt: str, form: ChatFormat | None, transcript: TranscriptFormat | None
    ) -> tuple[int, ...]:
        if form is None or transcript is None:
            return ()
        limit = self.limits.tool_prompt
        if len(prompt) > self.max_tool_chars or len(form.system(prompt)) > limit:
            raise PersonaError(PersonaProblem.TOOL_PROMPT_TOO_LONG, f"tool_prompt may have at most {limit} tokens")
        return tuple(transcript.system(prompt))

"""Token limits of the parts of a prompt, and the room that they leave for the conversation history."""

from __future__ import annotations

from dataclasses import dataclass

TEMPLATE_RESERVE_TOKENS = 64  # for the chat template's own tokens around the parts


@dataclass(frozen=True, slots=True)
class PromptLimits:
    """Tokens that the server allows for each part of a prompt. ``*_context`` is the engine's context length."""

    chat_prompt: int = 1800
    tool_prompt: int = 1450
    history: int = 3000
    tool_history: int = 1200
    utterance: int = 350
    chat_context: int = 5160
    chat_reply: int = 150
    tool_context: int = 3000
    tool_reply: int = 64

    def chat_room(self, persona_tokens: int) -> int:
        """Return the tokens that the context leaves beside a persona and the longest reply; may be negative."""
        return self.chat_context - self.chat_reply - persona_tokens - TEMPLATE_RESERVE_TOKENS

    def chat_history(self, persona_tokens: int, utterance_tokens: int = 0) -> int:
        """Return the tokens of history that fit beside a persona, the longest utterance and the longest reply.

        Args:
            persona_tokens: tokens of the persona.
            utterance_tokens: tokens of the next user message, where it is longer than ``utterance``.
        """
        room = self.chat_room(persona_tokens) - max(self.utterance, utterance_tokens)
        return max(0, min(self.history, room))

    def tool_transcript(self, persona_tokens: int) -> int:
        """Return the tokens of transcript that fit in the tool engine's context, in the same way."""
        room = self.tool_context - self.tool_reply - self.utterance - persona_tokens - TEMPLATE_RESERVE_TOKENS
        return max(0, min(self.tool_history, room))

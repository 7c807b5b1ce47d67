"""The marks around a reasoning model's thoughts, and the generation prompt that keeps a model from thinking."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ThoughtTags:
    """The text before and after the thoughts of one family of models."""

    opening: str
    closing: str


# DeepSeek-R1, Qwen, QwQ, GLM, MiniMax · EXAONE Deep · Magistral · Seed-OSS · Kimi
THOUGHT_TAGS = (
    ThoughtTags("<think>", "</think>"),
    ThoughtTags("<thought>", "</thought>"),
    ThoughtTags("[THINK]", "[/THINK]"),
    ThoughtTags("<seed:think>", "</seed:think>"),
    ThoughtTags("◁think▷", "◁/think▷"),
)
# gpt-oss writes channels (the harmony format): thoughts into "analysis", the reply into "final".
HARMONY_OPENING = "<|start|>assistant"
HARMONY_FINAL = "<|channel|>final<|message|>"


def reply_opening(generation_prompt: str, before_past_reply: str | None) -> str:
    """Return the generation prompt with which a model writes its reply at once.

    Past replies stand behind the same text in later prompts, so the text must not leave them inside of thoughts.

    Args:
        generation_prompt: the text after the last user message.
        before_past_reply: the text between a user message and a past reply; None where it is not known.

    Returns:
        The generation prompt, its thoughts opened and closed where it opens them (Qwen3's own form of not thinking),
        or continued to the channel of replies.
    """
    for tags in THOUGHT_TAGS:
        start = generation_prompt.rfind(tags.opening)
        if start >= 0 and tags.closing not in generation_prompt[start:]:
            opened = generation_prompt[: start + len(tags.opening)]
            return f"{opened}\n\n{tags.closing}\n\n"
    if before_past_reply is not None and before_past_reply.startswith(generation_prompt):
        rest = before_past_reply[len(generation_prompt) :]
        if rest.strip():
            return before_past_reply
    if generation_prompt.endswith(HARMONY_OPENING):
        return generation_prompt + HARMONY_FINAL
    return generation_prompt

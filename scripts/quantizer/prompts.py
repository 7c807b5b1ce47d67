"""The beginnings of conversations that the float model goes on with: its calibration text. Needs Django's database."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass

OPENINGS = (
    "Hello! How are you today?",
    "Tell me about your day, from morning to evening.",
    "What is the place like where you live?",
    "I had a long day at work and I am tired.",
    "Can you explain how something you know well is done, step by step?",
    "Tell me a story that I have not heard before.",
    "What would you cook for two friends who come over tonight?",
    "I am not sure what to do about a friend who never calls back.",
    "What do you think about when you cannot sleep?",
    "Which book or song has stayed with you, and why?",
    "If we could travel anywhere tomorrow, where would we go?",
    "Give me three reasons why I should learn to draw.",
    "What makes you laugh?",
    "Describe what you see out of your window.",
    "I think we disagree about this. Convince me.",
    "Good night! Any last words for today?",
)
REQUESTS = (
    "Can you look at my screen?",
    "What do you think about the rain?",
    "Check this out, please.",
    "I like long walks.",
    "Read what it says here.",
    "Do you know a good joke?",
    "See what I have open?",
    "My brother is coming for dinner.",
)


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a chat: ``role`` is system, user or assistant."""

    role: str
    content: str


def chat_prompts(count: int, personas: Sequence[str]) -> list[list[Message]]:
    """Return ``count`` beginnings for the chat engine: each persona prompt with each opening, in turns."""
    system = list(personas) or ["You are a friendly character who talks with people."]
    prompts = []
    for number in range(count):
        persona = system[number % len(system)].replace("{{user}}", "the user")
        prompts.append([Message("system", persona), Message("user", OPENINGS[number % len(OPENINGS)])])
    return prompts


def tool_prompts(count: int, prompts: Sequence[str]) -> list[list[Message]]:
    """Return ``count`` beginnings for the tool engine: tool prompts with their examples as turns, and a request."""
    from inference.prompting.tool_prompt import split_examples

    made = []
    for number in range(count):
        instructions, examples = split_examples(prompts[number % len(prompts)])
        messages = [Message("system", instructions.strip())]
        for example in examples:
            messages += [Message("user", example.user or ""), Message("assistant", example.reply)]
        made.append([*messages, Message("user", REQUESTS[number % len(REQUESTS)])])
    return made


def enabled_prompts() -> tuple[list[str], list[str]]:
    """Return the chat prompts of the enabled personas, and the tool prompts in use.

    A database that does not answer or has no tables yet leaves the built-in tool prompt alone.
    """
    import django
    from django.db import DatabaseError

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "yapserver.settings")
    django.setup()
    from inference.prompting.tool_prompt import DEFAULT_TOOL_PROMPT
    from personas.selectors import load_catalogue

    try:
        personas = list(load_catalogue().personas.values())
    except DatabaseError:
        personas = []
    own = [persona.tool_prompt for persona in personas if persona.tool_prompt]
    return [persona.chat_prompt for persona in personas], list(dict.fromkeys([DEFAULT_TOOL_PROMPT, *own]))


def beginnings(roles: Sequence[str], samples: int) -> list[list[dict[str, str]]]:
    """Return ``samples`` beginnings for the engines that one export serves, shared equally between its roles."""
    personas, tools = enabled_prompts()
    made: list[list[Message]] = []
    if "chat" in roles:
        made += chat_prompts(samples // len(roles) or 1, personas)
    if "tool" in roles:
        made += tool_prompts(samples - len(made) or 1, tools)
    return [[asdict(message) for message in prompt] for prompt in made]

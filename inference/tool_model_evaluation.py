"""Ask a tool engine labelled lines, in the same way as turns do, for ``manage.py evaluate_tool``."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence

from accounts.callers import Caller, Limits, Window
from inference.engines.base import Engine
from inference.phrases.compiled import PhraseStore
from inference.prompting.chat_template import ChatFormat
from inference.prompting.conversation import Conversation
from inference.prompting.history import parse_history_text
from inference.prompting.persona import ResolvedPersona, SessionPersona
from inference.prompting.persona_encoder import PersonaEncoder
from inference.prompting.persona_resolver import PersonaResolver
from inference.prompting.prompt_limits import PromptLimits
from inference.tool_classifier.evaluation import Outcome
from inference.tool_classifier.examples import example_of
from inference.tool_decision import DEFAULT_THRESHOLD, DecisionProgress, ToolPolicy, ToolRequest, decide
from personas.snapshot import Catalogue, PersonaSnapshot
from personas.tool_files import LabelledLine

_FREE = Window(0, 1.0)  # no limit
_CALLER = Caller(None, "evaluate", "evaluate_tool", Limits(messages=_FREE, cancels=_FREE, persona_updates=_FREE))


async def decide_by_model(
    engine: Engine,
    lines: Sequence[LabelledLine],
    *,
    catalogue: Catalogue,
    persona: PersonaSnapshot | None,
    limits: PromptLimits,
    policy: ToolPolicy,
) -> list[Outcome]:
    """Decide every line with a generating model, one after another.

    Args:
        engine: the tool engine, bound to the running loop.
        lines: the labelled lines with their history; at least one.
        catalogue: the tools in force.
        persona: the persona whose tool prompt and tools apply; None: the server's tool prompt and the global tools.
        limits: token limits of the prompts.
        policy: limits of a decision, and the threshold.

    Returns:
        One outcome per line. The time is that of the whole decision, from the text to the complete call.
    """
    encoder = PersonaEncoder(None, ChatFormat(engine.tokenizer, utterance_max_tokens=limits.utterance), limits)
    phrases = PhraseStore(None)
    phrases.install(phrases.compile(catalogue))
    resolved = PersonaResolver(encoder, phrases).resolve(SessionPersona(persona), _CALLER)
    await _decide(engine, encoder, resolved, lines[0], policy)  # the first request computes the tool prompt
    return [await _decide(engine, encoder, resolved, line, policy) for line in lines]


async def _decide(
    engine: Engine, encoder: PersonaEncoder, persona: ResolvedPersona, line: LabelledLine, policy: ToolPolicy
) -> Outcome:
    conversation = Conversation(encoder)
    conversation.switch_persona(persona)
    await conversation.replace(parse_history_text(line.history))
    started = time.perf_counter()
    prompt_ids = conversation.tool_prompt(persona, conversation.encode(line.text, ask_tool=True))
    assert prompt_ids is not None  # the encoder has a transcript
    threshold = DEFAULT_THRESHOLD if policy.threshold is None else policy.threshold
    request = ToolRequest(f"tool-{uuid.uuid4().hex}", prompt_ids, persona.grammar, threshold=threshold)
    decision = await decide(engine, request, policy, DecisionProgress())
    tool = str(decision.calls[0]["name"]) if decision.calls else ""
    return Outcome(example_of(line), tool, decision.score, (time.perf_counter() - started) * 1000)

"""The tool decision of a request: whose tools are asked about, and which engine decides.

tools of the request        tool engine, else chat engine; the classifier where one was trained for these tools
tools of the persona        as on /ws: tool engine or classifier; without either there is no decision
a call that is required     tool engine, else chat engine; the engine only writes the call
"""

from __future__ import annotations

import logging
import uuid
from dataclasses import dataclass, replace

from accounts.callers import Caller
from inference.engines.base import Engine
from inference.openai.errors import context_length_exceeded
from inference.openai.models import Model
from inference.openai.requests import Ask
from inference.prompting.conversation import Conversation
from inference.prompting.persona import PersonaError, ResolvedPersona
from inference.prompting.persona_encoder import PersonaEncoder
from inference.tool_decision import DEFAULT_THRESHOLD, ToolPolicy, ToolRequest
from inference.turn_admission import DeployedEngines
from inference.turn_plan import ToolPlan
from inference.turn_result import EncodedUtterance

logger = logging.getLogger("yap.openai")


def permitted(ask: Ask, model: Model, caller: Caller) -> Ask:
    """Return a request with the tools that the key may bring, or else with those of a persona that says so.

    Args:
        ask: the request.
        model: who answers.
        caller: the key; without the right to its own tool prompt the request's tools are left out.
    """
    tools = ask.tools if caller.own_tool_prompt else None
    wanted = model.persona is not None and model.persona.openai_tool_decision
    persona_tools = tools is None and wanted and not ask.raw and ask.json_schema is None
    unchanged = tools is ask.tools and persona_tools == ask.persona_tools
    return ask if unchanged else replace(ask, tools=tools, persona_tools=persona_tools)


async def with_short_tools(ask: Ask, encoder: PersonaEncoder, *, by_tool_engine: bool) -> Ask:
    """Return a request without tools that are longer than this server allows; the answer is a reply in words.

    Clients such as Open WebUI offer dozens of tools with every message, whether one is wanted or not.

    Args:
        ask: the request; a required call is left as it is, because words would not answer it.
        encoder: encodes the tools' prompt.
        by_tool_engine: whether the tool engine reads the tools' prompt, else the chat engine.
    """
    if ask.tools is None or ask.tools.required:
        return ask
    try:
        await encoder.encode_tool_prompt(ask.tools.prompt, by_tool_engine=by_tool_engine)
    except PersonaError as error:
        logger.info("tools of a request are left out: %s", error)
        return replace(ask, tools=None)
    return ask


@dataclass(frozen=True, slots=True)
class ToolQuestion:
    """The question of one request about the request's own tools.

    Args:
        ask: the request, with tools.
        persona: the persona, with the ids of the tools' prompt for the engine that decides (:attr:`by_chat`).
        conversation: the history before the request.
        utterance: the user's last message.
        engines: the engines of this turn.
        policy: limits of the decision.
        cache_salt: the key's share of the prefix cache; None is the common share.
        affinity: the conversation's key for the replicas of an engine.
    """

    ask: Ask
    persona: ResolvedPersona
    conversation: Conversation
    utterance: EncodedUtterance
    engines: DeployedEngines
    policy: ToolPolicy
    cache_salt: str | None
    affinity: str

    def plan(self, planned: ToolPlan | None) -> ToolPlan | None:
        """Return the decision's part of the turn.

        Args:
            planned: the part as on ``/ws``, where no chat engine decides.

        Raises:
            OpenAIError: a required call whose tools do not fit in the chat engine's context.
        """
        tools = self.ask.tools
        if tools is None or not self.ask.decides:
            return planned
        if not tools.required:
            asked = planned is not None and (planned.classifier is not None or planned.request is not None)
            if asked or self.policy.kind == "classifier":
                return planned
        asked_of = self._prompt(required=tools.required)
        if asked_of is None:
            return planned
        engine, prompt_ids = asked_of
        threshold = self.persona.snapshot.tool_threshold if self.persona.snapshot else None
        if threshold is None:
            threshold = self.policy.threshold
        request = ToolRequest(
            f"tool-{uuid.uuid4().hex}",
            prompt_ids,
            tools.grammar,
            self.cache_salt,
            DEFAULT_THRESHOLD if threshold is None else threshold,
            wanted=tools.required,
            affinity=self.affinity,
        )
        return ToolPlan(engine, request)

    def _prompt(self, *, required: bool) -> tuple[Engine, list[int]] | None:
        """Return the engine that decides and its prompt; None where the question does not fit and may be left out."""
        conversation, engines = self.conversation, self.engines
        if engines.tool is not None:
            ids = conversation.tool_prompt(self.persona, self.utterance)
            assert ids is not None  # the conversation has a transcript for the tool engine
            return engines.tool, ids
        assert engines.chat is not None
        ids = conversation.decision_prompt_of_chat(self.persona.tool_ids, self.utterance.text or "")
        room = conversation.decision_room_of_chat
        if len(ids) > room and not required:
            logger.info("tools of a request are left out: %d tokens with the last message, %d are left", len(ids), room)
            return None
        if len(ids) > room:
            raise context_length_exceeded(f"the tools and the last message have {len(ids)} tokens; {room} are left")
        return engines.chat, ids

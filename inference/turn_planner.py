"""Builds the plan of one turn from the session's persona, history and sampling."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass

from inference.phrases.stops import conversation_labels
from inference.prompting.conversation import Conversation
from inference.prompting.persona import ResolvedPersona
from inference.reply import ReplyPlan
from inference.serving_context import ServingContext
from inference.tool_decision import ToolRequest
from inference.turn_admission import DeployedEngines
from inference.turn_plan import ChatPlan, ChatRequest, ToolPlan, TurnPlan
from inference.turn_result import EncodedUtterance


@dataclass(frozen=True, slots=True)
class TurnPlanner:
    """Plans turns of one session.

    Args:
        context: the process's settings and sampling rules.
        connection: the connection's id; request ids begin with it.
        cache_salt: the key's share of the prefix cache; None is the common share.
    """

    context: ServingContext
    connection: str
    cache_salt: str | None

    def plan(
        self,
        turn: int,
        request_id: str | None,
        text: str | None,
        *,
        engines: DeployedEngines,
        persona: ResolvedPersona,
        conversation: Conversation,
        sampling: Mapping[str, float],
        max_out: int,
    ) -> TurnPlan:
        """Return the plan of one turn.

        Args:
            turn: the turn's number on its connection.
            request_id: echoed in every frame; None where the client gave none.
            text: the user's message; None lets the character speak first.
            engines: the engines of this turn.
            persona: the resolved persona.
            conversation: the history; pending user text is joined with ``text``.
            sampling: the session's overrides of the sampling defaults.
            max_out: output tokens of the reply.
        """
        utterance = conversation.encode(conversation.joined(text), ask_tool=engines.tool is not None)
        tool = chat = None
        if engines.asks_tool:
            prompt_ids = conversation.tool_prompt(persona, utterance)
            request = prompt_ids and ToolRequest(
                f"tool-{uuid.uuid4().hex}", prompt_ids, persona.tool_prompt, self.cache_salt
            )
            tool = ToolPlan(engines.tool, request or None)
        if engines.chat is not None:
            prefix = self.context.policy.turn.check_screen_prefix

            def request_after_yes() -> ChatRequest:
                prefixed = conversation.encode(f"{prefix} {utterance.text or ''}".strip(), ask_tool=False)
                return ChatRequest(
                    EncodedUtterance(utterance.text, prefixed.chat_ids, utterance.tool_ids),
                    conversation.chat_prompt(persona, prefixed),
                )

            chat = ChatPlan(
                engine=engines.chat,
                request=ChatRequest(utterance, conversation.chat_prompt(persona, utterance)),
                request_after_yes=request_after_yes,
                reply=ReplyPlan(
                    request_id=f"chat-{self.connection}-{turn}",
                    sampling=self.context.sampling.merge({**persona.sampling, **sampling}),
                    max_tokens=max_out,
                    automaton=persona.phrases.automaton,
                    logit_bias=persona.phrases.logit_bias,
                    tokens_containing=persona.phrases.spelling,
                    matchers=conversation_labels(persona.snapshot, persona.user_name),
                    cache_salt=self.cache_salt,
                    think_max_tokens=self.context.policy.turn.think_max_tokens,
                ),
                output_style=persona.output_style,
                encode=conversation.encode_reply,
                skipped_in_speech=persona.snapshot.skipped_in_speech if persona.snapshot else frozenset(),
            )
        return TurnPlan(turn, request_id, persona.slug, utterance, tool, chat)

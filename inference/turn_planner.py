"""Builds the plan of one turn from the session's persona, history and sampling."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass

from inference.engines.base import EngineRole
from inference.phrases.stops import conversation_labels
from inference.prompting.conversation import Conversation
from inference.prompting.persona import ResolvedPersona
from inference.prompting.tool_definitions import grammar
from inference.prompting.tool_prompt import prompt_of_arguments
from inference.reply_plan import ReplyPlan
from inference.serving_context import ServingContext
from inference.tool_classification import ClassifierRequest
from inference.tool_classifier.features import MAX_EARLIER_LINES
from inference.tool_decision import DEFAULT_THRESHOLD, ToolRequest
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
        encoded: EncodedUtterance | None = None,
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
            encoded: the user's message, where the caller has encoded it; ``text`` does not count then.
        """
        by_classifier = engines.asks_tool and self._classifier_decides(persona)
        # A server without a tool engine has a decision where the classifier makes one.
        asks_tool = by_classifier or (engines.asks_tool and self.context.engines.deployed(EngineRole.TOOL))
        ask_model = engines.tool is not None and not by_classifier
        utterance = encoded or conversation.encode(conversation.joined(text), ask_tool=ask_model)
        tool = chat = None
        if asks_tool:
            tool = self._tool_plan(engines, persona, conversation, utterance, by_classifier=by_classifier)
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
                    tokens_containing=persona.phrases.tokens_containing,
                    matchers=conversation_labels(persona.snapshot, persona.user_name),
                    cache_salt=self.cache_salt,
                    think_max_tokens=self.context.policy.turn.think_max_tokens,
                    affinity=self.connection,
                ),
                output_style=persona.output_style,
                encode=conversation.encode_reply,
                skipped_in_speech=persona.snapshot.skipped_in_speech if persona.snapshot else frozenset(),
            )
        return TurnPlan(turn, request_id, persona.slug, utterance, tool, chat)

    def _classifier_decides(self, persona: ResolvedPersona) -> bool:
        """Whether the classifier decides on the tools of this persona."""
        kind = self.context.policy.turn.tool.kind
        return kind == "classifier" or (kind == "auto" and self.context.classifier.knows(persona.grammar.names))

    def _tool_plan(
        self,
        engines: DeployedEngines,
        persona: ResolvedPersona,
        conversation: Conversation,
        utterance: EncodedUtterance,
        *,
        by_classifier: bool,
    ) -> ToolPlan:
        threshold = persona.snapshot.tool_threshold if persona.snapshot else None
        if threshold is None:
            threshold = self.context.policy.turn.tool.threshold
        if not by_classifier:
            prompt_ids = conversation.tool_prompt(persona, utterance)
            request = ToolRequest(
                f"tool-{uuid.uuid4().hex}",
                prompt_ids or (),
                persona.grammar,
                self.cache_salt,
                DEFAULT_THRESHOLD if threshold is None else threshold,
                affinity=self.connection,
            )
            return ToolPlan(engines.tool, request if prompt_ids else None)
        text = utterance.text
        if text is None or not self.context.classifier.knows(persona.grammar.names):
            return ToolPlan(None, None)
        tools = {tool.name: tool for tool in persona.grammar.tools}

        def arguments_request(name: str) -> ToolRequest:
            one = grammar([tools[name]], max_calls=1)
            instructions = prompt_of_arguments(name, tools[name].description, tools[name].arguments)
            by_tool_engine = engines.tool is not None
            prompt_ids = conversation.arguments_prompt(instructions, text, by_tool_engine=by_tool_engine)
            return ToolRequest(
                f"tool-{uuid.uuid4().hex}", prompt_ids, one, self.cache_salt, wanted=True, affinity=self.connection
            )

        classifier = ClassifierRequest(
            classifier=self.context.classifier,
            text=text,
            earlier=conversation.recent_lines(MAX_EARLIER_LINES),
            tools={name: tool.has_arguments for name, tool in tools.items()},
            threshold=threshold,
            engine=engines.tool or engines.chat,
            arguments_request=arguments_request,
        )
        return ToolPlan(None, None, classifier)

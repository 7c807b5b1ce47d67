"""One turn, decided before it starts: what the engines are asked, and the server's policy for turns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from inference.engines.base import Engine
from inference.reply_plan import ReplyPlan
from inference.speech.output_style import GuardedStyle, OutputStyle, RawStyle, output_style
from inference.tool_classification import ClassifierRequest
from inference.tool_decision import ToolPolicy, ToolRequest
from inference.turn_result import EncodedUtterance


@dataclass(frozen=True, slots=True)
class TurnPolicy:
    """The server's settings for turns.

    Args:
        concurrent: start the reply beside the tool decision; False: decide first.
        reply_timeout_s: seconds for the whole turn's generation.
        prebuffer_max_chars: characters of reply that are held for the decision; beyond them the decision is no.
        flush_delay_s: coalesce text for this long; 0 sends each piece at once.
        check_screen_prefix: put in front of the user's text after a decision of yes.
        tool: limits of the tool decision.
        think_max_tokens: the limit of one reply's thoughts, where the model thinks.
    """

    concurrent: bool = True
    reply_timeout_s: float = 60.0
    prebuffer_max_chars: int = 1000
    flush_delay_s: float = 0.0
    check_screen_prefix: str = "CHECK SCREEN:"
    tool: ToolPolicy = field(default_factory=ToolPolicy)
    think_max_tokens: int = 512


@dataclass(frozen=True, slots=True)
class ToolPlan:
    """The tool decision's part. Without ``classifier``, and without ``engine`` or ``request``, the decision is no.

    Args:
        engine: the tool engine.
        request: the question to the tool engine.
        classifier: the question to the classifier, which decides in the engine's place.
    """

    engine: Engine | None
    request: ToolRequest | None
    classifier: ClassifierRequest | None = None


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A prompt of the chat engine and the user message in it."""

    utterance: EncodedUtterance
    prompt_ids: list[int]


@dataclass(frozen=True, slots=True)
class ChatPlan:
    """The chat engine's part.

    Args:
        engine: the chat engine.
        request: the prompt of the reply.
        request_after_yes: encodes the prefixed text and returns its prompt; called at most once, after a yes. None:
            the tool calls are the whole answer, and nothing is said after a yes.
        reply: sampling, limits and phrases of the reply.
        output_style: the name of the output style.
        encode: encodes text that was delivered but not generated in whole tokens.
        skipped_in_speech: kinds of text that the style ``speech`` leaves out (``speech.asides``).
    """

    engine: Engine
    request: ChatRequest
    request_after_yes: Callable[[], ChatRequest] | None
    reply: ReplyPlan
    output_style: str
    encode: Callable[[str], list[int]]
    skipped_in_speech: frozenset[str] = frozenset()

    def style(self) -> OutputStyle:
        """Return the output style of one reply.

        Removed marks may join a banned phrase, so the output is guarded once more.
        """
        if self.output_style == "raw":
            return RawStyle()
        style = output_style(self.output_style, self.skipped_in_speech)
        return GuardedStyle(style, self.reply.automaton, self.reply.matchers, self.reply.before)


@dataclass(frozen=True, slots=True)
class TurnPlan:
    """One turn. Without ``tool`` no ``toolcall`` frame is sent; without ``chat`` no reply is generated.

    Args:
        turn: the turn's number on its connection.
        request_id: echoed in every frame; None where the client gave none.
        persona_slug: the stored persona that speaks; empty where there is none.
        utterance: the user's message.
    """

    turn: int
    request_id: str | None
    persona_slug: str
    utterance: EncodedUtterance
    tool: ToolPlan | None
    chat: ChatPlan | None

"""The objects and settings that all sessions of a process share."""

from __future__ import annotations

from dataclasses import dataclass, field

from accounts.callers import Caller
from accounts.token_budget import TokenBudget
from accounts.usage import UsageLedger
from inference.engines.sampling import SamplingRules
from inference.engines.service import EngineService
from inference.kept_sessions import KeptSessions
from inference.metrics import Metrics
from inference.prompting.persona_resolver import PersonaResolver
from inference.protocol.close_codes import CLOSE_NORMAL, CLOSE_POLICY
from inference.protocol.decoder import Decoder
from inference.tool_classifier.service import ToolClassifier
from inference.turn_plan import TurnPolicy

RETRY_IN_S = 5  # default of `retry_in`, in seconds
RECONNECT_IN_S = 1  # `reconnect_in` of `draining`, in seconds: another process answers at once


@dataclass(frozen=True, slots=True)
class SessionPolicy:
    """The server's settings for sessions.

    Args:
        turn: the settings for turns.
        max_out: the limit of a reply in tokens; a key may have a lower one.
        screen_checked_prefix: put in front of ``analysis_text``.
        idle_timeout_s: seconds without activity until a connection is closed.
        close_client_request: close code after ``end``.
        close_idle: close code after the idle timeout.
        close_unauthorized: close code after a revocation.
        log_text: write user texts and replies into the log.
        share_prefixes: share the prefix cache between keys; False isolates each key.
    """

    turn: TurnPolicy
    max_out: int = 150
    screen_checked_prefix: str = "SCREEN CHECKED:"
    idle_timeout_s: float = 150.0
    close_client_request: int = CLOSE_NORMAL
    close_idle: int = 4000
    close_unauthorized: int = CLOSE_POLICY
    log_text: bool = False
    share_prefixes: bool = False

    def cache_salt(self, caller: Caller) -> str | None:
        """Return the salt that separates this key's cached prefixes from other keys'; None shares them."""
        return None if self.share_prefixes else f"{caller.prefix}:{caller.key_id or 0}"


@dataclass(slots=True)
class ServingContext:
    """The parts of a process that sessions share. The composition root makes one.

    Args:
        kept: the records of sessions whose connections have ended.
        classifier: decides whether a tool is wanted, where a head is in force.
        started: the catalogue and the tokenizers are loaded.
        draining: the server stops; no turn begins.
    """

    engines: EngineService
    resolver: PersonaResolver
    decoder: Decoder
    sampling: SamplingRules
    policy: SessionPolicy
    ledger: UsageLedger
    budget: TokenBudget
    metrics: Metrics
    kept: KeptSessions = field(default_factory=KeptSessions)
    classifier: ToolClassifier = field(default_factory=ToolClassifier)
    started: bool = False
    draining: bool = False

    @property
    def ready(self) -> bool:
        """Whether a conversation can begin."""
        return self.started and self.engines.ready and not self.draining

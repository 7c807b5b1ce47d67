"""What all sessions of a process share, and the settings they live by."""

from __future__ import annotations

from dataclasses import dataclass

from accounts.token_budget import TokenBudget
from accounts.usage import UsageLedger
from inference.engines.sampling import SamplingRules
from inference.engines.service import EngineService
from inference.metrics import Metrics
from inference.prompting.persona_resolver import PersonaResolver
from inference.protocol.decoder import Decoder
from inference.turn import TurnPolicy

RETRY_IN_S = 5  # what clients are told where nothing better is known
CLOSE_NORMAL, CLOSE_POLICY, CLOSE_RESTART = 1000, 1008, 1012


@dataclass(frozen=True, slots=True)
class SessionPolicy:
    """The server's settings that a session needs."""

    turn: TurnPolicy
    max_out: int = 150
    screen_checked_prefix: str = "SCREEN CHECKED:"
    idle_timeout: float = 150.0
    close_client_request: int = CLOSE_NORMAL
    close_idle: int = 4000
    close_unauthorized: int = CLOSE_POLICY
    log_text: bool = False


@dataclass(slots=True)
class ServingContext:
    """What all sessions of a process share, put together once by the composition root."""

    engines: EngineService
    resolver: PersonaResolver
    decoder: Decoder
    sampling: SamplingRules
    policy: SessionPolicy
    ledger: UsageLedger
    budget: TokenBudget
    metrics: Metrics
    started: bool = False  # everything is loaded: the catalogue, the tokenizers
    draining: bool = False

    @property
    def ready(self) -> bool:
        """Whether a conversation can begin."""
        return self.started and self.engines.ready and not self.draining

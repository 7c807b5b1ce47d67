"""The server's own Prometheus metrics, in a registry of their own: vLLM fills the default one with its engines'."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from inference.turn_result import TurnResult

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_FRAME_SECONDS = (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 5e-3, 0.05, 0.5)


class Metrics:
    """Counters of one process. Updated once per turn, not per token, but for the frame time."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        self.turns = Counter("yap_turns", "Turns by how they ended", ["ended"], registry=registry)
        self.tools = Counter("yap_tool_decisions", "Tool decisions", ["decision"], registry=registry)
        self.refusals = Counter("yap_refused_messages", "Refused messages by error code", ["code"], registry=registry)
        self.ttft = Histogram(
            "yap_time_to_first_token_seconds", "Start of a turn to its first text", buckets=_SECONDS, registry=registry
        )
        self.tool_seconds = Histogram(
            "yap_tool_decision_seconds", "Start of a turn to its tool decision", buckets=_SECONDS, registry=registry
        )
        self.cancel_seconds = Histogram(
            "yap_cancel_seconds",
            "Cancel to the turn's end, engine requests given back",
            buckets=_SECONDS,
            registry=registry,
        )
        self.frame_seconds = Histogram(
            "yap_frame_send_seconds", "Handing one frame to the ASGI server", buckets=_FRAME_SECONDS, registry=registry
        )
        self.completion_tokens = Counter("yap_completion_tokens", "Tokens of replies", registry=registry)
        self.held = Counter("yap_held_deltas", "Deltas held for a possible banned phrase", registry=registry)
        self.suppressed = Counter("yap_suppressed_phrases", "Banned phrases taken back", registry=registry)

    def register_gauges(self, connections: Callable[[], float], turns_running: Callable[[], float]) -> None:
        """Register gauges that are evaluated at scrape time. Both functions must be safe to call from any thread."""
        Gauge("yap_connections", "Open connections", registry=self.registry).set_function(connections)
        Gauge("yap_turns_running", "Turns running now", registry=self.registry).set_function(turns_running)

    def refused(self, code: str) -> None:
        """A message or a connection was refused."""
        self.refusals.labels(code).inc()

    def turn(self, result: TurnResult, ended: str) -> None:
        """Count an ended turn. ``ended`` is the end reason, the stop reason or the error code."""
        usage = result.usage
        self.turns.labels(ended).inc()
        if result.tool is not None:
            self.tools.labels("yes" if result.tool else "no").inc()
        if usage.tool_ms is not None:
            self.tool_seconds.observe(usage.tool_ms / 1000)
        if usage.ttft_ms is not None:
            self.ttft.observe(usage.ttft_ms / 1000)
        self.completion_tokens.inc(usage.completion_tokens)
        self.held.inc(result.held_deltas)
        self.suppressed.inc(usage.suppressed)

"""Names and defaults of the variables that operators rely on, repeated here on purpose."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from inference.engines.sampling import SAMPLING_KEYS, Sampling
from inference.prompting.prompt_limits import PromptLimits
from inference.protocol.decoder import Decoder
from inference.serving_context import SessionPolicy
from inference.tool_decision import ToolPolicy
from inference.turn_plan import TurnPolicy
from yapserver.env import Environment
from yapserver.runtime import prompt_limits, sampling_rules, session_policy

ROOT = Path(__file__).resolve().parent.parent

# name → default
OPERATORS: dict[str, Any] = {
    "TEXT_API_KEY": None,
    "HF_TOKEN": None,
    "MAX_CONCURRENT_CONNECTIONS": 8,
    "DEPLOY_MODELS": "both",
    "CHAT_MODEL": None,
    "TOOL_MODEL": None,
    "AWQ_CHAT_MODEL": None,
    "AWQ_TOOL_MODEL": None,
    "CONCURRENT_MODEL_CALL": True,
    "QUANTIZATION": "auto",
    "CHAT_QUANTIZATION": "auto",
    "TOOL_QUANTIZATION": "auto",
    "KV_DTYPE": "auto",
    "CHAT_GPU_FRAC": None,
    "TOOL_GPU_FRAC": None,
    "CHAT_MAX_LEN": 5160,
    "CHAT_MAX_OUT": 150,
    "TOOL_MAX_LEN": 3000,
    "TOOL_MAX_OUT": 64,
    "CHAT_PROMPT_MAX_TOKENS": 1800,
    "TOOL_PROMPT_MAX_TOKENS": 1450,
    "HISTORY_MAX_TOKENS": 3000,
    "USER_UTT_MAX_TOKENS": 350,
    "TOOL_HISTORY_TOKENS": 1200,
    "CHAT_TEMPERATURE": 1.0,
    "CHAT_TOP_P": 0.80,
    "CHAT_TOP_K": 40,
    "CHAT_MIN_P": 0.05,
    "CHAT_REPEAT_PENALTY": 1.05,
    "CHAT_PRESENCE_PENALTY": 0.05,
    "CHAT_FREQUENCY_PENALTY": 0.05,
    "CHAT_LOGIT_BIAS_FILE": None,
    "MAX_NUM_BATCHED_TOKENS_CHAT": 512,
    "MAX_NUM_BATCHED_TOKENS_TOOL": 256,
    "GEN_TIMEOUT_S": 60.0,
    "TOOL_TIMEOUT_S": 10.0,
    "TOOL_HARD_TIMEOUT_MS": 300.0,
    "PREBUFFER_MAX_CHARS": 1000,
    "STREAM_FLUSH_MS": 0.0,
    "CHECK_SCREEN_PREFIX": "CHECK SCREEN:",
    "SCREEN_CHECKED_PREFIX": "SCREEN CHECKED:",
    "WS_IDLE_TIMEOUT_S": 150.0,
    "WS_HANDSHAKE_ACQUIRE_TIMEOUT_S": 0.5,
    "WS_MAX_MESSAGES_PER_WINDOW": 20,
    "WS_MESSAGE_WINDOW_SECONDS": 60.0,
    "WS_MAX_CANCELS_PER_WINDOW": 20,
    "WS_CANCEL_WINDOW_SECONDS": 60.0,
    "CHAT_PROMPT_UPDATE_MAX_PER_WINDOW": 4,
    "CHAT_PROMPT_UPDATE_WINDOW_SECONDS": 60.0,
    "WS_CLOSE_UNAUTHORIZED_CODE": 1008,
    "WS_CLOSE_BUSY_CODE": 1013,
    "WS_CLOSE_IDLE_CODE": 4000,
    "WS_CLOSE_CLIENT_REQUEST_CODE": 1000,
    "WS_END_SENTINEL": "__END__",
    "WS_CANCEL_SENTINEL": "__CANCEL__",
    "PERSONALITY_MAX_LEN": 20,
    "DATABASE_URL": None,
    "REDIS_URL": None,
}
RANGES = {
    "CHAT_TEMPERATURE": (0.2, 1.2),
    "CHAT_TOP_P": (0.6, 1.0),
    "CHAT_TOP_K": (10, 60),
    "CHAT_MIN_P": (0.0, 0.20),
    "CHAT_REPEAT_PENALTY": (1.0, 1.3),
    "CHAT_PRESENCE_PENALTY": (0.0, 0.15),
    "CHAT_FREQUENCY_PENALTY": (0.0, 0.15),
}


@pytest.fixture
def env(monkeypatch: pytest.MonkeyPatch) -> Environment:
    for name in Environment.model_fields:
        monkeypatch.delenv(name, raising=False)
    return Environment()


@pytest.mark.parametrize("name", OPERATORS)
def test_the_default_operators_know(env: Environment, name: str) -> None:
    assert getattr(env, name) == OPERATORS[name]
    assert type(getattr(env, name)) is type(OPERATORS[name])


@pytest.mark.parametrize("name", RANGES)
def test_the_ranges_of_the_protocol(env: Environment, name: str) -> None:
    assert (getattr(env, f"{name}_MIN"), getattr(env, f"{name}_MAX")) == RANGES[name]


def test_every_variable_says_what_it_is() -> None:
    for name, field in Environment.model_fields.items():
        assert field.description, name
        assert len(field.description) < 200, name
        assert "|" not in field.description, f"{name}: the README shows it in a table"


@pytest.mark.parametrize(
    ("ending", "unit"),
    [
        ("_S|_SECONDS", "seconds"), ("_MS", "milliseconds"), ("_TOKENS(_CHAT|_TOOL)?", "tokens"),
        ("(CHAT|TOOL)_MAX_(LEN|OUT)", "tokens"), ("_CHARS", "characters"), ("_BYTES", "bytes"), ("_DAYS", "days"),
        ("_MIB", "MiB"), ("_GIB", "GiB"),
    ],
)  # fmt: skip
def test_every_variable_names_its_unit(ending: str, unit: str) -> None:
    for name, field in Environment.model_fields.items():
        if re.search(f"({ending})$", name):
            assert unit in (field.description or "").lower() or unit in (field.description or ""), name


def test_the_runtime_passes_every_setting_on(env: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    assert session_policy(env) == SessionPolicy(turn=TurnPolicy())
    assert prompt_limits(env) == PromptLimits(tool_history=0)  # the demo's tool model
    rules = sampling_rules(env)
    assert rules.defaults == Sampling()
    assert {f"CHAT_{key.upper()}": rules.ranges[key] for key in SAMPLING_KEYS} == RANGES
    assert Decoder(rules) == Decoder(rules, env.PERSONALITY_MAX_LEN, env.WS_END_SENTINEL, env.WS_CANCEL_SENTINEL)
    changed = {
        "CONCURRENT_MODEL_CALL": "0", "GEN_TIMEOUT_S": "1", "TOOL_TIMEOUT_S": "2", "TOOL_HARD_TIMEOUT_MS": "-1",
        "TOOL_MAX_OUT": "3", "PREBUFFER_MAX_CHARS": "4", "STREAM_FLUSH_MS": "5", "CHECK_SCREEN_PREFIX": "a",
        "CHAT_MAX_OUT": "6", "SCREEN_CHECKED_PREFIX": "b", "WS_IDLE_TIMEOUT_S": "7",
        "WS_CLOSE_CLIENT_REQUEST_CODE": "4001", "WS_CLOSE_IDLE_CODE": "4002", "WS_CLOSE_UNAUTHORIZED_CODE": "4003",
        "LOG_TEXT": "1", "PREFIX_SHARING": "all", "CHAT_THINK_MAX_TOKENS": "9",
    }  # fmt: skip
    for name, value in changed.items():
        monkeypatch.setenv(name, value)
    assert session_policy(Environment()) == SessionPolicy(
        turn=TurnPolicy(
            concurrent=False,
            reply_timeout_s=1.0,
            prebuffer_max_chars=4,
            flush_delay_s=0.005,
            check_screen_prefix="a",
            tool=ToolPolicy(max_out=3, timeout_s=2.0, hard_timeout_s=None),
            think_max_tokens=9,
        ),
        max_out=6,
        screen_checked_prefix="b",
        idle_timeout_s=7.0,
        close_client_request=4001,
        close_idle=4002,
        close_unauthorized=4003,
        log_text=True,
        share_prefixes=True,
    )


def test_every_variable_is_used() -> None:
    """A variable that no code reads would be an empty promise."""
    source = "\n".join(
        path.read_text()
        for room in ("accounts", "inference", "personas", "yapserver", "scripts")
        for path in (ROOT / room).rglob("*")
        if path.suffix in (".py", ".sh") and path.name != "env.py"
    )
    words = set(re.findall(r"\w+", source))
    dynamic = {f"{name}{end}" for name in RANGES for end in ("", "_MIN", "_MAX")}  # read by sampling_rules
    for name in Environment.model_fields:
        assert name in dynamic or name in words or re.search(name.partition("_")[2], source), name

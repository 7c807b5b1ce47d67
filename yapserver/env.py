"""The typed environment: the only reader of ``os.environ`` in the project.

Every variable an operator may set is a field here, with its default, its range and one line of meaning. A bad value
stops the process with one line that names the variable, the value and what is allowed.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from yapserver.environment_files import SECRETS, EnvironmentFileError, load

BASE_DIR = Path(__file__).resolve().parent.parent


def _lower(value: Any) -> Any:
    return value.strip().lower() if isinstance(value, str) else value


Quantization = Annotated[Literal["auto", "fp8", "awq", "gptq", "gptq_marlin", "none"], BeforeValidator(_lower)]
Fraction = Annotated[float, Field(gt=0.0, le=0.98)]
Positive = Annotated[int, Field(ge=1)]
NonNegative = Annotated[int, Field(ge=0)]


class Environment(BaseSettings):
    """All settings of one process, read once and frozen.

    Raises pydantic's ``ValidationError``; :func:`read` turns that into the one-line exit an operator sees.
    """

    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", case_sensitive=True, env_ignore_empty=True, allow_inf_nan=False
    )

    # -- access ------------------------------------------------------------------------------------
    TEXT_API_KEY: str | None = Field(None, description="a key that always works, beside those in the database")
    HF_TOKEN: str | None = Field(None, description="Hub access; `HUGGINGFACE_HUB_TOKEN` is mirrored")
    MAX_CONCURRENT_CONNECTIONS: Positive = Field(8, description="global places")

    # -- models ------------------------------------------------------------------------------------
    DEPLOY_MODELS: Annotated[Literal["both", "chat", "tool"], BeforeValidator(_lower)] = Field(
        "both", description="which engines this server runs"
    )
    CHAT_MODEL: str | None = Field(None, description="Hub id or local path; empty is the demo model")
    TOOL_MODEL: str | None = Field(None, description="Hub id or local path; empty is the demo model")
    AWQ_CHAT_MODEL: str | None = Field(None, description="pre-quantized AWQ chat model; wins over `CHAT_MODEL`")
    AWQ_TOOL_MODEL: str | None = Field(None, description="pre-quantized AWQ tool model; wins over `TOOL_MODEL`")
    CONCURRENT_MODEL_CALL: bool = Field(
        True, description="1: chat starts beside the tool decision and is held back; 0: tool first, then chat"
    )
    QUANTIZATION: Quantization = Field("auto", description="for both engines; auto reads the model's own config")
    CHAT_QUANTIZATION: Quantization = Field("auto", description="chat engine only; wins over `QUANTIZATION`")
    TOOL_QUANTIZATION: Quantization = Field("auto", description="tool engine only; wins over `QUANTIZATION`")
    KV_DTYPE: Annotated[Literal["auto", "fp8", "int8"], BeforeValidator(_lower)] = Field(
        "auto", description="type of the KV cache"
    )
    CHAT_GPU_FRAC: Fraction | None = Field(None, description="GPU memory share; 0.70 with both engines, 0.90 alone")
    TOOL_GPU_FRAC: Fraction | None = Field(None, description="GPU memory share; 0.20 with both engines, 0.90 alone")
    CHAT_MAX_LEN: Positive = Field(5160, description="context of the chat engine, tokens")
    CHAT_MAX_OUT: Positive = Field(150, description="longest reply, tokens")
    TOOL_MAX_LEN: Positive = Field(3000, description="context of the tool engine, tokens")
    TOOL_MAX_OUT: Positive = Field(64, description="longest tool call, tokens")
    CHAT_PROMPT_MAX_TOKENS: Positive = Field(1800, description="a longer persona prompt is an error")
    TOOL_PROMPT_MAX_TOKENS: Positive = Field(1450, description="a longer tool prompt is an error")
    HISTORY_MAX_TOKENS: Positive = Field(3000, description="a longer history loses its oldest whole turns")
    USER_UTT_MAX_TOKENS: Positive = Field(350, description="a longer utterance keeps its start")
    TOOL_HISTORY_TOKENS: NonNegative = Field(1200, description="history the tool engine sees")
    MAX_NUM_BATCHED_TOKENS_CHAT: Positive = Field(512, description="prefill chunk of the chat engine")
    MAX_NUM_BATCHED_TOKENS_TOOL: Positive = Field(256, description="prefill chunk of the tool engine")

    # -- sampling ----------------------------------------------------------------------------------
    CHAT_TEMPERATURE: float = Field(1.0, description="default `temperature`")
    CHAT_TEMPERATURE_MIN: float = Field(0.2, description="lowest `temperature` a client may ask for")
    CHAT_TEMPERATURE_MAX: float = Field(1.2, description="highest")
    CHAT_TOP_P: float = Field(0.80, description="default `top_p`")
    CHAT_TOP_P_MIN: float = Field(0.6, description="lowest `top_p`")
    CHAT_TOP_P_MAX: float = Field(1.0, description="highest")
    CHAT_TOP_K: int = Field(40, description="default `top_k`")
    CHAT_TOP_K_MIN: int = Field(10, description="lowest `top_k`")
    CHAT_TOP_K_MAX: int = Field(60, description="highest")
    CHAT_MIN_P: float = Field(0.05, description="default `min_p`")
    CHAT_MIN_P_MIN: float = Field(0.0, description="lowest `min_p`")
    CHAT_MIN_P_MAX: float = Field(0.20, description="highest")
    CHAT_REPEAT_PENALTY: float = Field(1.05, description="default `repeat_penalty`")
    CHAT_REPEAT_PENALTY_MIN: float = Field(1.0, description="lowest `repeat_penalty`")
    CHAT_REPEAT_PENALTY_MAX: float = Field(1.3, description="highest")
    CHAT_PRESENCE_PENALTY: float = Field(0.05, description="default `presence_penalty`")
    CHAT_PRESENCE_PENALTY_MIN: float = Field(0.0, description="lowest `presence_penalty`")
    CHAT_PRESENCE_PENALTY_MAX: float = Field(0.15, description="highest")
    CHAT_FREQUENCY_PENALTY: float = Field(0.05, description="default `frequency_penalty`")
    CHAT_FREQUENCY_PENALTY_MIN: float = Field(0.0, description="lowest `frequency_penalty`")
    CHAT_FREQUENCY_PENALTY_MAX: float = Field(0.15, description="highest")
    CHAT_LOGIT_BIAS_FILE: Path | None = Field(
        None, description="JSON object phrase → bias; replaces the built-in banned list"
    )

    # -- a turn ------------------------------------------------------------------------------------
    GEN_TIMEOUT_S: Annotated[float, Field(gt=0)] = Field(60.0, description="hard limit of one reply")
    TOOL_TIMEOUT_S: Annotated[float, Field(gt=0)] = Field(10.0, description="hard limit of one tool call")
    TOOL_HARD_TIMEOUT_MS: float = Field(
        300.0, description="after this the decision counts as no; negative: wait for `TOOL_TIMEOUT_S`"
    )
    PREBUFFER_MAX_CHARS: Positive = Field(1000, description="chat held back while the tool decides")
    STREAM_FLUSH_MS: Annotated[float, Field(ge=0)] = Field(
        0.0, description="coalesce token frames for this long; 0 sends each at once"
    )
    CHECK_SCREEN_PREFIX: str = Field("CHECK SCREEN:", description="put before the user's text after a yes")
    SCREEN_CHECKED_PREFIX: str = Field("SCREEN CHECKED:", description="put before `analysis_text`")

    # -- the socket --------------------------------------------------------------------------------
    WS_IDLE_TIMEOUT_S: Annotated[float, Field(gt=0)] = Field(150.0, description="idle with no turn running closes 4000")
    WS_HANDSHAKE_ACQUIRE_TIMEOUT_S: Annotated[float, Field(ge=0)] = Field(0.5, description="wait for a free place")
    WS_MAX_MESSAGES_PER_WINDOW: NonNegative = Field(20, description="messages per connection and window; 0: no limit")
    WS_MESSAGE_WINDOW_SECONDS: Annotated[float, Field(ge=0)] = Field(60.0, description="its window; 0: no limit")
    WS_MAX_CANCELS_PER_WINDOW: NonNegative = Field(20, description="cancels per connection and window; 0: no limit")
    WS_CANCEL_WINDOW_SECONDS: Annotated[float, Field(ge=0)] = Field(60.0, description="its window; 0: no limit")
    CHAT_PROMPT_UPDATE_MAX_PER_WINDOW: NonNegative = Field(
        4, description="persona updates per session and window; 0: no limit"
    )
    CHAT_PROMPT_UPDATE_WINDOW_SECONDS: Annotated[float, Field(ge=0)] = Field(60.0, description="its window")
    WS_CLOSE_UNAUTHORIZED_CODE: Annotated[int, Field(ge=1000, le=4999)] = Field(1008, description="close code")
    WS_CLOSE_BUSY_CODE: Annotated[int, Field(ge=1000, le=4999)] = Field(1013, description="close code")
    WS_CLOSE_IDLE_CODE: Annotated[int, Field(ge=1000, le=4999)] = Field(4000, description="close code")
    WS_CLOSE_CLIENT_REQUEST_CODE: Annotated[int, Field(ge=1000, le=4999)] = Field(1000, description="close code")
    WS_END_SENTINEL: str = Field("__END__", description="raw text that ends the connection")
    WS_CANCEL_SENTINEL: str = Field("__CANCEL__", description="raw text that cancels")
    PERSONALITY_MAX_LEN: Positive = Field(20, description="letters in a personality")

    # -- the runtime ---------------------------------------------------------------------------------
    DATABASE_URL: str | None = Field(None, description="`postgres://…`; empty is an SQLite file in `.run/`")
    REDIS_URL: str | None = Field(
        None, description="set: limits, places and control messages are shared by all processes"
    )
    HOST: str = Field("127.0.0.1", description="address the server listens on")
    PORT: Annotated[int, Field(ge=1, le=65535)] = Field(8000, description="port the server listens on")
    SERVER: Annotated[Literal["daphne", "uvicorn"], BeforeValidator(_lower)] = Field(
        "daphne", description="the ASGI server; uvicorn spends less of the processor on a frame"
    )
    DEBUG: bool = Field(False, description="Django's debug pages; never on a reachable host")
    SECRET_KEY: str | None = Field(
        None, description="Django's secret; empty makes one in `.run/`, readable by its owner"
    )
    METRICS_PUBLIC_LOOPBACK: bool = Field(True, description="1: `/metrics` needs no key from this machine itself")
    TRUST_PROXY: bool = Field(
        False, description="1: a TLS proxy in front sets X-Forwarded-Proto; turns on HTTPS redirect and secure cookies"
    )
    CSRF_TRUSTED_ORIGINS: str = Field("", description="comma-separated origins (https://…) of the admin behind a proxy")
    USAGE_KEEP_DAYS: Positive = Field(90, description="days that usage rows are kept")
    DRAIN_TIMEOUT_S: Annotated[float, Field(ge=0)] = Field(
        20.0, description="at SIGTERM, how long running turns may take to end"
    )
    ALLOWED_HOSTS: str = Field("*", description="comma-separated host names the HTTP side answers to")
    LOG_TEXT: bool = Field(False, description="1 writes what was said to the log")
    LOG_FILE: Path | None = Field(None, description="log here, rotated at 100 MB; empty logs to stderr")
    RUN_DIR: Path = Field(BASE_DIR / ".run", description="pid file, log, database, secrets of this checkout")
    MODELS_DIR: Path = Field(BASE_DIR / ".models", description="where the demo model is kept")

    @model_validator(mode="after")
    def _ranges_hold(self) -> Environment:
        for key in (
            "TEMPERATURE",
            "TOP_P",
            "TOP_K",
            "MIN_P",
            "REPEAT_PENALTY",
            "PRESENCE_PENALTY",
            "FREQUENCY_PENALTY",
        ):
            value, low, high = (getattr(self, f"CHAT_{key}{end}") for end in ("", "_MIN", "_MAX"))
            if not low <= value <= high:
                raise ValueError(f"CHAT_{key}={value}: allowed are {low} to {high} (CHAT_{key}_MIN, CHAT_{key}_MAX)")
        return self

    @property
    def chat_deployed(self) -> bool:
        """Whether this server runs a chat engine."""
        return self.DEPLOY_MODELS in ("both", "chat")

    @property
    def tool_deployed(self) -> bool:
        """Whether this server runs a tool engine."""
        return self.DEPLOY_MODELS in ("both", "tool")


def explain(error: ValidationError) -> str:
    """One line for an operator: the variable, its value, and what is allowed. Secrets are not repeated."""
    first = error.errors()[0]
    if not first["loc"]:
        return str(first["msg"]).removeprefix("Value error, ")
    name = str(first["loc"][0])
    shown = "…" if name in SECRETS else repr(first["input"])
    if first["type"].startswith("bool"):
        return f"{name}={shown}: allowed are 1/0, true/false, yes/no"
    return f"{name}={shown}: {first['msg'][0].lower()}{first['msg'][1:]}"


def read() -> Environment:
    """Read `.env`, the files that `NAME_FILE` variables name, and the environment of this process.

    Returns:
        The settings. Exits with status 2 and one line on stderr where one of them is bad.
    """
    try:
        secrets = load(os.environ, BASE_DIR)
    except EnvironmentFileError as error:
        print(f"yap: bad setting: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    # huggingface_hub and the engine processes read the token from the environment, under either name.
    token = os.environ.get("HF_TOKEN") or os.environ.get("HUGGINGFACE_HUB_TOKEN")
    token = token or secrets.get("HF_TOKEN") or secrets.get("HUGGINGFACE_HUB_TOKEN")
    if token:
        for name in ("HF_TOKEN", "HUGGINGFACE_HUB_TOKEN"):
            if not os.environ.get(name):
                os.environ[name] = token
    values: dict[str, Any] = {name: value for name, value in secrets.items() if name in Environment.model_fields}
    try:
        return Environment(**values)
    except ValidationError as error:
        print(f"yap: bad setting: {explain(error)}", file=sys.stderr)
        raise SystemExit(2) from None

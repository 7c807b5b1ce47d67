"""The typed environment: the only reader of ``os.environ`` in the project.

Every variable an operator may set is a field here, with its default, its range and one line of meaning. A bad value
stops the process with one line that names the variable, the value and what is allowed.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from yapserver.engine_settings import check_engine_settings, check_sampling_ranges
from yapserver.env_types import Fraction, Lower, NonNegative, Positive, Probability, Quantization, ToolDecisionKind
from yapserver.environment_errors import explain
from yapserver.environment_files import EnvironmentFileError, load
from yapserver.listen_address import check_text_api_key

BASE_DIR = Path(__file__).resolve().parent.parent


class Environment(BaseSettings):
    """All settings of one process, read once and frozen.

    Raises pydantic's ``ValidationError``; :func:`read` turns that into the one-line exit an operator sees.
    """

    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", case_sensitive=True, env_ignore_empty=True, allow_inf_nan=False
    )

    # -- access ------------------------------------------------------------------------------------
    TEXT_API_KEY: SecretStr | None = Field(
        None,
        description="API key that is valid without a row in the database; `scripts/main.sh` requires it for your own "
        "models and generates one for the demo",
    )
    HF_TOKEN: SecretStr | None = Field(
        None, description="Hugging Face Hub token; `HUGGINGFACE_HUB_TOKEN` is read as well"
    )
    MAX_CONCURRENT_CONNECTIONS: Positive = Field(
        8,
        description="connection slots: WebSocket connections open at once; `scripts/main.sh` requires it for your "
        "own models",
    )

    # -- models ------------------------------------------------------------------------------------
    DEPLOY_MODELS: Annotated[Literal["both", "chat", "tool"], Lower] = Field(
        "both", description="which engines run: `both`, `chat` or `tool`"
    )
    CHAT_MODEL: str | None = Field(None, description="chat model: Hub id or folder; empty: the demo model")
    TOOL_MODEL: str | None = Field(None, description="tool model: Hub id or folder; empty: the demo model")
    AWQ_CHAT_MODEL: str | None = Field(
        None, description="chat model already quantized with AWQ; wins over `CHAT_MODEL`"
    )
    AWQ_TOOL_MODEL: str | None = Field(
        None, description="tool model already quantized with AWQ; wins over `TOOL_MODEL`"
    )
    CHAT_CHAT_TEMPLATE: Path | None = Field(None, description="Jinja file instead of the chat model's chat template")
    TOOL_CHAT_TEMPLATE: Path | None = Field(None, description="Jinja file instead of the tool model's chat template")
    CONCURRENT_MODEL_CALL: bool = Field(
        True,
        description="1: chat and tool decision start together and the chat text is held until the decision; 0: "
        "decision first, then chat",
    )
    QUANTIZATION: Quantization = Field(
        "auto",
        description="both engines: `auto`, `fp8`, `awq`, `gptq`, `gptq_marlin` or `none`; `auto` keeps the stored "
        "format and loads float weights as fp8 where the GPU supports fp8",
    )
    CHAT_QUANTIZATION: Quantization = Field("auto", description="chat engine only; wins over `QUANTIZATION`")
    TOOL_QUANTIZATION: Quantization = Field("auto", description="tool engine only; wins over `QUANTIZATION`")
    KV_DTYPE: Annotated[Literal["auto", "fp8", "int8"], Lower] = Field(
        "auto", description="data type of the KV cache: `auto`, `fp8` or `int8`"
    )
    CHAT_GPU_FRAC: Fraction | None = Field(
        None, description="chat engine's share of GPU memory, 0 to 0.98; empty: 0.70 with both engines, 0.90 alone"
    )
    TOOL_GPU_FRAC: Fraction | None = Field(
        None, description="tool engine's share of GPU memory, 0 to 0.98; empty: 0.20 with both engines, 0.90 alone"
    )
    CHAT_TENSOR_PARALLEL: Positive = Field(1, description="GPUs that share each layer of the chat model")
    TOOL_TENSOR_PARALLEL: Positive = Field(1, description="GPUs that share each layer of the tool model")
    CHAT_PIPELINE_PARALLEL: Positive = Field(1, description="stages into which the chat model's layers are divided")
    TOOL_PIPELINE_PARALLEL: Positive = Field(1, description="stages into which the tool model's layers are divided")
    CHAT_DATA_PARALLEL: Positive = Field(
        1, description="replicas of the chat engine, each with GPUs of its own; a session stays on one replica"
    )
    TOOL_DATA_PARALLEL: Positive = Field(1, description="replicas of the tool engine, in the same way")
    CHAT_GPUS: str | None = Field(None, description="GPUs of the chat engine: `0,1` or `0-3`; empty: the first ones")
    TOOL_GPUS: str | None = Field(None, description="GPUs of the tool engine; empty: the first ones, shared")
    DISTRIBUTED_EXECUTOR: Annotated[Literal["auto", "mp", "ray"], Lower] = Field(
        "auto", description="starts the processes of an engine: `mp` on this machine, `ray` on a Ray cluster, or `auto`"
    )
    RAY_ADDRESS: str | None = Field(None, description="address of the Ray cluster; empty: a local one")
    CHAT_ENGINE_ARGS: str | None = Field(
        None, description="JSON object with further `AsyncEngineArgs` fields of vLLM for the chat engine"
    )
    TOOL_ENGINE_ARGS: str | None = Field(None, description="`CHAT_ENGINE_ARGS` for the tool engine")
    CHAT_MAX_LEN: Positive = Field(5160, description="context length of the chat engine, tokens")
    CHAT_MAX_OUT: Positive = Field(150, description="longest reply, tokens")
    CHAT_THINK_MAX_TOKENS: Positive = Field(
        512, description="tokens of thoughts that a reasoning model may write before a reply; then they are closed"
    )
    TOOL_MAX_LEN: Positive = Field(3000, description="context length of the tool engine, tokens")
    TOOL_MAX_OUT: Positive = Field(64, description="longest tool call, tokens")
    CHAT_PROMPT_MAX_TOKENS: Positive = Field(
        1800, description="longest persona prompt, tokens; a longer one is refused"
    )
    TOOL_PROMPT_MAX_TOKENS: Positive = Field(1450, description="longest tool prompt, tokens; a longer one is refused")
    HISTORY_MAX_TOKENS: Positive = Field(
        3000, description="longest conversation history, tokens; a longer one loses its oldest exchanges"
    )
    USER_UTT_MAX_TOKENS: Positive = Field(
        350, description="longest user utterance, tokens; the end of a longer one is dropped"
    )
    TOOL_HISTORY_TOKENS: NonNegative = Field(1200, description="history that the tool engine reads, tokens")
    MAX_NUM_BATCHED_TOKENS_CHAT: Positive = Field(
        512,
        description="prompt tokens that the chat engine computes in one step; on a CPU, if unset: 128 plus one per "
        "connection slot",
    )
    MAX_NUM_BATCHED_TOKENS_TOOL: Positive = Field(
        256,
        description="prompt tokens that the tool engine computes in one step; on a CPU, if unset: 128 plus one per "
        "connection slot",
    )

    # -- sampling ----------------------------------------------------------------------------------
    CHAT_TEMPERATURE: float = Field(1.0, description="default `temperature`")
    CHAT_TEMPERATURE_MIN: float = Field(0.2, description="lowest `temperature` that a client may ask for")
    CHAT_TEMPERATURE_MAX: float = Field(1.2, description="highest `temperature` that a client may ask for")
    CHAT_TOP_P: float = Field(0.80, description="default `top_p`")
    CHAT_TOP_P_MIN: float = Field(0.6, description="lowest `top_p` that a client may ask for")
    CHAT_TOP_P_MAX: float = Field(1.0, description="highest `top_p` that a client may ask for")
    CHAT_TOP_K: int = Field(40, description="default `top_k`")
    CHAT_TOP_K_MIN: int = Field(10, description="lowest `top_k` that a client may ask for")
    CHAT_TOP_K_MAX: int = Field(60, description="highest `top_k` that a client may ask for")
    CHAT_MIN_P: float = Field(0.05, description="default `min_p`")
    CHAT_MIN_P_MIN: float = Field(0.0, description="lowest `min_p` that a client may ask for")
    CHAT_MIN_P_MAX: float = Field(0.20, description="highest `min_p` that a client may ask for")
    CHAT_REPEAT_PENALTY: float = Field(1.05, description="default `repeat_penalty`")
    CHAT_REPEAT_PENALTY_MIN: float = Field(1.0, description="lowest `repeat_penalty` that a client may ask for")
    CHAT_REPEAT_PENALTY_MAX: float = Field(1.3, description="highest `repeat_penalty` that a client may ask for")
    CHAT_PRESENCE_PENALTY: float = Field(0.05, description="default `presence_penalty`")
    CHAT_PRESENCE_PENALTY_MIN: float = Field(0.0, description="lowest `presence_penalty` that a client may ask for")
    CHAT_PRESENCE_PENALTY_MAX: float = Field(0.15, description="highest `presence_penalty` that a client may ask for")
    CHAT_FREQUENCY_PENALTY: float = Field(0.05, description="default `frequency_penalty`")
    CHAT_FREQUENCY_PENALTY_MIN: float = Field(0.0, description="lowest `frequency_penalty` that a client may ask for")
    CHAT_FREQUENCY_PENALTY_MAX: float = Field(0.15, description="highest `frequency_penalty` that a client may ask for")
    CHAT_LOGIT_BIAS_FILE: Path | None = Field(
        None, description="JSON file with an object phrase → bias; replaces the built-in banned phrases"
    )

    # -- a turn ------------------------------------------------------------------------------------
    GEN_TIMEOUT_S: Annotated[float, Field(gt=0)] = Field(60.0, description="longest duration of one reply, seconds")
    TOOL_TIMEOUT_S: Annotated[float, Field(gt=0)] = Field(
        10.0, description="longest duration of one tool call, seconds"
    )
    TOOL_HARD_TIMEOUT_MS: float = Field(
        300.0,
        description="longest wait for a tool decision, milliseconds; a later decision counts as no; negative: wait "
        "for `TOOL_TIMEOUT_S` (the demo on a CPU sets -1)",
    )
    TOOL_DECISION: ToolDecisionKind = Field(
        "auto",
        description="`classifier`: a trained classifier decides; `model`: the tool model; `auto`: the classifier where "
        "one has been trained for the tools in force, else the model",
    )
    TOOL_THRESHOLD: Probability | None = Field(
        None, description="probability of yes from which a tool is called; empty: the classifier's own, 0.5 for `model`"
    )
    TOOL_ENCODER: str | None = Field(
        None, description="sentence-embedding model (Hub id or folder) whose vectors join the classifier's features"
    )
    PREBUFFER_MAX_CHARS: Positive = Field(
        1000, description="chat text held while the tool decision is pending, characters; more text counts as a no"
    )
    STREAM_FLUSH_MS: Annotated[float, Field(ge=0)] = Field(
        0.0, description="collect token frames for this long before sending, milliseconds; 0: send each at once"
    )
    CHECK_SCREEN_PREFIX: str = Field("CHECK SCREEN:", description="text put before the user's text after a yes")
    SCREEN_CHECKED_PREFIX: str = Field("SCREEN CHECKED:", description="text put before `analysis_text` of a `followup`")

    # -- WebSocket ---------------------------------------------------------------------------------
    WS_IDLE_TIMEOUT_S: Annotated[float, Field(gt=0)] = Field(
        150.0, description="close a connection after this long without a message or a running turn, seconds"
    )
    WS_HANDSHAKE_ACQUIRE_TIMEOUT_S: Annotated[float, Field(ge=0)] = Field(
        0.5, description="longest wait of a new connection for a free slot, seconds"
    )
    SESSION_KEEP_S: Annotated[float, Field(ge=0)] = Field(300.0, description="keep a lost session for, seconds; 0: off")
    SESSION_KEEP_TOKENS: NonNegative = Field(2_000_000, description="limit of all kept sessions, tokens")
    RESUME_GRACE_S: Annotated[float, Field(ge=0, le=300)] = Field(
        8.0, description="let the reply of a lost connection go on for, seconds; 0: abort it at once"
    )
    WS_MAX_MESSAGES_PER_WINDOW: NonNegative = Field(20, description="messages per connection and window; 0: no limit")
    WS_MESSAGE_WINDOW_SECONDS: Annotated[float, Field(ge=0)] = Field(
        60.0, description="length of the rolling message window, seconds; 0: no limit"
    )
    WS_MAX_CANCELS_PER_WINDOW: NonNegative = Field(20, description="cancels per connection and window; 0: no limit")
    WS_CANCEL_WINDOW_SECONDS: Annotated[float, Field(ge=0)] = Field(
        60.0, description="length of the rolling cancel window, seconds; 0: no limit"
    )
    CHAT_PROMPT_UPDATE_MAX_PER_WINDOW: NonNegative = Field(
        4, description="persona updates per connection and window; 0: no limit"
    )
    CHAT_PROMPT_UPDATE_WINDOW_SECONDS: Annotated[float, Field(ge=0)] = Field(
        60.0, description="length of the rolling persona update window, seconds; 0: no limit"
    )
    WS_CLOSE_UNAUTHORIZED_CODE: Annotated[int, Field(ge=1000, le=4999)] = Field(
        1008, description="close code for a refused or revoked key"
    )
    WS_CLOSE_BUSY_CODE: Annotated[int, Field(ge=1000, le=4999)] = Field(
        1013, description="close code for a full or unready server"
    )
    WS_CLOSE_IDLE_CODE: Annotated[int, Field(ge=1000, le=4999)] = Field(
        4000, description="close code for an idle connection"
    )
    WS_CLOSE_CLIENT_REQUEST_CODE: Annotated[int, Field(ge=1000, le=4999)] = Field(
        1000, description="close code after `end`"
    )
    WS_END_SENTINEL: str = Field("__END__", description="raw text frame that ends the connection")
    WS_CANCEL_SENTINEL: str = Field("__CANCEL__", description="raw text frame that cancels the running turn")
    PERSONALITY_MAX_LEN: Positive = Field(20, description="longest `personality`, letters")

    # -- OpenAI surface ----------------------------------------------------------------------------
    OPENAI_API: bool = Field(True, description="1: serve OpenAI's protocols below `/v1`; 0: `/v1` does not exist")
    OPENAI_DEFAULT_MODEL: str = Field(
        "", description="slug of the persona that answers requests for unknown models; empty: such requests get a 404"
    )
    CORS_ORIGINS: str = Field("", description="origins of web pages that may use `/v1`, comma-separated; `*`: all")
    OPENAI_RECORDS: NonNegative = Field(
        1000,
        description="conversations whose token ids are kept for clients that send the whole history each time, in at "
        "most 128 MB together",
    )

    # -- server process ----------------------------------------------------------------------------
    DATABASE_URL: SecretStr | None = Field(
        None, description="`postgres://user:password@host/name`; empty: an SQLite file in `RUN_DIR`"
    )
    REDIS_URL: SecretStr | None = Field(
        None,
        description="`redis://host:6379/0`; several processes share connection slots, token budgets, login attempts, "
        "control messages and the dashboard through Redis",
    )
    HOST: str = Field("127.0.0.1", description="address to listen on")
    PORT: Annotated[int, Field(ge=1, le=65535)] = Field(8000, description="port to listen on")
    SERVER: Annotated[Literal["daphne", "uvicorn"], Lower] = Field(
        "daphne", description="ASGI server: `daphne` or `uvicorn`"
    )
    DEBUG: bool = Field(False, description="1: Django's debug pages; never on a host that others can reach")
    SECRET_KEY: SecretStr | None = Field(
        None, description="Django's secret key; empty: generated once into `RUN_DIR`, readable by its owner only"
    )
    METRICS_PUBLIC_LOOPBACK: bool = Field(True, description="1: `/metrics` needs no key for requests from this machine")
    TRUST_PROXY: bool = Field(
        False,
        description="1: believe `X-Forwarded-Proto` and `X-Forwarded-For` of a TLS proxy; turns on HTTPS redirect, "
        "secure cookies and HSTS",
    )
    CSRF_TRUSTED_ORIGINS: str = Field("", description="comma-separated origins (`https://…`) of the admin at a proxy")
    TALK_PAGE: bool = Field(True, description="1: `/` is a page to talk; 0: `/` answers 404")
    USAGE_KEEP_DAYS: Positive = Field(90, description="days that usage rows are kept")
    DRAIN_TIMEOUT_S: Annotated[float, Field(ge=0)] = Field(
        20.0, description="time for running turns to end when the server stops, seconds"
    )
    MAX_SOCKETS_PER_ADDRESS: NonNegative = Field(
        256, description="HTTP sockets, and WebSockets without a valid key, of one address (IPv6: /64); 0: no limit"
    )
    ALLOWED_HOSTS: str = Field(
        "",
        description="host names that HTTP requests may name besides `localhost` and `127.0.0.1`, separated by commas; "
        "empty: the hosts of `CSRF_TRUSTED_ORIGINS` while `HOST` is a loopback address, else every name",
    )
    PREFIX_SHARING: Annotated[Literal["key", "all"], Lower] = Field(
        "key",
        description="who shares cached prompt prefixes: `key`, each API key has its own; `all`, every key of the "
        "server, for a server with one tenant",
    )
    LOG_TEXT: bool = Field(False, description="1: write the conversation's text to the log")
    LOG_FILE: Path | None = Field(
        None, description="log file, rotated at 100 MB; empty: log to stderr (`scripts/main.sh` sets a file)"
    )
    RUN_DIR: Path = Field(BASE_DIR / ".run", description="folder of the database, secrets, pid file and log")
    MODELS_DIR: Path = Field(BASE_DIR / ".models", description="folder of the demo model")

    @model_validator(mode="after")
    def _settings_fit_together(self) -> Environment:
        check_sampling_ranges(self)
        check_engine_settings(self)
        check_text_api_key(self.text_api_key, self.HOST)
        return self

    @property
    def text_api_key(self) -> str | None:
        """The plain text of ``TEXT_API_KEY``; None where there is none."""
        return self.TEXT_API_KEY.get_secret_value() if self.TEXT_API_KEY else None

    @property
    def database_url(self) -> str | None:
        """The plain text of ``DATABASE_URL``; None where there is none."""
        return self.DATABASE_URL.get_secret_value() if self.DATABASE_URL else None

    @property
    def redis_url(self) -> str | None:
        """The plain text of ``REDIS_URL``; None where there is none."""
        return self.REDIS_URL.get_secret_value() if self.REDIS_URL else None

    @property
    def chat_deployed(self) -> bool:
        """Whether this server runs a chat engine."""
        return self.DEPLOY_MODELS in ("both", "chat")

    @property
    def tool_deployed(self) -> bool:
        """Whether this server runs a tool engine."""
        return self.DEPLOY_MODELS in ("both", "tool")


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

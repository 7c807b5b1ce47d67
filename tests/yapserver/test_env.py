from __future__ import annotations

import pytest
from pydantic import ValidationError

from yapserver.env import Environment, read
from yapserver.environment_errors import explain

SECRETS = ("TEXT_API_KEY", "HF_TOKEN", "SECRET_KEY", "DATABASE_URL", "REDIS_URL")


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*Environment.model_fields, "HUGGINGFACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)


def refusal(capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as caught:
        read()
    assert caught.value.code == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    return told.err.strip()


@pytest.mark.parametrize("value", ["1", "true", "TRUE", "True", "yes", "Yes"])
def test_yes(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("LOG_TEXT", value)
    assert read().LOG_TEXT is True


@pytest.mark.parametrize("value", ["0", "false", "FALSE", "no", "No"])
def test_no(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("CONCURRENT_MODEL_CALL", value)
    assert read().CONCURRENT_MODEL_CALL is False


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("LOG_TEXT", "maybe", ("1/0", "true/false", "yes/no")),
        ("CONCURRENT_MODEL_CALL", "2", ("1/0", "true/false", "yes/no")),
        ("DEPLOY_MODELS", "all", ("both", "chat", "tool")),
        ("QUANTIZATION", "int4", ("auto", "fp8", "awq", "gptq", "gptq_marlin", "none")),
        ("KV_DTYPE", "fp4", ("auto", "fp8", "int8")),
        ("SERVER", "apache", ("daphne", "uvicorn")),
        ("MAX_CONCURRENT_CONNECTIONS", "0", ("greater than or equal to 1",)),
        ("MAX_CONCURRENT_CONNECTIONS", "many", ("integer",)),
        ("CHAT_MAX_LEN", "1.5", ("integer",)),
        ("CHAT_GPU_FRAC", "1.5", ("0.98",)),
        ("CHAT_GPU_FRAC", "0", ("greater than 0",)),
        ("GEN_TIMEOUT_S", "-1", ("greater than 0",)),
        ("GEN_TIMEOUT_S", "nan", ("finite",)),
        ("TOOL_HARD_TIMEOUT_MS", "nan", ("finite",)),
        ("STREAM_FLUSH_MS", "inf", ("finite",)),
        ("WS_IDLE_TIMEOUT_S", "inf", ("finite",)),
        ("PORT", "70000", ("65535",)),
        ("WS_CLOSE_BUSY_CODE", "99", ("1000",)),
        ("WS_MAX_MESSAGES_PER_WINDOW", "-1", ("greater than or equal to 0",)),
        ("CHAT_TEMPERATURE", "1.3", ("0.2 to 1.2", "CHAT_TEMPERATURE_MAX")),
        ("CHAT_TEMPERATURE", "nan", ("finite",)),
        ("CHAT_TOP_K", "5", ("10 to 60",)),
    ],
)
def test_a_bad_value_is_one_line_that_says_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str, allowed: tuple[str, ...]
) -> None:
    monkeypatch.setenv(name, value)
    line = refusal(capsys)
    assert line.startswith("yap: bad setting: ")
    assert name in line
    assert value in line
    for word in allowed:
        assert word in line


def test_a_range_may_be_moved(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("CHAT_TEMPERATURE_MAX", "2.0")
    monkeypatch.setenv("CHAT_TEMPERATURE", "1.9")
    assert read().CHAT_TEMPERATURE == 1.9
    monkeypatch.setenv("CHAT_TEMPERATURE_MIN", "1.95")
    assert "CHAT_TEMPERATURE=1.9" in refusal(capsys)


@pytest.mark.parametrize("name", SECRETS)
def test_no_secret_is_repeated(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str) -> None:
    monkeypatch.setenv(name, "hunter2")
    monkeypatch.setenv("PORT", "x")
    assert "hunter2" not in refusal(capsys)


def test_an_empty_variable_is_as_if_it_were_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Environment.model_fields:
        monkeypatch.setenv(name, "")
    assert read() == Environment.model_construct(**Environment().model_dump())


def test_choices_in_any_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEPLOY_MODELS", " Chat ")
    monkeypatch.setenv("QUANTIZATION", "FP8")
    env = read()
    assert (env.DEPLOY_MODELS, env.QUANTIZATION) == ("chat", "fp8")
    assert (env.chat_deployed, env.tool_deployed) == (True, False)


@pytest.mark.parametrize(
    ("given", "other"), [("HF_TOKEN", "HUGGINGFACE_HUB_TOKEN"), ("HUGGINGFACE_HUB_TOKEN", "HF_TOKEN")]
)
def test_the_hub_token_is_mirrored(monkeypatch: pytest.MonkeyPatch, given: str, other: str) -> None:
    import os

    monkeypatch.setenv(other, "")  # put back by monkeypatch
    monkeypatch.setenv(given, "hf_x")
    token = read().HF_TOKEN
    assert token is not None
    assert token.get_secret_value() == "hf_x"
    assert os.environ[other] == "hf_x"


def test_settings_are_frozen() -> None:
    env = read()
    with pytest.raises(ValueError, match="frozen"):
        setattr(env, "PORT", 1)  # noqa: B010 - checkers know it too


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "yap.example"])
def test_a_short_key_is_refused_where_others_reach_the_server(host: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Environment(TEXT_API_KEY="fifteen-letters", HOST=host)
    line = explain(refused.value)
    assert line.startswith("TEXT_API_KEY has 15 characters")
    assert "fifteen-letters" not in line
    assert host == Environment(TEXT_API_KEY="sixteen-letters!", HOST=host).HOST
    for name in ("127.0.0.1", "127.0.0.2", "::1", "localhost"):
        assert Environment(TEXT_API_KEY="short", HOST=name).text_api_key == "short"


def test_secrets_have_no_text_form() -> None:
    env = Environment(TEXT_API_KEY="hV7tq2mLr9wZc4nBd8fK", HF_TOKEN="hf_Zq3x9", SECRET_KEY="dj-Zq3x9")
    for text in (repr(env), str(env), f"{env.TEXT_API_KEY}{env.HF_TOKEN}{env.SECRET_KEY}"):
        assert not any(secret in text for secret in ("hV7tq2mLr9wZc4nBd8fK", "hf_Zq3x9", "dj-Zq3x9"))

"""`.env` and `NAME_FILE`: what is read, what wins, and that a refusal is one line without a value."""

from __future__ import annotations

import io
import os
from pathlib import Path

import dotenv
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from yapserver import environment_files
from yapserver.env import Environment, read
from yapserver.environment_files import EnvironmentFileError, load, missing_from, parse, read_secrets

EXAMPLE = """
# a comment
HOST=0.0.0.0
export PORT=8001   # another comment
TEXT_API_KEY='a key # with a mark, $HOME and "quotes"'
CHECK_SCREEN_PREFIX="LOOK:\\t\\"now\\""   # explained
CHAT_MODEL = owner/name
COLOUR=#fff
EMPTY=
URL=postgres://user:pa#ss@host/db
"""


def test_a_file_is_read_as_python_dotenv_reads_it() -> None:
    values = parse(EXAMPLE)
    assert values == {
        "HOST": "0.0.0.0",
        "PORT": "8001",
        "TEXT_API_KEY": 'a key # with a mark, $HOME and "quotes"',
        "CHECK_SCREEN_PREFIX": 'LOOK:\t"now"',
        "CHAT_MODEL": "owner/name",
        "COLOUR": "",
        "EMPTY": "",
        "URL": "postgres://user:pa#ss@host/db",
    }
    theirs = dotenv.dotenv_values(stream=io.StringIO(EXAMPLE), interpolate=False)
    del values["COLOUR"], theirs["COLOUR"]  # python-dotenv keeps a mark that directly follows the equals sign
    assert values == theirs


@given(st.text(st.characters(codec="utf-8", exclude_characters="'\\\r\n\0", exclude_categories=["Cc", "Zl", "Zp"])))
def test_a_single_quoted_value_is_kept_literally(value: str) -> None:
    line = f"NAME='{value}'"
    assert parse(line) == {"NAME": value} == dotenv.dotenv_values(stream=io.StringIO(line), interpolate=False)


@pytest.mark.parametrize("line", ["no equals", "1NAME=x", "A-B=x", "A='open", 'A="open', "A='x' y", "=x", "A=x\0"])
def test_another_line_is_refused_by_its_number(tmp_path: Path, line: str) -> None:
    (tmp_path / ".env").write_text(f"# first\nPORT=1\n{line}\n")
    with pytest.raises(EnvironmentFileError, match=r"\.env: line 3 is not NAME=value$"):
        missing_from({}, tmp_path)


def test_the_environment_wins(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("PORT=1\nHOST=a\nCHAT_MODEL=b\nTEXT_API_KEY=stale\nHF_TOKEN_FILE=/stale\n")
    environ = {"PORT": "2", "CHAT_MODEL": "", "TEXT_API_KEY_FILE": "/fresh", "HF_TOKEN": "fresh"}
    assert missing_from(environ, tmp_path) == {"HOST": "a"}


def test_no_file_is_no_variables(tmp_path: Path) -> None:
    assert missing_from({}, tmp_path) == {}


def test_env_file_names_another(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("PORT=1")
    (tmp_path / "other").write_text("PORT=2")
    assert missing_from({"ENV_FILE": str(tmp_path / "other")}, tmp_path) == {"PORT": "2"}
    assert missing_from({"ENV_FILE": ""}, tmp_path) == {}
    with pytest.raises(EnvironmentFileError, match=r"ENV_FILE=/none/here: no such file$"):
        missing_from({"ENV_FILE": "/none/here"}, tmp_path)


def test_a_file_that_cannot_be_used(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.mkdir()
    with pytest.raises(EnvironmentFileError, match=r"\.env cannot be read: Is a directory"):
        missing_from({}, tmp_path)
    file.rmdir()
    file.write_bytes(b"A=\xff\n")
    with pytest.raises(EnvironmentFileError, match=r"\.env: not UTF-8$"):
        missing_from({}, tmp_path)
    file.write_bytes(b"#" * environment_files.MAX_ENV_FILE_BYTES)
    assert missing_from({}, tmp_path) == {}
    file.write_bytes(b"#" * (environment_files.MAX_ENV_FILE_BYTES + 1))
    with pytest.raises(EnvironmentFileError, match="larger than 262144 bytes"):
        missing_from({}, tmp_path)


@pytest.mark.parametrize("content", ["k3y\n", "k3y", "k3y\r\n"])
def test_a_secret_in_a_file(tmp_path: Path, content: str) -> None:
    file = tmp_path / "key"
    file.write_bytes(content.encode())
    assert read_secrets({"TEXT_API_KEY_FILE": str(file)}) == {"TEXT_API_KEY": "k3y"}
    assert read_secrets({"TEXT_API_KEY_FILE": str(file), "TEXT_API_KEY": "other"}) == {}
    assert read_secrets({"TEXT_API_KEY_FILE": str(file), "TEXT_API_KEY": ""}) == {"TEXT_API_KEY": "k3y"}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file or directory"),
        (b"", "empty"),
        (b"\n", "empty"),
        (b"\xff", "not UTF-8"),
        (b"a\0b", "not a text"),
        (b"x" * (environment_files.MAX_SECRET_BYTES + 1), "larger than 65536 bytes"),
    ],
)
def test_a_secret_file_that_cannot_be_used(tmp_path: Path, content: bytes | None, reason: str) -> None:
    file = tmp_path / "key"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(EnvironmentFileError) as raised:
        read_secrets({"HF_TOKEN_FILE": str(file)})
    assert str(raised.value) == f"HF_TOKEN_FILE={file}: {reason}"


def test_a_secret_file_is_not_copied_into_the_environment(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("k3y\n")
    (tmp_path / ".env").write_text(f"TEXT_API_KEY_FILE={tmp_path / 'key'}\nPORT=9\n")
    environ: dict[str, str] = {}
    assert load(environ, tmp_path) == {"TEXT_API_KEY": "k3y"}
    assert environ == {"TEXT_API_KEY_FILE": str(tmp_path / "key"), "PORT": "9"}


# -- the settings of a process ---------------------------------------------------------------------


@pytest.fixture
def env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in (
        *Environment.model_fields,
        "HUGGINGFACE_HUB_TOKEN",
        *(f"{name}_FILE" for name in environment_files.SECRETS),
    ):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)  # what the settings read from the file is taken back after the test
    file = tmp_path / "settings.env"
    monkeypatch.setenv("ENV_FILE", str(file))
    return file


def test_settings_come_from_the_file(env_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    env_file.write_text("PORT=8123\nMAX_CONCURRENT_CONNECTIONS=3\nTEXT_API_KEY=from-the-file\n")
    monkeypatch.setenv("MAX_CONCURRENT_CONNECTIONS", "5")
    settings = read()
    assert (settings.PORT, settings.MAX_CONCURRENT_CONNECTIONS, settings.text_api_key) == (8123, 5, "from-the-file")


@pytest.mark.parametrize("name", ["TEXT_API_KEY", "SECRET_KEY", "DATABASE_URL", "REDIS_URL"])
def test_every_secret_may_be_a_file(env_file: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "secret").write_text("redis://s3cret\n")
    env_file.write_text(f"{name}_FILE={tmp_path / 'secret'}\n")
    value = getattr(read(), name)
    assert (value.get_secret_value() if isinstance(value, SecretStr) else value) == "redis://s3cret"
    assert name not in os.environ


@pytest.mark.parametrize("name", ["HF_TOKEN", "HUGGINGFACE_HUB_TOKEN"])
def test_the_hub_token_of_a_file_is_in_the_environment(env_file: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "secret").write_text("hf_x")
    env_file.write_text(f"{name}_FILE={tmp_path / 'secret'}\n")
    token = read().HF_TOKEN
    assert token is not None
    assert token.get_secret_value() == "hf_x"
    assert os.environ["HF_TOKEN"] == os.environ["HUGGINGFACE_HUB_TOKEN"] == "hf_x"


def test_a_bad_file_is_one_line(env_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    env_file.write_text("TEXT_API_KEY hunter2\n")
    with pytest.raises(SystemExit) as caught:
        read()
    assert caught.value.code == 2
    assert capsys.readouterr().err == f"yap: bad setting: {env_file}: line 1 is not NAME=value\n"

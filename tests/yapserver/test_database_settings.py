from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.server import MANAGE, clean_environment
from yapserver.database_settings import database_settings

HERE = Path("/somewhere")


def test_every_parameter_of_the_url_reaches_libpq() -> None:
    url = "postgres://yap:p%40ss@db.example.com:6432/ya%70?sslmode=verify-full&sslrootcert=/ca.pem&connect_timeout=7"
    found = database_settings(url, HERE)
    assert (found["USER"], found["PASSWORD"], found["HOST"], found["PORT"], found["NAME"]) == (
        "yap", "p@ss", "db.example.com", 6432, "yap",
    )  # fmt: skip
    options = found["OPTIONS"]
    assert (options["sslmode"], options["sslrootcert"], options["connect_timeout"]) == ("verify-full", "/ca.pem", 7)


def test_sockets_and_several_hosts() -> None:
    assert database_settings("postgres://%2Fvar%2Frun/yap", HERE)["HOST"].lower() == "/var/run"
    options = database_settings("postgres:///yap?host=a,b&port=5432,5433", HERE)["OPTIONS"]
    assert (options["host"], options["port"]) == ("a,b", "5432,5433")


def test_a_server_that_does_not_answer_is_given_up_in_seconds() -> None:
    assert database_settings("postgres://yap@db/yap", HERE)["OPTIONS"]["connect_timeout"] <= 3


def test_without_a_url_a_file() -> None:
    for nothing in (None, ""):
        assert database_settings(nothing, HERE)["NAME"] == HERE / "yap.sqlite3"


@pytest.mark.parametrize(
    "url", ["postgres://u:secret@h:port/db", "postgres://u:secret@a:1,b:2/db", "mysql://u:secret@h/db"]
)
def test_a_url_that_is_not_understood_is_one_line_without_the_password(url: str) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]+$") as refusal:
        database_settings(url, HERE)
    assert "secret" not in str(refusal.value)


def test_sslmode_require_never_connects_in_clear_text(postgres_server: str, tmp_path: Path) -> None:
    """The PostgreSQL of the tests has no TLS: libpq has to refuse."""
    environment = clean_environment(RUN_DIR=str(tmp_path), DATABASE_URL=f"{postgres_server}?sslmode=require")
    done = subprocess.run([*MANAGE, "migrate", "--check"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "does not support SSL" in done.stderr

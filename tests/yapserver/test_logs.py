from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from django.conf import settings
from pydantic import SecretStr

from tests.server import CHECKOUT
from yapserver.logs import CopyTruncateHandler, FileHandler, OneLineAMinute, RedactSecrets, logging_config
from yapserver.redaction import Redactor

KEY = "yap_Zq3.x-9_secret"
redact = Redactor()


@pytest.mark.parametrize(
    "line",
    [
        f'127.0.0.1 "GET /ws?api_key={KEY} HTTP/1.1" 101',
        f"/status?x=1&api_key={KEY}&y=2",
        f"Sec-WebSocket-Protocol: yap.v1, yap.key.{KEY}",
        f"['yap.v1', 'yap.key.{KEY}']",
        f"X-API-Key: {KEY}",
        f"x-api-key:{KEY}",
        f"Authorization: Bearer {KEY}",
        f"authorization: bearer {KEY}, next",
        f"API_KEY={KEY}#top",
        f"[(b'x-api-key', b'{KEY}'), (b'authorization', b'Bearer {KEY}')]",
        f"{{'X-API-Key': '{KEY}'}}",
        f"TEXT_API_KEY={KEY}",
    ],
)
def test_no_key_stays_in_a_line(line: str) -> None:
    clean = redact(line)
    assert KEY not in clean
    assert "secret" not in clean
    assert "…" in clean
    assert redact(clean) == clean


@pytest.mark.parametrize("line", ["GET /healthz 200", "turn key=abcdefgh session=s1", "a bearer of news", ""])
def test_other_lines_stay(line: str) -> None:
    assert redact(line).replace("…", "of") == line


def test_the_rest_of_a_line_stays() -> None:
    assert redact(f"GET /ws?api_key={KEY}&x=1 HTTP/1.1") == "GET /ws?api_key=…&x=1 HTTP/1.1"


def test_a_record_is_cleaned_with_its_arguments() -> None:
    record = logging.LogRecord("a", logging.INFO, "f", 1, "%s %d", (f"/ws?api_key={KEY}", 5), None)
    assert RedactSecrets().filter(record)
    assert record.getMessage() == "/ws?api_key=… 5"


def test_a_traceback_is_cleaned_too() -> None:
    try:
        raise ValueError(f"GET /ws?api_key={KEY}")
    except ValueError as error:
        record = logging.LogRecord("a", logging.ERROR, "f", 1, "failed", (), (ValueError, error, error.__traceback__))
    assert RedactSecrets().filter(record)
    text = logging.Formatter().format(record)
    assert "Traceback" in text
    assert KEY not in text


def test_every_handler_of_the_server_redacts() -> None:
    for handler in settings.LOGGING["handlers"].values():
        assert "keys" in handler["filters"]
    assert settings.LOGGING["filters"]["keys"]["()"] == "yapserver.logs.RedactSecrets"
    for name, logger in settings.LOGGING["loggers"].items():
        assert not logger.get("handlers"), name


def test_the_log_is_rotated_in_place(tmp_path: Path) -> None:
    path = tmp_path / "server.log"
    handler = CopyTruncateHandler(str(path), max_bytes=1000, keep=2)
    log = logging.getLogger("tests.rotated")
    log.setLevel(logging.INFO)
    log.propagate = False
    log.addHandler(handler)
    with path.open("a") as other:  # an engine process writes to the same file
        inode = path.stat().st_ino
        for number in range(100):
            log.info("line %03d %s", number, "x" * 40)
            if number == 50:
                other.write("from the engine\n")
                other.flush()
    log.removeHandler(handler)
    handler.close()
    assert path.stat().st_ino == inode
    assert path.stat().st_size <= 1100
    assert sorted(file.name for file in tmp_path.iterdir()) == ["server.log", "server.log.1", "server.log.2"]
    kept = "".join((tmp_path / name).read_text() for name in ("server.log.2", "server.log.1", "server.log"))
    numbers = [int(line.split()[1]) for line in kept.splitlines() if line.startswith("line")]
    assert numbers == list(range(numbers[0], 100))
    assert "\x00" not in kept


def test_the_servers_log_is_rotated_at_100_mb() -> None:
    handler = CopyTruncateHandler("/dev/null")
    assert handler.maxBytes == 100 * 1024 * 1024
    handler.close()


# -- secrets in every spelling (F10) -----------------------------------------------------------------------------------

OWN = "yap_abcd1234_" + "Q7x" * 14 + "z"
TICKET = "try.eyJ1c2VyIjoxLCJwZXJzb25hIjoiYWRhIn0.1tYabc.Zq3x9Zq3x9Zq3x9Zq3x9"
TEXT_KEY = "hV7/tq+2mLr9=Zc"


def encodings(text: str) -> list[str]:
    everything = "".join(f"%{byte:02x}" for byte in text.encode())
    return [text, quote(text, safe=""), quote_plus(text), everything, everything.upper(), quote(everything)]


@pytest.mark.parametrize("secret", [OWN, TICKET, TEXT_KEY])
@pytest.mark.parametrize(
    "line",
    [
        "Not Found: /nope/{}",
        "/ws?api%5Fkey={} HTTP/1.1",
        "/ws?api%5fkey%3d{}&x=1",
        "'HTTP_X_API_KEY': '{}'",
        "key={}",
        '{{"key":"{}"}}',
        "Invalid HTTP_HOST header: '{}'",
        "{}",
    ],
)
def test_secrets_are_found_by_what_they_are(line: str, secret: str) -> None:
    known = Redactor([TEXT_KEY])
    for spelled in encodings(secret):
        clean = known(line.format(spelled))
        assert spelled not in clean
        assert secret[-6:] not in clean
        assert spelled[-12:] not in clean
        assert "…" in clean
        assert known(clean) == clean


def test_a_key_keeps_the_prefix_by_which_logs_name_it() -> None:
    assert redact(f"Not Found: /nope/{OWN}") == "Not Found: /nope/yap_abcd1234_…"


def test_passwords_of_urls() -> None:
    clean = redact("cannot connect to postgres://yap:s3cret!@db:5432/yap and redis://:pa-ss@cache/0")
    assert clean == "cannot connect to postgres://yap:…@db:5432/yap and redis://:…@cache/0"
    assert redact("http://127.0.0.1:8000/a@b ws://host/ws") == "http://127.0.0.1:8000/a@b ws://host/ws"


def test_ordinary_words_stay() -> None:
    known = Redactor(["short", "hV7tq2mLr9wZc4nBd8fK"])
    for line in ("try. And again, then.", "short story", "yap_abcd1234", "entry.point try.it", "turn key=abcd1234 s=1"):
        assert known(line) == line


def test_redaction_is_fast_on_hostile_lines() -> None:
    known = Redactor([TEXT_KEY, OWN])
    began = time.perf_counter()
    for line in ("%25" * 30_000, "yap_" * 20_000, "try." * 20_000, "a://" * 20_000, "bearer " * 10_000, "%79" * 30_000):
        known(line)
    assert time.perf_counter() - began < 2.0


def test_a_record_of_the_server_has_no_configured_secret() -> None:
    record = logging.LogRecord("a", logging.INFO, "f", 1, "guess %s", (TEXT_KEY,), None)
    assert RedactSecrets([SecretStr(TEXT_KEY)]).filter(record)
    assert record.getMessage() == "guess …"
    assert TEXT_KEY not in repr(logging_config(None, [SecretStr(TEXT_KEY)]))


# -- files -------------------------------------------------------------------------------------------------------------


def test_the_log_and_its_copies_are_their_owners_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        handler = CopyTruncateHandler(str(tmp_path / "server.log"), max_bytes=100, keep=2)
        for number in range(20):
            handler.emit(logging.LogRecord("a", logging.INFO, "f", 1, f"line {number} {'x' * 40}", (), None))
        handler.close()
    finally:
        os.umask(before)
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["server.log", "server.log.1", "server.log.2"]
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}


def test_the_caller_does_not_wait_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = threading.Event()
    monkeypatch.setattr(CopyTruncateHandler, "shouldRollover", lambda self, record: not held.wait(10))
    handler = FileHandler(str(tmp_path / "server.log"))
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    began = time.perf_counter()
    for number in range(3):
        handler.handle(logging.LogRecord("a", logging.INFO, "f", 1, "line %d", (number,), None))
    try:
        raise ValueError("broken")
    except ValueError as error:
        broken = (ValueError, error, error.__traceback__)
        handler.handle(logging.LogRecord("a", logging.ERROR, "f", 1, "failed", (), broken))
    assert time.perf_counter() - began < 1
    held.set()
    handler.close()
    text = (tmp_path / "server.log").read_text()
    assert text.startswith("INFO line 0\nINFO line 1\nINFO line 2\nERROR failed\nTraceback")
    assert text.count("ValueError: broken") == 1


def test_bad_host_headers_do_not_flush_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    rare = OneLineAMinute()
    try:
        raise ValueError("a long trace")
    except ValueError as error:
        records = [
            logging.LogRecord("a", logging.ERROR, "f", 1, "Invalid", (), (ValueError, error, None)) for _ in range(5)
        ]
    assert [rare.filter(record) for record in records] == [True, False, False, False, False]
    assert (records[0].exc_info, records[0].levelname) == (None, "WARNING")
    now = time.monotonic()
    monkeypatch.setattr("yapserver.logs.time.monotonic", lambda: now + 61)
    assert rare.filter(records[1])


@pytest.mark.processes
def test_a_library_that_configures_logging_silences_no_log_file(tmp_path: Path) -> None:
    """vLLM's import calls ``dictConfig``, which closes all handlers of the process."""
    code = (
        "import logging, logging.config, sys\n"
        "from yapserver.logs import FileHandler\n"
        "logging.root.addHandler(FileHandler(sys.argv[1]))\n"
        "logging.warning('before')\n"
        "logging.config.dictConfig({'version': 1, 'disable_existing_loggers': False})\n"
        "logging.warning('behind')\n"
    )
    file = tmp_path / "server.log"
    subprocess.run([sys.executable, "-c", code, str(file)], cwd=CHECKOUT, timeout=60, check=True)
    assert file.read_text().splitlines() == ["before", "behind"]

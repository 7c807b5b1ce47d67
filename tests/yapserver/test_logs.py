from __future__ import annotations

import logging
from pathlib import Path

import pytest
from django.conf import settings

from yapserver.logs import CopyTruncateHandler, RedactKeys, redact

KEY = "yap_Zq3.x-9_secret"


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
    assert RedactKeys().filter(record)
    assert record.getMessage() == "/ws?api_key=… 5"


def test_a_traceback_is_cleaned_too() -> None:
    try:
        raise ValueError(f"GET /ws?api_key={KEY}")
    except ValueError as error:
        record = logging.LogRecord("a", logging.ERROR, "f", 1, "failed", (), (ValueError, error, error.__traceback__))
    assert RedactKeys().filter(record)
    text = logging.Formatter().format(record)
    assert "Traceback" in text
    assert KEY not in text


def test_every_handler_of_the_server_redacts() -> None:
    for handler in settings.LOGGING["handlers"].values():
        assert "keys" in handler["filters"]
    assert settings.LOGGING["filters"]["keys"]["()"] == "yapserver.logs.RedactKeys"
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

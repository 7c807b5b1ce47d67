"""F8, F9, F11, F14, F17 as they were reported: against a running server of each kind. The other findings have files of
their own: F2, F4, F6, F7 in test_persona_governs, F3 and F13 in test_http_limits, F5 and F12 in test_costs, F10 in
tests/yapserver/test_logs, F15 in tests/accounts/test_login, F16 in tests/yapserver/test_runtime, F1 in
tests/personas/test_cards."""

from __future__ import annotations

import re
import time

import httpx
import pytest

from accounts.key_guesses import WRONG_KEYS, TooManyWrongKeys, WrongKeyCounter
from accounts.keys import mint
from tests.operator import make_operator
from tests.security.conftest import SERVERS, StartServer
from tests.server import YapServer
from tests.wsclient import client

PROXIED = {"X-Forwarded-For": "5.5.5.5", "X-Forwarded-Proto": "https"}


async def refusal(server: YapServer, key: str, **headers: str) -> dict[str, object]:
    async with client(server.ws_url, additional_headers={"X-API-Key": key, **headers}) as line:
        frame = await line.receive()
        assert await line.closed() == 1008
    return frame


# -- F8 ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("server", SERVERS)
async def test_guesses_of_the_servers_key_are_slow(start_fake: StartServer, server: str) -> None:
    running = start_fake(SERVER=server)
    created = running.manage("createkey", "customer").splitlines()[-1]
    for number in range(WRONG_KEYS):
        assert "retry_in" not in await refusal(running, f"guess-{number}")
    slowed = await refusal(running, "guess")
    assert slowed["error_code"] == "authentication_failed"
    assert 1 <= int(str(slowed["retry_in"])) <= 60
    # Whatever is presented is not looked at: a guess that is right is not told from one that is wrong.
    assert await refusal(running, running.api_key) == slowed | {"retry_in": (await refusal(running, "x"))["retry_in"]}
    assert running.http("/status", key="guess")[0] == 429
    # Keys that cannot be guessed are admitted from the same address all the while.
    assert running.http("/status", key=created)[0] == 200
    async with client(running.ws_url, created) as line:
        assert (await line.ask("ping"))["type"] == "pong"
    assert await refusal(running, mint().full) == {
        "type": "error",
        "error_code": "authentication_failed",
        "message": "no API key, or one that is unknown, revoked or expired",
    }


async def test_processes_of_one_redis_count_guesses_together(start_fake: StartServer, redis_server: str) -> None:
    one, other = (start_fake(SERVER=server, REDIS_URL=redis_server) for server in SERVERS)
    for number in range(WRONG_KEYS):
        assert "retry_in" not in await refusal((one, other)[number % 2], f"guess-{number}")
    for running in (one, other):
        assert "retry_in" in await refusal(running, running.api_key)
        assert running.http("/status")[0] == 429


def test_wrong_keys_are_counted_by_network_and_forgotten() -> None:
    now = [0.0]
    counter = WrongKeyCounter(limit=3, window_s=60.0, clock=lambda: now[0])
    for _ in range(3):
        counter.guessed("a", right=True)
        counter.guessed("a", right=False)
    for right in (True, False):
        with pytest.raises(TooManyWrongKeys) as refused:
            counter.guessed("a", right=right)
        assert refused.value.retry_in == 61
    counter.guessed("b", right=True)
    now[0] = 60.0
    counter.guessed("a", right=False)  # the oldest of three is now at 0 s no longer
    counter.guessed("b", right=False)


def test_a_botnet_does_not_fill_the_memory() -> None:
    from accounts.key_guesses import MAX_NETWORKS

    counter = WrongKeyCounter()
    for number in range(MAX_NETWORKS + 100):
        counter.guessed(str(number), right=False)
    assert len(counter._failures) == MAX_NETWORKS


# -- F9, F14 -----------------------------------------------------------------------------------------------------------


async def test_forwarded_headers_are_not_believed(edge_server: YapServer) -> None:
    before = len(edge_server.log.read_text())
    await refusal(edge_server, mint().full, **PROXIED)
    logged = edge_server.log.read_text()[before:]
    assert "from=127.0.0.1" in logged
    assert "5.5.5.5" not in logged
    async with httpx.AsyncClient(base_url=edge_server.origin) as http:
        assert "Secure" not in (await http.get("/admin/login/", headers=PROXIED)).headers["Set-Cookie"]
        assert (await http.get("/metrics", headers=PROXIED)).status_code == 401


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:8000", "localhost.evil.example"])
def test_a_name_that_is_rebound_to_loopback_is_not_answered(edge_server: YapServer, host: str) -> None:
    with httpx.Client(base_url=edge_server.origin) as http:
        for path in ("/metrics", "/healthz", "/status", "/admin/login/"):
            assert http.get(path, headers={"Host": host}).status_code == 400
        for name in ("127.0.0.1", "localhost", "[::1]"):
            assert http.get("/metrics", headers={"Host": f"{name}:{edge_server.port}"}).status_code == 200


def test_bad_host_headers_leave_one_line_in_the_log(edge_server: YapServer) -> None:
    before = len(edge_server.log.read_text())
    with httpx.Client(base_url=edge_server.origin) as http:
        for _ in range(20):
            http.get("/healthz", headers={"Host": "evil.example"})
    time.sleep(0.3)
    assert edge_server.log.read_text()[before:].count("\n") <= 1


# -- F11 ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("server", SERVERS)
async def test_the_servers_numbers_are_for_keys_with_the_right(start_fake: StartServer, server: str) -> None:
    running = start_fake(SERVER=server, METRICS_PUBLIC_LOOPBACK="0")
    plain = running.manage("createkey", "customer").splitlines()[-1]
    reader = running.manage("createkey", "monitoring", "--may-read-metrics").splitlines()[-1]
    make_operator(running)
    code = (
        "from django.contrib.auth.models import User; from yapserver.trial_tickets import mint; "
        "print(mint(User.objects.get().pk, 'mia'))"
    )
    ticket = running.manage("shell", "-v", "0", "-c", code).splitlines()[-1]
    for key, metrics, status in (
        (plain, 403, 200),
        (reader, 200, 200),
        (ticket, 401, 401),
        (running.api_key, 200, 200),
    ):
        assert running.http("/metrics", key=key)[0] == metrics
        code_, body = running.http("/status", key=key)
        assert code_ == status
        if code_ == 200:
            assert ("turns_running" in body) == (key != plain)
            assert not re.search(r"/(home|work|srv|root|tmp)/", str(body))
    for path in ("/api/v1/usage/", "/api/v1/personas/", "/v1/models"):
        assert running.http(path, key=ticket)[0] == 401
    async with client(running.ws_url, ticket) as line:
        assert (await line.ask("ping"))["type"] == "pong"


# -- F17 ---------------------------------------------------------------------------------------------------------------


def test_files_are_their_owners_alone(edge_server: YapServer) -> None:
    files = [path for path in edge_server.run_dir.iterdir() if path.name.startswith("yap.sqlite3")]
    assert files
    assert {path.stat().st_mode & 0o077 for path in files} == {0}


def test_a_session_lasts_a_working_day(edge_server: YapServer) -> None:
    from tests.operator import NAME, PASSWORD

    make_operator(edge_server)
    with httpx.Client(base_url=edge_server.origin) as http:
        http.get("/admin/login/")
        fields = {"username": NAME, "password": PASSWORD, "csrfmiddlewaretoken": http.cookies["csrftoken"]}
        answer = http.post("/admin/login/", data=fields)
        cookie = next(c for c in answer.headers.get_list("Set-Cookie") if c.startswith("sessionid="))
        assert f"Max-Age={12 * 3600}" in cookie
        assert "HttpOnly" in cookie

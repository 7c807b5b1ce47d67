"""Every client, as a process, in failure cases: no server, no key, no slot, a server that dies or omits fields."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

import pytest

from tests.clients_suite.conftest import Serve
from tests.clients_suite.running import CLIENTS, KEY, Outcome, run_client
from tests.clients_suite.scripted_server import REPLY, Script
from tests.servers import free_port

pytestmark = pytest.mark.processes
SCRIPTS = ("warmup", "live", "conversation", "personality", "screen_analysis", "bench")
QUICK = {"personality": ("--switches", "1"), "bench": ("-n", "1")}


# All clients are dozens of processes: the fast suite runs three, the engine suite all.
some_or_all = pytest.mark.parametrize(
    "names", [("warmup", "conversation", "bench"), pytest.param(SCRIPTS, marks=pytest.mark.engine)], ids=["some", "all"]
)


async def run_each(names: Sequence[str], url: str, key: str = "right-key") -> dict[str, Outcome]:
    """Run several clients against one server at the same time."""
    known = {"SERVER_WS_URL": url, "TEXT_API_KEY": key}
    runs = (run_client(name, *QUICK.get(name, ()), typed="Hello\n", variables=known) for name in names)
    return dict(zip(names, await asyncio.gather(*runs), strict=True))


def test_these_are_all() -> None:
    assert {path.stem for path in CLIENTS.glob("*.py")} == set(SCRIPTS)


@some_or_all
async def test_no_server_names_the_address_and_what_to_do(names: tuple[str, ...]) -> None:
    url = f"ws://127.0.0.1:{free_port()}/ws"
    for name, done in (await run_each(names, url)).items():
        assert done.status == 3, name
        assert url in done.err
        assert "Traceback" not in done.err
        if name != "bench":  # counts, and reports at the end
            assert "no server listens at this address" in done.err
            assert "bash scripts/main.sh" in done.err
        else:
            assert "refusals: 1 × no_server" in done.out


@some_or_all
async def test_a_wrong_key_names_server_code_and_what_to_do(names: tuple[str, ...], serve: Serve) -> None:
    server = await serve(Script())
    for name, done in (await run_each(names, server.url, "wrong")).items():
        assert done.status == 3, name
        assert server.url in done.err
        assert "authentication_failed" in done.err + done.out
        if name != "bench":
            assert "(closed with 1008)" in done.err
            assert "TEXT_API_KEY" in done.err
        assert "wrong" not in done.err.replace("went wrong", "")


@some_or_all
async def test_no_place_is_told_and_tried_again(names: tuple[str, ...], serve: Serve) -> None:
    server = await serve(Script(full_times=-1, retry_in=0.05))
    for name, done in (await run_each(names, server.url)).items():
        assert done.status == 3, name
        assert "server_at_capacity" in done.err + done.out
        if name != "bench":
            assert done.err.count("trying again in") == 2
            assert "8 of 8 connection slots are in use (closed with 1013)" in done.err
            assert "What to do: " in done.err


async def test_a_missing_key_is_told(serve: Serve) -> None:
    done = await run_client("warmup", "--server", (await serve(Script())).url, variables={})
    assert done.status == 3
    assert "authentication_failed" in done.err


async def test_a_place_that_comes_free_is_taken(serve: Serve) -> None:
    server = await serve(Script(full_times=1, retry_in=0.05))
    done = await run_client("warmup", "--server", f"127.0.0.1:{server.port}", "--api-key", "right-key", variables={})
    assert done.status == 0
    assert "8 of 8 connection slots are in use (closed with 1013); trying again in 0.1 s" in done.err


@some_or_all
async def test_death_in_mid_turn_is_a_failure_that_is_told(names: tuple[str, ...], serve: Serve) -> None:
    server = await serve(Script(die_after_tokens=3, die_times=100))
    for name, done in (await run_each(names, server.url)).items():
        assert done.status == 1, name
        assert "Traceback" not in done.err
        assert "broke off" in done.err or "1 × connection_lost" in done.out
        if name == "warmup":
            metrics, final = map(json.loads, done.out.splitlines()[1:])
            assert (metrics["ok"], metrics["chunks"], metrics["total_ms"]) == (False, 3, None)
            assert metrics["error_code"] == "connection_lost"
            assert final == {"type": "final_text", "text": "Hello there, Mara."}


@some_or_all
async def test_a_server_that_leaves_out_every_optional_field_is_fine(names: tuple[str, ...], serve: Serve) -> None:
    server = await serve(Script(bare=True, tool="yes"))
    for name, done in (await run_each(names, server.url)).items():
        assert (done.status, done.err) == (0, ""), name
        if name == "warmup":
            ack, metrics, final = done.out.splitlines()
            assert ack == "ACK ok"
            assert json.loads(metrics)["ok"] is True
            assert json.loads(final)["text"] == REPLY


async def test_a_silent_server_is_not_waited_for_for_ever(serve: Serve) -> None:
    server = await serve(Script(silent=True))
    done = await run_client("warmup", "--server", server.url, variables=KEY | {"RECV_TIMEOUT_SEC": "0.2"})
    assert done.status == 1
    assert f"{server.url} sent nothing for 0.2 s" in done.err


async def test_an_error_in_mid_turn_is_told(serve: Serve) -> None:
    server = await serve(Script(error_mid_turn="engine_unavailable"))
    done = await run_client("warmup", "--server", server.url)
    assert done.status == 1
    assert "the turn failed: engine_unavailable: gone" in done.err
    assert json.loads(done.out.splitlines()[1])["error_code"] == "engine_unavailable"


async def test_the_update_limit_is_waited_out(serve: Serve) -> None:
    server = await serve(Script(updates=1, update_retry_in=0.3))
    done = await run_client("personality", "--switches", "3", "--server", server.url)
    assert done.status == 0
    assert done.err == "chat_prompt_update_rate_limited: waiting 0.3 s as the server asks …\n"
    assert "switch 2 to Robin (female, cheerful): 200 updated, after waiting 1 time for the update limit" in done.out
    assert done.out.count("history intact") == 4


async def test_a_tool_decision_of_no_fails_unless_allowed(serve: Serve) -> None:
    server = await serve(Script(tool="no"))
    refused, allowed = await asyncio.gather(
        run_client("screen_analysis", "--server", server.url),
        run_client("screen_analysis", "--allow-no", "--server", server.url),
    )
    assert refused.status == 1
    assert "--allow-no" in refused.err
    assert (allowed.status, allowed.err) == (0, "")
    assert "the followup was answered" in allowed.out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--server", "ftp://host"), "'ftp://host' is not a server address"),
        (("--timeout", "0"), "is not a number of seconds above 0"),
        (("--temperature", "warm"), "invalid float value: 'warm'"),
        (("--personas", "/nonexistent/file.json"), "cannot read the personas in /nonexistent/file.json"),
    ],
)
async def test_a_wrong_command_line_is_told(arguments: tuple[str, str], told: str) -> None:
    done = await run_client("warmup", *arguments)
    assert done.status == 2
    assert told in done.err
    assert "Traceback" not in done.err


async def test_options_and_variables_reach_the_server(serve: Serve) -> None:
    server = await serve(Script())
    flags = ("--temperature", "0.7", "--top-p", "0.9", "--top-k", "20", "--min-p", "0.1", "--repeat-penalty", "1.1")
    more = ("--presence-penalty", "0.1", "--frequency-penalty", "0.05", "Good", "morning")
    known = KEY | {"SERVER_WS_URL": server.url}
    await run_client("warmup", *flags, *more, variables=known | {"GENDER": "male", "PERSONA_STYLE": "curious"})
    await run_client("warmup", "--style", "dry", variables=known | {"PERSONALITY": "curious"})
    first, second = server.starts()
    assert first["sampling"] == {
        "temperature": 0.7,
        "top_p": 0.9,
        "top_k": 20,
        "min_p": 0.1,
        "repeat_penalty": 1.1,
        "presence_penalty": 0.1,
        "frequency_penalty": 0.05,
    }
    assert (first["user_utterance"], first["gender"], first["personality"]) == ("Good morning", "male", "curious")
    assert first["chat_prompt"].startswith("You are Otto")
    assert (second["gender"], second["personality"]) == ("female", "dry")
    assert not {"chat_prompt", "sampling"} & second.keys()

"""Lost sessions end: after the grace time, with their key, with their process, or at a limit."""

from __future__ import annotations

from inference.resumable_sessions import ResumableSessions
from tests.engine.waiting import until
from tests.fakes.serving import UNLIMITED
from tests.inference import resumable_world
from tests.inference.resumable_world import OTHER, World, resume
from tests.inference.session_lines import let_go, limited

world = resumable_world.world


async def test_nobody_comes_back(world: World) -> None:
    world.resumable = ResumableSessions(0.05)
    got = await world.lost(3)
    assert world.said() == []
    let_go(world.chat, 2)
    await until(lambda: len(world.resumable) == 0)
    assert world.chat.aborted
    assert world.said() == ["hi", got]
    async with world.line() as line:
        assert (await line.ask(resume(len(got))))["error_code"] == "unknown_session"


async def test_nobody_comes_back_for_a_reply_that_ended(world: World) -> None:
    got = await world.lost(3)
    let_go(world.chat)
    await world.chat.wait_idle()
    await world.resumable.aclose()
    assert world.said() == ["hi", got]


async def test_another_key_finds_nothing(world: World) -> None:
    await world.lost(3)
    async with world.line(OTHER) as line:
        assert (await line.ask(resume(0)))["error_code"] == "unknown_session"
    assert world.resumable.running == 1


async def test_a_revoked_keys_replies_are_dropped(world: World) -> None:
    await world.lost(3)
    world.resumable.revoke(OTHER)
    assert world.resumable.running == 1
    world.resumable.revoke(UNLIMITED)
    world.serving.kept.revoke(UNLIMITED)
    await until(lambda: len(world.resumable) == 0)
    assert world.chat.aborted
    assert len(world.serving.kept) == 0


async def test_end_drops_at_once(world: World) -> None:
    async with world.line() as line:
        await line.say({"type": "start", "session_id": "s1", "persona": "anna", "user_utterance": "hi"})
        await line.say({"type": "end"})
    assert len(world.resumable) == len(world.serving.kept) == 0
    assert world.chat.aborted


async def test_a_keys_limit_of_connections_bounds_its_lost_replies(world: World) -> None:
    caller = limited(connections=2)
    for number in range(4):
        await world.lost(1, caller, session_id=f"s{number}")
    await until(lambda: len(world.resumable) == 2)
    assert len(world.chat.aborted) == 2
    await world.lost(1, OTHER, session_id="s0")
    assert len(world.resumable) == 3


async def test_all_lost_replies_are_bounded(world: World) -> None:
    world.resumable = ResumableSessions(100.0, max_lost=2)
    for number in range(4):
        await world.lost(1, session_id=f"s{number}")
    await until(lambda: len(world.resumable) == 2)
    await world.resumable.aclose()


async def test_a_key_displaces_no_lost_replies_of_others(world: World) -> None:
    world.resumable = ResumableSessions(100.0, max_lost=3)
    await world.lost(1, OTHER, session_id="s1")
    for number in range(6):
        await world.lost(1, session_id=f"s{number}")
    await until(lambda: len(world.resumable) == 3)
    assert sorted(caller.prefix for caller in world.resumable.callers()) == sorted([OTHER.prefix, UNLIMITED.prefix])
    await world.resumable.aclose()


async def test_off_aborts_at_once(world: World) -> None:
    world.resumable = ResumableSessions(0)
    got = await world.lost(3)
    assert world.chat.aborted
    assert world.said() == ["hi", got]
    async with world.line() as line:
        assert (await line.ask(resume(len(got))))["error_code"] == "unknown_session"


async def test_the_process_stops(world: World) -> None:
    got = await world.lost(3)
    await world.resumable.aclose()
    assert world.said() == ["hi", got]
    await world.lost(3, session_id="s2")
    assert len(world.resumable) == 0

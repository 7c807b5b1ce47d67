from __future__ import annotations

import asyncio

from inference.outbox import Outbox


class Sent(list[str]):
    async def __call__(self, text: str) -> None:
        self.append(text)


async def test_at_once_where_there_is_no_delay() -> None:
    sent = Sent()
    outbox = Outbox(sent, 0.0)
    for text in ("a", "", "b"):
        await outbox.put(text)
    await outbox.flush()
    assert sent == ["a", "b"]
    assert outbox.sent() == "ab"


async def test_together_when_the_time_has_come_and_at_a_flush() -> None:
    sent = Sent()
    outbox = Outbox(sent, 0.01)
    for text in ("a", "", "b"):
        await outbox.put(text)
    assert sent == []
    assert outbox.sent() == ""
    async with asyncio.timeout(5):
        while not sent:  # noqa: ASYNC110 - it is the passing of time that is tested
            await asyncio.sleep(0.002)
    assert sent == ["ab"]
    await outbox.put("c")
    await outbox.flush()
    await outbox.flush()
    assert sent == ["ab", "c"]
    assert outbox.sent() == "abc"


async def test_closed_it_forgets_what_was_gathered() -> None:
    sent = Sent()
    outbox = Outbox(sent, 0.005)
    await outbox.put("a")
    timer = outbox._timer
    outbox.close()
    outbox.close()
    assert timer is not None
    await asyncio.wait({timer})
    assert timer.cancelled()
    assert (sent, outbox.sent()) == ([], "")


async def test_a_sender_that_waits_keeps_the_order() -> None:
    sent = Sent()
    gate = asyncio.Event()

    async def slow(text: str) -> None:
        sent.append(text)
        await gate.wait()

    outbox = Outbox(slow, 0.001)
    await outbox.put("a")
    async with asyncio.timeout(5):
        while not sent:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    await outbox.put("b")
    flushing = asyncio.create_task(outbox.flush())
    await asyncio.sleep(0)
    gate.set()
    await flushing
    assert sent == ["a", "b"]
    assert outbox.sent() == "ab"

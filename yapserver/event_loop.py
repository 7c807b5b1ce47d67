"""The event loop of ``manage.py serve``: uvloop, which needs less processor time for a wake-up than asyncio's own."""

from __future__ import annotations

import asyncio


def use_uvloop() -> None:
    """Let every loop that this process makes from now on be uvloop's.

    Call this before ``daphne.server`` is imported: the reactor takes its loop then.
    """
    import uvloop

    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())

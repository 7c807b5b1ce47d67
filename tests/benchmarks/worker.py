"""A process that runs scenarios, for the clients or for the raw engine. One JSON command per line in, one answer per
line out.

    python -m tests.benchmarks.worker clients
    python -m tests.benchmarks.worker raw < (the first line holds the engine's arguments)
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import traceback
from functools import partial
from typing import Any

from tests.benchmarks.crowds import MakeLine
from tests.benchmarks.responses_line import ResponsesLine
from tests.benchmarks.scenarios import SCENARIOS
from tests.benchmarks.sse_line import SseLine
from tests.benchmarks.websocket_line import WebSocketLine


def _lines(target: dict[str, Any], raw: Any) -> tuple[MakeLine, MakeLine]:
    """Return a factory of lines to a system, and one for a client without a warm persona."""
    line: MakeLine
    match target["kind"]:
        case "websocket":
            port = target["port"]
            make, keys = partial(WebSocketLine, port, target["sampling"]), (target["key"], "nobody-knows-this-key-1")
            return partial(make, keys[0]), partial(make, keys[1])
        case "sse":
            line = partial(SseLine, target["port"], target["model"], target["sampling"], target.get("key"))
            return line, line
        case "responses":
            line = partial(ResponsesLine, target["port"], target["model"], target["sampling"], target["key"])
            return line, line
        case "raw":
            from tests.benchmarks.raw_line import RawLine

            return partial(RawLine, raw), partial(RawLine, raw)
    raise ValueError(f"no such kind of system: {target['kind']}")


async def _work(answers: Any, raw: Any) -> None:
    if raw is not None:
        await raw.warm()
    _answer(answers, {"ready": True, "pid": os.getpid()})
    while line := await asyncio.to_thread(sys.stdin.readline):
        command = json.loads(line)
        make, stranger = _lines(command["target"], raw)
        given = command["arguments"]
        if command["scenario"] == "storm":
            given["strangers"] = stranger
        try:
            pid = command["target"].get("pid") or os.getpid()
            result = await SCENARIOS[command["scenario"]](make, pid, **given)
            _answer(answers, {"result": result})
        except Exception:
            _answer(answers, {"error": traceback.format_exc()})
        gc.collect()  # now, not during a measurement


def _answer(answers: Any, what: dict[str, Any]) -> None:
    answers.write(json.dumps(what) + "\n")
    answers.flush()


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # output of libraries is not an answer
    raw = None
    if sys.argv[1] == "raw":
        from tests.benchmarks.raw_line import RawEngine

        raw = RawEngine(**json.loads(sys.stdin.readline()))
    else:
        gc.freeze()
        gc.disable()
    try:
        asyncio.run(_work(answers, raw))
    finally:
        if raw is not None:
            raw.llm.shutdown(timeout=15)


if __name__ == "__main__":
    main()

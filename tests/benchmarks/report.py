"""The results as tables, for the terminal and for Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.benchmarks.figures import RAW, Results, percentile
from tests.benchmarks.goals import goals, said_and_cached

_METHOD = (
    "All systems ran the same weights, prompts and sampling, all up at the same time and measured in turns "
    "({rounds} rounds, another one first each time). **raw** is vLLM's `AsyncLLM.generate` called in a bare "
    "script, its text read and dropped: the floor. **yap-daphne** and **yap-uvicorn** are this server on its two "
    "ASGI servers, over WebSockets; **chat-daphne** and **chat-uvicorn** are their `/v1/chat/completions`, "
    "**responses-daphne** and **responses-uvicorn** their Responses WebSocket. "
    "**vllm serve** is vLLM's own OpenAI server, chat completions streamed as server-sent events; all of these have "
    "the very same engine. **vllm defaults**, where it was asked for, is that"
    " server as it comes: told the model, number format, lengths, slots and size of the cache, while executor, "
    "batches and scheduling are vLLM's own choice. The clients of the servers live in one process of their own, "
    "on the same machine. A *frame* is what reaches a client in one piece; *gap* is the time between two of them;"
    " ratios and differences to raw are taken round by round, and their median is told."
)


@dataclass(frozen=True, slots=True)
class Sheet:
    """One table with a title and a sentence that explains it."""

    title: str
    note: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def sheets(results: Results) -> list[Sheet]:
    """Return all tables, most important first; results that were not measured are omitted."""
    made = [
        _goals(results),
        _first_token(results),
        *(_load(results, clients) for clients in results.clients()),
        _cancel(results),
        _crowd(results),
        _conversation(results),
        _connections(results),
    ]
    return [sheet for sheet in made if sheet.rows]


def show(results: Results, console: Console) -> None:
    """Print all tables on the terminal."""
    for sheet in sheets(results):
        table = Table(title=sheet.title, caption=sheet.note, title_justify="left", caption_justify="left")
        for number, column in enumerate(sheet.columns):
            table.add_column(column, justify="right" if number else "left")
        for row in sheet.rows:
            table.add_row(*row)
        console.print(table)


def markdown(results: Results, pictures: Sequence[Path]) -> str:
    """Return a complete report; the files of `pictures` are in the same folder."""
    facts = results.facts
    weights = " (random weights)" if facts["random_weights"] else ""
    packages = ", ".join(f"{name} {number}" for name, number in facts["packages"].items())
    engine = ", ".join(f"{name}={value}" for name, value in facts["engine"].items())
    sampling = ", ".join(f"{name}={value}" for name, value in facts["sampling"].items())
    parts = [
        "# The price of serving",
        f"What a server adds to the engine it serves. Model **{facts['model']}**{weights}, {facts['device']}, "
        f"{facts['cores']} cores usable, {facts['when']}; load average before the run {facts['load_before']:.1f} "
        "(above the number of cores, other programs disturbed what is told here).",
        _METHOD.format(rounds=facts["plan"]["rounds"]),
        *([f"**It ended early:**\n\n```\n{facts['failed'].strip()}\n```"] if "failed" in facts else []),
    ]
    for sheet in sheets(results):
        line = "|".join("---:" if number else "---" for number, _ in enumerate(sheet.columns))
        table = [f"| {' | '.join(sheet.columns)} |", f"|{line}|", *(f"| {' | '.join(row)} |" for row in sheet.rows)]
        parts += [f"## {sheet.title}", sheet.note, "\n".join(table)]
    parts += [f"![{picture.stem.replace('_', ' ')}]({picture.name})" for picture in pictures]
    parts += ["## How it was run", f"Engine: `{engine}`.", f"Sampling: `{sampling}`.", f"Versions: {packages}."]
    return "\n\n".join(parts) + "\n"


# -- the tables ------------------------------------------------------------------------------------


def _goals(results: Results) -> Sheet:
    rows = [
        (goal.system, goal.what, goal.limit, goal.found, "yes" if goal.met else "**no**") for goal in goals(results)
    ]
    note = "The goals are set for two cores with nothing else on them and the tiny model."
    return Sheet("Goals", note, ("system", "what", "goal", "found", "met"), rows)


def _first_token(results: Results) -> Sheet:
    rows = []
    for system in results.systems() if results.of("first_token") else ():
        shares = [results.share("first_token", system, "ttft", share) for share in (0.5, 0.95, 0.99)]
        ratio = results.ratio("first_token", system, "ttft")
        over = results.over_raw("first_token", system, "ttft")
        rows.append((system, *map(_ms, shares), "" if system == RAW else f"{_ms(over)}", _number(ratio)))
    note = "Milliseconds from the request to the first text; the connection is open, the persona cached, the text new."
    columns = ("system", "p50", "p95", "p99", "p50 over raw", "÷ raw")
    return Sheet("First token, one client", note, columns, rows)


def _load(results: Results, clients: int) -> Sheet:
    rows = []
    for system in results.systems():
        ttft, gap = (
            " / ".join(_ms(results.share("load", system, name, share, clients)) for share in (0.5, 0.95, 0.99))
            for name in ("ttft", "gap")
        )
        rows.append(
            (
                system,
                ttft,
                _number(results.ratio("load", system, "ttft", clients)),
                gap,
                _number(results.ratio("load", system, "gap", clients)),
                _number(results.middle("load", system, "tokens_per_second", clients), 0),
                _number(results.ratio("load", system, "tokens_per_second", clients)),
                _number(results.middle("load", system, "cpu_us_per_frame", clients), 1),
                _number(results.over_raw("load", system, "cpu_us_per_frame", clients), 1),
                _number(results.middle("load", system, "tokens_per_frame", clients)),
                _number(
                    max(
                        (cell.numbers["memory_per_client"] for cell in results.of("load", system, clients)),
                        default=math.nan,
                    )
                    / 1024,
                    0,
                ),
            )
        )
    note = (
        "First token and gap: p50 / p95 / p99 in ms. µs: processor time of the serving process per frame, the "
        "engine's own process left out. KiB: memory that one streaming client took, the first time."
    )
    columns = (
        "system", "first token", "÷ raw", "gap", "÷ raw", "tokens/s", "÷ raw", "µs/frame", "over raw",
        "tokens/frame", "KiB",
    )  # fmt: skip
    return Sheet(f"{clients} client{'s' if clients > 1 else ''} talking without a pause", note, columns, rows)


def _cancel(results: Results) -> Sheet:
    rows = []
    for system in results.systems() if results.of("first_token") or results.of("slot") else ():
        done, freed = (
            [results.share(scenario, system, name, share) for share in (0.5, 0.99)]
            for scenario, name in (("first_token", "cancel_done"), ("slot", "freed"))
        )
        steps = results.share("slot", system, "freed_steps", 0.5)
        after = results.share("slot", system, "tokens_after", 0.5), results.share("slot", system, "tokens_after", 1.0)
        late = sum(cell.numbers["late_frames"] for cell in results.of("late_frames", system))
        rows.append(
            (
                system,
                " / ".join(map(_ms, done)),
                " / ".join(map(_ms, freed)),
                _number(steps, 1),
                " / ".join(_number(value, 0) for value in after),
                str(late) if results.of("late_frames", system) else "",
            )
        )
    note = (
        "Cancel → done: ms, p50 / p99, one client (over HTTP the client just hangs up). Cancel → slot: ms until the "
        "next waiting client's first token, every slot of the engine being taken, p50 / p99, and in engine steps: the "
        "one in flight and the newcomer's own are two. Tokens computed for the one who left: p50 / most."
    )
    columns = ("system", "cancel → done", "cancel → slot", "in steps", "tokens after", "late frames")
    return Sheet("Cancelling", note, columns, rows)


def _crowd(results: Results) -> Sheet:
    rows = [
        (
            system,
            *(_ms(results.share("crowd", system, "ttft", share)) for share in (0.5, 0.95, 0.99)),
            _number(results.ratio("crowd", system, "ttft")),
            _ms(results.share("crowd", system, "others_ttft", 0.5)),
        )
        for system in results.systems()
        if results.of("crowd")
    ]
    plan = results.facts["plan"]
    others = min(plan["crowd_others"], max(2, *plan["clients"]) - 1)
    note = (
        f"A client with a warm persona speaks just after {others} others have sent long prompts that nobody has seen: "
        "ms to its first text, and to theirs (p50)."
    )
    columns = ("system", "p50", "p95", "p99", "÷ raw", "the others")
    return Sheet("First token in a crowd", note, columns, rows)


def _conversation(results: Results) -> Sheet:
    rows = []
    for system in results.systems():
        for cell in results.of("conversation", system):
            turns = cell.numbers["rows"]
            whole, worst = said_and_cached(turns)
            trims = sum(later["prompt"] < earlier["prompt"] for earlier, later in pairwise(turns))
            slowest = max(row["ttft"] for row in turns[1:])
            middle = percentile([row["ttft"] for row in turns[1:]], 0.5)
            rows.append(
                (system, str(len(turns)), str(trims), _number(whole, 3), _number(worst, 3), _ms(middle), _ms(slowest))
            )
    note = (
        "The share of what had been said before (persona and record) that came from the prefix cache, over all turns "
        "but the first, and of the worst turn; a trim is where the record overflowed and lost its oldest turns. The "
        "cache works in whole blocks of tokens, so short prompts miss some. First token: ms."
    )
    columns = ("system", "turns", "trims", "cached ÷ said", "worst turn", "first token p50", "slowest")
    return Sheet("A long conversation", note, columns, rows)


def _connections(results: Results) -> Sheet:
    rows = []
    for system in results.systems():
        cells = (results.of(name, system) for name in ("weight", "idle", "storm"))
        for weight, idle, storm in zip(*cells, strict=False):
            answers = ", ".join(f"{count} × {answer}" for answer, count in sorted(storm.numbers["answers"].items()))
            rows.append(
                (
                    system,
                    _number(weight.numbers["memory_per_connection"] / 1024, 1),
                    " → ".join(_ms(percentile(idle.numbers[name], 0.99)) for name in ("quiet_gap", "beside_gap")),
                    " / ".join(_ms(percentile(storm.numbers["answered"], share)) for share in (0.5, 0.99, 1.0)),
                    " → ".join(_ms(percentile(storm.numbers[name], 0.99)) for name in ("quiet_gap", "storm_gap")),
                    answers,
                )
            )
    plan = results.facts["plan"]
    note = (
        f"KiB: an idle connection, of {plan['idle_connections']} to a fresh process. Then the p99 gap (ms) of one "
        f"streaming client, alone → beside them. Storm: {plan['storm_handshakes']} handshakes within a second, a "
        "quarter with a wrong key: ms until each was let in or refused, p50 / p99 / slowest, and the p99 gap of the "
        "streams in flight, before → meanwhile."
    )
    columns = ("system", "KiB", "gap beside idle ones", "storm: answered in", "gap in the storm", "answers")
    return Sheet("Many connections", note, columns, rows)


def _ms(seconds: float) -> str:
    return _number(seconds * 1000)


def _number(value: float, digits: int = 2) -> str:
    return "–" if math.isnan(value) else f"{value:,.{digits}f}"

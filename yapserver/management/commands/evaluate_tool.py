"""``manage.py evaluate_tool``: measure tool decisions against labelled lines."""

from __future__ import annotations

import asyncio
import time
from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from inference.engines.base import EngineRole
from inference.engines.managed_engine import OwnedEngine
from inference.engines.service import build_vllm_engine
from inference.engines.spec import ModelRefused, specs_for
from inference.prompting.persona import PersonaError
from inference.tool_classifier.encoder import SentenceEncoder, load_encoder
from inference.tool_classifier.evaluation import Outcome, calibration, report
from inference.tool_classifier.examples import Example, example_of
from inference.tool_classifier.head import Head, HeadMismatch, read_head
from inference.tool_decision import DEFAULT_THRESHOLD
from inference.tool_model_evaluation import decide_by_model
from personas.selectors import load_catalogue
from personas.snapshot import Catalogue, PersonaSnapshot
from personas.tool_files import BadLines, LabelledLine, read_lines
from personas.tool_snapshot import ToolHeadSnapshot, tools_of
from yapserver.runtime import prompt_limits, session_policy


class Command(BaseCommand):
    """Measure tool decisions."""

    help = (
        "Decide labelled lines (CSV or JSONL) by the kind of decision in force, and print accuracy, recall, false "
        "alarms, a confusion table, times, the calibration and the worst mistakes."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path, help="CSV or JSONL: a text or several turns, and the tool wanted")
        parser.add_argument("--persona", default="", help="slug of the persona whose tools and threshold apply")
        parser.add_argument("--threshold", type=float, help="probability of yes from which a tool is called")
        parser.add_argument("--split", default="", help="use only the lines whose split is this")
        parser.add_argument(
            "--by", choices=("classifier", "model"), help="the kind of decision; default: TOOL_DECISION"
        )
        parser.add_argument("--head", type=Path, help="a head as .npz file, in place of the one in force")
        parser.add_argument("--plot", type=Path, help="write the calibration curve to this PNG file")
        parser.add_argument("--mistakes", type=int, default=15, help="number of mistakes to print")

    def handle(self, *_: Any, **options: Any) -> None:
        lines = _read(options["file"], options["split"])
        if not lines:
            raise CommandError(f"{options['file']}: no lines")
        from_file = options["head"] is not None and not options["persona"]
        catalogue = Catalogue() if from_file else load_catalogue()  # a file needs no database
        persona = catalogue.by_slug(options["persona"]) if options["persona"] else None
        if options["persona"] and persona is None:
            raise CommandError(f"there is no enabled persona {options['persona']!r}")
        threshold = options["threshold"]
        if threshold is None and persona is not None:
            threshold = persona.tool_threshold
        if threshold is None:
            threshold = settings.ENV.TOOL_THRESHOLD
        tools = {tool.name for tool in tools_of(catalogue.tools, persona.slug if persona else None)}
        encoder = load_encoder(settings.ENV.TOOL_ENCODER)
        head, problem = _head(options["head"], catalogue.tool_head, encoder)
        kind = "classifier" if options["head"] else options["by"] or settings.ENV.TOOL_DECISION
        if kind == "auto":
            kind = "classifier" if head is not None and head.knows(tools) else "model"
        if kind == "model" and head is None and catalogue.tool_head is not None:
            self.stderr.write(f"the model decides, the classifier in force is not usable: {problem}")
        if kind == "model":
            outcomes = self._by_model(lines, catalogue, persona, threshold)
        elif head is None:
            raise CommandError(problem)
        else:
            if threshold is None and not options["head"] and catalogue.tool_head is not None:
                threshold = catalogue.tool_head.threshold
            outcomes = self._by_classifier(lines, head, encoder, None if options["head"] else tools, threshold)
        self.stdout.write(report(outcomes, options["mistakes"]))
        if options["plot"]:
            _plot(outcomes, options["plot"])
            self.stdout.write(f"calibration curve: {options['plot']}")

    def _by_classifier(
        self,
        lines: Sequence[LabelledLine],
        head: Head,
        encoder: SentenceEncoder | None,
        tools: set[str] | None,
        threshold: float | None,
    ) -> list[Outcome]:
        limit = head.threshold if threshold is None else threshold
        name = head.encoder or "none"
        self.stdout.write(f"classifier of {', '.join(head.tools)}, threshold {limit:.2f}, encoder {name}\n")
        examples = [example_of(line) for line in lines]
        return [_decide(head, encoder, example, tools, limit) for example in [examples[0], *examples]][1:]

    def _by_model(
        self,
        lines: Sequence[LabelledLine],
        catalogue: Catalogue,
        persona: PersonaSnapshot | None,
        threshold: float | None,
    ) -> list[Outcome]:
        spec = replace(specs_for(settings.ENV, EngineRole.TOOL)[0], alone=True)
        policy = session_policy(settings.ENV).turn.tool
        if threshold is not None:
            policy = replace(policy, threshold=threshold)

        async def ask(engine: OwnedEngine) -> list[Outcome]:
            await engine.bind()
            return await decide_by_model(
                engine,
                lines,
                catalogue=catalogue,
                persona=persona,
                limits=prompt_limits(settings.ENV),
                policy=policy,
            )

        try:
            engine = build_vllm_engine(spec)
        except ModelRefused as refused:
            raise CommandError(str(refused)) from None
        try:
            self.stdout.write(f"model {spec.model}, threshold {policy.threshold or DEFAULT_THRESHOLD:.2f}\n")
            return asyncio.run(ask(engine))
        except PersonaError as error:
            raise CommandError(str(error)) from None
        finally:
            engine.shutdown(10)


def _head(
    path: Path | None, stored: ToolHeadSnapshot | None, encoder: SentenceEncoder | None
) -> tuple[Head | None, str]:
    """The head of a file, else the one in force; without a usable one None and the reason."""
    if path is None and stored is None:
        return None, "no classifier is in force: train one, or name a file with --head"
    try:
        data = path.read_bytes() if path is not None else stored.data if stored is not None else b""
        return read_head(data, encoder.name if encoder else None), ""
    except (OSError, HeadMismatch) as error:
        if path is not None:
            raise CommandError(str(error)) from None
        return None, str(error)


def _decide(
    head: Head, encoder: SentenceEncoder | None, example: Example, tools: set[str] | None, threshold: float | None
) -> Outcome:
    started = time.perf_counter()
    embedding = encoder.encode([example.text])[0] if encoder else None
    choice = head.choose(example.text, example.earlier, tools=tools, threshold=threshold, embedding=embedding)
    return Outcome(example, choice.tool or "", choice.score, (time.perf_counter() - started) * 1000)


def _read(path: Path, split: str) -> list[LabelledLine]:
    try:
        lines = read_lines(path.read_text(encoding="utf-8"), path.name)
    except (OSError, UnicodeDecodeError, BadLines) as error:
        raise CommandError(f"{path}: {error}") from None
    return [line for line in lines if not split or line.split == split]


def _plot(outcomes: Sequence[Outcome], path: Path) -> None:
    try:
        import matplotlib
    except ImportError:
        raise CommandError("--plot needs matplotlib (requirements-dev.txt)") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = calibration(outcomes)
    if not rows:
        raise CommandError("these decisions have no score, so there is no calibration curve")
    figure, axes = pyplot.subplots(figsize=(5, 5))
    axes.plot([0, 1], [0, 1], linestyle="--", color="0.6", label="perfect")
    axes.plot([row[0] for row in rows], [row[1] for row in rows], marker="o", label="measured")
    for score, share, count in rows:
        axes.annotate(str(count), (score, share), textcoords="offset points", xytext=(6, -10), fontsize=8)
    axes.set_xlabel("score")
    axes.set_ylabel("share of lines that want a tool")
    axes.legend()
    figure.savefig(path, dpi=120, bbox_inches="tight")
    pyplot.close(figure)

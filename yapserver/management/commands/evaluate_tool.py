"""``manage.py evaluate_tool``: measure tool decisions against labelled lines."""

from __future__ import annotations

import time
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from inference.tool_classifier.encoder import SentenceEncoder, load_encoder
from inference.tool_classifier.evaluation import Outcome, calibration, report
from inference.tool_classifier.examples import Example, example_of
from inference.tool_classifier.head import Head, HeadMismatch, read_head
from personas.selectors import load_catalogue
from personas.snapshot import Catalogue
from personas.tool_files import BadLines, read_lines
from personas.tool_snapshot import tools_of


class Command(BaseCommand):
    """Measure tool decisions."""

    help = (
        "Decide labelled lines (CSV or JSONL) and print accuracy, recall, false alarms, a confusion table, times, the "
        "calibration and the worst mistakes."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path, help="CSV or JSONL: a text or several turns, and the tool wanted")
        parser.add_argument("--persona", default="", help="slug of the persona whose tools and threshold apply")
        parser.add_argument("--threshold", type=float, help="probability of yes from which a tool is called")
        parser.add_argument("--split", default="", help="use only the lines whose split is this")
        parser.add_argument("--head", type=Path, help="a head as .npz file, in place of the one in force")
        parser.add_argument("--plot", type=Path, help="write the calibration curve to this PNG file")
        parser.add_argument("--mistakes", type=int, default=15, help="number of mistakes to print")

    def handle(self, *_: Any, **options: Any) -> None:
        examples = _read(options["file"], options["split"])
        if not examples:
            raise CommandError(f"{options['file']}: no lines")
        outcomes = self._by_classifier(examples, options)
        self.stdout.write(report(outcomes, options["mistakes"]))
        if options["plot"]:
            _plot(outcomes, options["plot"])
            self.stdout.write(f"calibration curve: {options['plot']}")

    def _by_classifier(self, examples: Sequence[Example], options: dict[str, Any]) -> list[Outcome]:
        from_file = options["head"] is not None and not options["persona"]
        catalogue = Catalogue() if from_file else load_catalogue()  # a file needs no database
        persona = catalogue.by_slug(options["persona"]) if options["persona"] else None
        if options["persona"] and persona is None:
            raise CommandError(f"there is no enabled persona {options['persona']!r}")
        encoder = load_encoder(settings.ENV.TOOL_ENCODER)
        threshold = options["threshold"]
        if threshold is None and persona is not None:
            threshold = persona.tool_threshold
        if threshold is None:
            threshold = settings.ENV.TOOL_THRESHOLD
        try:
            if options["head"]:
                head = read_head(options["head"].read_bytes(), encoder.name if encoder else None)
                tools = None
            elif catalogue.tool_head is not None:
                head = read_head(catalogue.tool_head.data, encoder.name if encoder else None)
                threshold = catalogue.tool_head.threshold if threshold is None else threshold
                tools = {tool.name for tool in tools_of(catalogue.tools, persona.slug if persona else None)}
            else:
                raise CommandError("no classifier is in force: train one, or name a file with --head")
        except (OSError, HeadMismatch) as error:
            raise CommandError(str(error)) from None
        self.stdout.write(
            f"classifier of {', '.join(head.tools)}, threshold "
            f"{head.threshold if threshold is None else threshold:.2f}, encoder {head.encoder or 'none'}\n"
        )
        return [_decide(head, encoder, example, tools, threshold) for example in [examples[0], *examples]][1:]


def _decide(
    head: Head, encoder: SentenceEncoder | None, example: Example, tools: set[str] | None, threshold: float | None
) -> Outcome:
    started = time.perf_counter()
    embedding = encoder.encode([example.text])[0] if encoder else None
    choice = head.choose(example.text, example.earlier, tools=tools, threshold=threshold, embedding=embedding)
    return Outcome(example, choice.tool or "", choice.score, (time.perf_counter() - started) * 1000)


def _read(path: Path, split: str) -> list[Example]:
    try:
        lines = read_lines(path.read_text(encoding="utf-8"), path.name)
    except (OSError, UnicodeDecodeError, BadLines) as error:
        raise CommandError(f"{path}: {error}") from None
    return [example_of(line) for line in lines if not split or line.split == split]


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

"""``manage.py train_tool``: train a head of the tool classifier from the stored examples, or from a file."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError

from inference.tool_classifier.encoder import load_encoder
from inference.tool_classifier.examples import Example, example_of
from inference.tool_classifier.head import Head
from personas import tool_selectors, tool_services
from personas.tool_files import BadLines, read_lines


class Command(BaseCommand):
    """Train the tool classifier."""

    help = (
        "Train the tool classifier from the examples in the database. The result waits in the admin for acceptance, "
        "unless --accept is given. With FILE and --output, train from a file into a file and leave the database alone."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", nargs="?", type=Path, help="CSV or JSONL of labelled lines")
        parser.add_argument("--split", default="", help="use only the lines of FILE whose split is this")
        parser.add_argument("--output", type=Path, help="write the head to this .npz file; needs FILE")
        parser.add_argument("--accept", action="store_true", help="put the result in force at once")
        parser.add_argument("--run", type=int, help="number of a run that the admin has stored")

    def handle(self, *_: Any, **options: Any) -> None:
        if (options["output"] is None) != (options["file"] is None):
            raise CommandError("FILE and --output belong together")
        if options["output"] is not None:
            head = self._train(_from_file(options["file"], options["split"]))
            options["output"].write_bytes(head.to_bytes())
            options["output"].with_suffix(".json").write_text(json.dumps(meta_of(head), indent=1) + "\n")
            self.stdout.write(f"{options['output']}: {describe(head)}")
            return
        try:
            number = options["run"] or tool_services.begin_training().pk
        except ValidationError as error:
            raise CommandError("; ".join(error.messages)) from None
        try:
            head = self._train([example_of(line) for line in tool_selectors.labelled_lines()])
        except CommandError as error:
            tool_services.fail_training(number, str(error))
            raise
        except Exception as error:
            tool_services.fail_training(number, f"{type(error).__name__}: {error}")
            raise
        tool_services.finish_training(number, head.to_bytes(), meta_of(head))
        self.stdout.write(f"version {number}: {describe(head)}")
        if options["accept"]:
            tool_services.accept_head(number)
            self.stdout.write(f"version {number} is in force")

    def _train(self, examples: list[Example]) -> Head:
        from inference.tool_classifier.training import TrainingError, train  # scikit-learn takes a second to import

        try:
            return train(examples, load_encoder(settings.ENV.TOOL_ENCODER))
        except TrainingError as error:
            raise CommandError(str(error)) from None


def _from_file(path: Path, split: str) -> list[Example]:
    try:
        lines = read_lines(path.read_text(encoding="utf-8"), path.name)
    except (OSError, UnicodeDecodeError, BadLines) as error:
        raise CommandError(f"{path}: {error}") from None
    return [example_of(line) for line in lines if not split or line.split == split]


def meta_of(head: Head) -> dict[str, Any]:
    """The part of a head that the admin shows."""
    return {
        "classes": list(head.tools),
        "encoder": head.encoder,
        "feature_version": head.feature_version,
        "threshold": head.threshold,
        "details": dict(head.details),
    }


def describe(head: Head) -> str:
    """One line of figures for a terminal."""
    figures = head.details
    return (
        f"{sum(figures['examples'].values())} examples, {figures['groups']} groups, {figures['seconds']} s; "
        f"cross-validated accuracy {figures['accuracy']:.3f}, recall {figures['recall']:.3f}, "
        f"false alarms {figures['false_alarms']:.3f} at threshold {head.threshold:.2f}"
    )

"""The demo's tool with its examples, and the classifier head that was trained on them.

The files are made by ``manage.py train_tool tests/data/tool_lines.csv --split train --output
personas/demo_tool/head.npz`` and hold the train part of that file.
"""

import hashlib
import json
from pathlib import Path

from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.models import F
from django.utils import timezone

from personas.tool_files import read_lines

DEMO = Path(__file__).resolve().parent.parent / "demo_tool"
NAME = "take_screenshot"


def add(apps: Apps, _schema: BaseDatabaseSchemaEditor) -> None:
    """Add the rows, unless operators have a tool or a head already."""
    tools, examples, heads, versions = (
        apps.get_model("personas", name) for name in ("Tool", "ToolExample", "ToolHead", "CatalogueVersion")
    )
    if tools.objects.exists() or heads.objects.exists():
        return
    tool = tools.objects.create(name=NAME, description="Looks at the user's screen. Call when the user asks to look.")
    lines = read_lines((DEMO / "examples.csv").read_text(encoding="utf-8"), "examples.csv")
    examples.objects.bulk_create(
        [
            examples(
                text=line.text,
                history=line.history,
                tool=tool if line.tool else None,
                group=line.group,
                key=key(line.text, line.history),
            )
            for line in lines
        ],
        batch_size=500,
        ignore_conflicts=True,
    )
    meta = json.loads((DEMO / "head.json").read_text(encoding="utf-8"))
    details = meta["details"]
    heads.objects.create(
        state="in_force",
        data=(DEMO / "head.npz").read_bytes(),
        classes=meta["classes"],
        encoder=meta["encoder"] or "",
        feature_version=meta["feature_version"],
        threshold=meta["threshold"],
        trained_threshold=meta["threshold"],
        accuracy=details["accuracy"],
        recall=details["recall"],
        false_alarms=details["false_alarms"],
        details=details,
        finished=timezone.now(),
    )
    versions.objects.filter(pk=1).update(number=F("number") + 1)


def key(text: str, history: str) -> str:
    """``personas.tool_models.example_key`` as it was when this migration was written."""
    folded = "\0".join(" ".join(part.casefold().split()) for part in (history, text))
    return hashlib.sha256(folded.encode("utf-8", "surrogatepass")).hexdigest()


class Migration(migrations.Migration):
    dependencies = [("personas", "0007_tools")]
    operations = [migrations.RunPython(add, migrations.RunPython.noop)]

"""The demo's classifier again where the first one is still in force: that one has older features and is refused."""

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
FIRST = "ea32a17e07f30855ea3c522e0152b41dd360b2f4bbcb3cf3689470990b00d49f"  # SHA-256 of the first head.npz


def replace(apps: Apps, _schema: BaseDatabaseSchemaEditor) -> None:
    """Retire the first head and put the shipped one in force, with its examples beside those that are stored."""
    tools, examples, heads, versions = (
        apps.get_model("personas", name) for name in ("Tool", "ToolExample", "ToolHead", "CatalogueVersion")
    )
    old = heads.objects.filter(state="in_force").first()
    tool = tools.objects.filter(name=NAME).first()
    if old is None or tool is None or hashlib.sha256(old.data).hexdigest() != FIRST:
        return
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
    heads.objects.filter(pk=old.pk).update(state="retired")
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
    dependencies = [("personas", "0009_openai_tool_decision")]
    operations = [migrations.RunPython(replace, migrations.RunPython.noop)]

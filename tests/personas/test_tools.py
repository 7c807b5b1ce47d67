"""Tools, examples and heads: verbs, imports and the pages of the admin."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command
from django.db import IntegrityError, transaction
from django.test import Client

from personas import tool_services
from personas.selectors import catalogue_version, load_catalogue
from personas.tool_files import BadLines, LabelledLine, dump_csv, dump_jsonl, read_lines
from personas.tool_models import HeadState, Tool, ToolExample, ToolHead

pytestmark = pytest.mark.django_db
CITY = {"type": "object", "properties": {"city": {"type": "string"}}}
META: dict[str, Any] = {
    "classes": ["look"], "encoder": None, "feature_version": 1, "threshold": 0.6,
    "details": {"recall": 0.9, "false_alarms": 0.04, "accuracy": 0.95, "curve": [[0.5, 0.9, 0.04], [0.6, 0.8, 0.02]]},
}  # fmt: skip


@pytest.fixture(autouse=True)
def _without_the_demo(db: None) -> None:
    Tool.objects.all().delete()
    ToolExample.objects.all().delete()
    ToolHead.objects.all().delete()


@pytest.fixture
def look() -> Tool:
    return Tool.objects.create(name="look")


def trained() -> ToolHead:
    return tool_services.finish_training(tool_services.begin_training().pk, b"arrays", META)


# -- files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "text,tool,history\nlook at this,look,User: hi\nhello,none,\n"),
        ("a.jsonl", '{"text": "look at this", "tool": "look", "history": ["hi", ""]}\n{"text": "hello", "tool": null}'),
        ("", "look at this => look\nhello\n"),
        ("", "look at this\tlook\nhello\t\n"),
        (
            "a.jsonl",
            '{"turns": ["hi", "yes?", "look at this"], "tool": "look"}\n{"turns": [{"role": "user", "content": "hello"}]}',  # noqa: E501
        ),
    ],
)  # fmt: skip
def test_every_form_of_labelled_lines_is_read(name: str, content: str) -> None:
    first, second = read_lines(content, name)
    assert (first.text, first.tool) == ("look at this", "look")
    assert (second.text, second.tool) == ("hello", "")


def test_written_lines_are_read_back() -> None:
    lines = [LabelledLine('say "hi",\nyou => me', "look", "User: a\nAssistant: b", "g"), LabelledLine("ümlaut 😀")]
    assert read_lines(dump_csv(lines), "a.csv") == lines
    assert read_lines(dump_jsonl(lines), "a.jsonl") == lines


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.csv", "text\nhello\n", "columns"),
        ("a.jsonl", '{"text": "a"}\n{not', "line 2"),
        ("a.jsonl", "5\n", "line 1"),
        ("", "hello => two words\n", "line 1: 'two words'"),
        ("", " => look\n", "no text"),
        ("", "x" * 4001, "at most 4000"),
    ],
)
def test_lines_that_cannot_be_read_are_named(name: str, content: str, reason: str) -> None:
    with pytest.raises(BadLines, match=reason):
        read_lines(content, name)


# -- verbs -----------------------------------------------------------------------------------------


def test_an_import_adds_relabels_and_refuses(look: Tool) -> None:
    assert tool_services.import_examples([LabelledLine("a", "look"), LabelledLine("b")]) == (2, 0)
    assert tool_services.import_examples([LabelledLine(" A "), LabelledLine("c")]) == (1, 1)
    assert ToolExample.objects.get(text="a").tool is None
    with pytest.raises(ValidationError, match="no tool 'other'"):
        tool_services.import_examples([LabelledLine("d"), LabelledLine("e", "other")])
    assert not ToolExample.objects.filter(text="d").exists()


def test_one_head_is_in_force_and_an_old_one_comes_back() -> None:
    first, second = trained(), trained()
    before = catalogue_version()
    tool_services.accept_head(first.pk)
    tool_services.accept_head(second.pk)
    assert {h.pk: h.state for h in ToolHead.objects.all()} == {
        first.pk: HeadState.RETIRED, second.pk: HeadState.IN_FORCE
    }  # fmt: skip
    assert catalogue_version() == before + 2
    tool_services.accept_head(first.pk)
    head = load_catalogue().tool_head
    assert head is not None
    assert (head.number, head.data, head.threshold) == (first.pk, b"arrays", 0.6)
    with transaction.atomic(), pytest.raises(IntegrityError):
        ToolHead.objects.filter(pk=second.pk).update(state=HeadState.IN_FORCE)


def test_a_run_without_a_result_cannot_be_accepted() -> None:
    running = tool_services.begin_training()
    with pytest.raises(ValidationError, match="in progress"):
        tool_services.begin_training()
    with pytest.raises(ValidationError, match="no result"):
        tool_services.accept_head(running.pk)
    tool_services.fail_training(running.pk, "too few")
    with pytest.raises(ValidationError, match="no result"):
        tool_services.accept_head(running.pk)
    tool_services.begin_training()


def test_a_threshold_is_bounded_and_in_force_at_once() -> None:
    head = tool_services.accept_head(trained().pk)
    tool_services.set_threshold(head.pk, 0.7)
    in_force = load_catalogue().tool_head
    assert in_force is not None
    assert in_force.threshold == 0.7
    for wrong in (0.0, 1.0, float("nan")):
        with pytest.raises(ValidationError):
            tool_services.set_threshold(head.pk, wrong)


def test_the_catalogue_has_the_enabled_tools(look: Tool) -> None:
    Tool.objects.create(name="weather", parameters=CITY, is_global=False)
    Tool.objects.create(name="off", enabled=False)
    first, second = load_catalogue().tools
    assert (first.name, first.parameters, first.personas) == ("look", None, None)
    assert (second.name, json.loads(second.parameters or ""), second.personas) == ("weather", CITY, frozenset())


# -- commands --------------------------------------------------------------------------------------


def test_training_from_stored_examples(look: Tool) -> None:
    tool_services.import_examples(
        [LabelledLine(f"{verb} {it}", "look") for verb in ("look at", "check") for it in ("this", "my screen", "him")]
        + [LabelledLine(f"i {verb} {it}") for verb in ("like", "hate") for it in ("bread", "cats", "rain")]
    )
    call_command("train_tool", accept=True, verbosity=0)
    head = ToolHead.objects.get()
    assert (head.state, head.classes) == (HeadState.IN_FORCE, ["look"])
    assert head.details["examples"] == {"look": 6, "none": 6}


def test_training_that_fails_says_why(look: Tool) -> None:
    with pytest.raises(CommandError, match="no example wants a tool"):
        call_command("train_tool", verbosity=0)
    head = ToolHead.objects.get()
    assert head.state == HeadState.FAILED
    assert "no example" in head.error


# -- pages -----------------------------------------------------------------------------------------


def test_pages_of_the_admin(admin_client: Client, look: Tool) -> None:
    head = trained()
    in_force = tool_services.accept_head(trained().pk)
    for page in ("tool/", "tool/add/", f"tool/{look.pk}/change/", "toolexample/", "toolexample/add/", "toolhead/",
                 "toolhead/train/", "toolexample/import/", f"toolhead/{head.pk}/change/"):  # fmt: skip
        assert admin_client.get(f"/admin/personas/{page}").status_code == 200, page
    page = admin_client.get(f"/admin/personas/toolhead/{head.pk}/change/").content.decode()
    assert f"In force: version {in_force.pk}" in page
    assert "90.0 %" in page


def test_a_head_is_accepted_by_its_button(admin_client: Client) -> None:
    head = trained()
    url = f"/admin/personas/toolhead/{head.pk}/change/"
    admin_client.post(url, {"action": "accept"})
    admin_client.post(url, {"action": "threshold", "threshold": "0.75"})
    head.refresh_from_db()
    assert (head.state, head.threshold) == (HeadState.IN_FORCE, 0.75)
    assert b"must be a number" in admin_client.post(url, {"action": "threshold", "threshold": "x"}, follow=True).content
    admin_client.post(url, {"action": "retire"})
    assert load_catalogue().tool_head is None


def test_pasted_lines_are_imported_or_refused(admin_client: Client, look: Tool) -> None:
    url = "/admin/personas/toolexample/import/"
    admin_client.post(url, {"pasted": "look at this => look\r\nhello"})
    assert ToolExample.objects.count() == 2
    assert b"There is no tool" in admin_client.post(url, {"pasted": "x => other"}).content
    assert b"There are no lines" in admin_client.post(url, {"pasted": " "}).content
    exported = admin_client.get("/admin/personas/toolexample/export-csv/").content.decode()
    assert {line.text for line in read_lines(exported, "a.csv")} == {"look at this", "hello"}


def test_a_line_is_stored_once(admin_client: Client, look: Tool) -> None:
    tool_services.add_example("look", "look")
    fields = {"text": "LOOK", "history": "", "group": "", "note": ""}
    page = admin_client.post("/admin/personas/toolexample/add/", fields)
    assert b"stored already" in page.content


def test_a_wrong_decision_becomes_an_example(admin_client: Client, client: Client, look: Tool) -> None:
    url = "/admin/personas/toolexample/was-wrong/"
    assert admin_client.post(url, {"text": "hi", "tool": "look", "history": "User: a"}).json() == {"tool": "look"}
    assert admin_client.post(url, {"text": "hi", "tool": "", "history": "User: a"}).json() == {"tool": ""}
    assert ToolExample.objects.get().tool is None
    assert admin_client.post(url, {"text": " ", "tool": ""}).status_code == 400
    assert admin_client.post(url, {"text": "x", "tool": "other"}).status_code == 400
    assert admin_client.get(url).status_code == 405
    assert client.post(url, {"text": "x", "tool": ""}).status_code == 302


@pytest.mark.parametrize("parameters", ["5", '{"type": "string"}', '{"type": "object", "properties": 5}'])
def test_parameters_are_the_schema_of_an_object(admin_client: Client, parameters: str) -> None:
    fields = {"name": "a", "description": "", "parameters": parameters, "enabled": "on", "is_global": "on"}
    admin_client.post("/admin/personas/tool/add/", fields)
    assert not Tool.objects.exists()
    admin_client.post("/admin/personas/tool/add/", {**fields, "parameters": json.dumps(CITY)})
    assert Tool.objects.get().parameters == CITY

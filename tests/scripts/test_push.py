"""Pushing exports, against a Hub on the loopback, with the real client library."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts import push_target
from scripts.push_target import PushError, check_targets, target
from scripts.quantizer.push import push_export
from tests.scripts.fake_hub import TOKEN, FakeHub

# The client library reads its constants once, at import; xet is another transport than the one that is faked here.
os.environ.setdefault("HF_HUB_DISABLE_XET", "1")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    server = FakeHub()
    yield server
    server.close()


@pytest.fixture
def export(tmp_path: Path) -> Path:
    folder = tmp_path / "awq/m-0123"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "README.md").write_text("# card")
    (folder / "awq_metadata.json").write_text(json.dumps({"digest": "0123", "source_model": "owner/m"}))
    for number in (1, 2):
        (folder / f"model-0000{number}-of-00002.safetensors").write_bytes(os.urandom(2000))
    return folder


def environ(hub: FakeHub, **variables: str) -> dict[str, str]:
    return {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_AWQ_CHAT_REPO": "me/m-awq", **variables}


def push(hub: FakeHub, export: Path, **variables: str) -> list[str]:
    """Push, and return what was said."""
    said: list[str] = []
    given = environ(hub, **variables)
    push_export(export, target("chat", given), given, said.append, pause=0.01)
    return said


def test_everything_arrives(hub: FakeHub, export: Path) -> None:
    push(hub, export)
    repository = hub.repositories["me/m-awq"]
    assert repository.private
    assert repository.branches["main"] == {path.name: path.read_bytes() for path in export.iterdir()}
    assert repository.messages == ["Upload AWQ weights for owner/m"]


def test_branch_message_and_a_public_repository(hub: FakeHub, export: Path) -> None:
    push(hub, export, HF_AWQ_BRANCH="w4", HF_AWQ_PRIVATE="0", HF_AWQ_COMMIT_MSG_CHAT="four bits")
    repository = hub.repositories["me/m-awq"]
    assert not repository.private
    assert repository.branches["main"] == {}
    assert "config.json" in repository.branches["w4"]
    assert repository.messages == ["four bits"]


def test_the_same_export_is_not_pushed_twice(hub: FakeHub, export: Path) -> None:
    push(hub, export)
    asked = len(hub.requests)
    assert push(hub, export) == ["m-0123 is on me/m-awq (branch main) already: not pushed again"]
    assert not [line for line in hub.requests[asked:] if not line.startswith("GET ")]
    push(hub, export, HF_AWQ_BRANCH="other")  # another branch has not got it
    assert "config.json" in hub.repositories["me/m-awq"].branches["other"]
    hub.repositories.clear()  # deleted on the Hub meanwhile
    push(hub, export)
    assert "config.json" in hub.repositories["me/m-awq"].branches["main"]


def test_another_export_is_pushed(hub: FakeHub, export: Path) -> None:
    push(hub, export)
    (export / "awq_metadata.json").write_text(json.dumps({"digest": "4567", "source_model": "owner/m"}))
    push(hub, export)
    assert len(hub.repositories["me/m-awq"].messages) == 2


def test_no_create(hub: FakeHub, export: Path) -> None:
    with pytest.raises(PushError, match="me/m-awq does not exist, or HF_TOKEN may not see it, and HF_AWQ_ALLOW_CREATE"):
        push(hub, export, HF_AWQ_ALLOW_CREATE="0")
    assert not hub.repositories
    push(hub, export)
    (export.parent / ".m-0123.pushed.json").unlink()
    push(hub, export, HF_AWQ_ALLOW_CREATE="0")
    assert len(hub.repositories["me/m-awq"].messages) == 2


@pytest.mark.parametrize(
    ("part", "status", "reason"),
    [
        ("POST /api/repos/create", 401, "the Hub does not know HF_TOKEN"),
        ("POST /api/repos/create", 403, "HF_TOKEN may not write to me/m-awq"),
        ("/preupload/", 403, "HF_TOKEN may not write to me/m-awq"),
        ("/commit/", 409, "another commit changed the branch at the same time"),
        ("/commit/", 401, "the Hub does not know HF_TOKEN"),
    ],
)
def test_refusals_are_one_line_and_final(hub: FakeHub, export: Path, part: str, status: int, reason: str) -> None:
    hub.fail[part] = status
    with pytest.raises(PushError) as raised:
        push(hub, export)
    assert reason in str(raised.value)
    assert TOKEN not in str(raised.value)
    assert "\n" not in str(raised.value)
    assert sum(part in line for line in hub.requests) == 1
    assert not (export.parent / ".m-0123.pushed.json").exists()


def test_a_connection_that_is_cut_is_resumed(hub: FakeHub, export: Path) -> None:
    hub.cut_after_uploads = 1
    said = push(hub, export)
    assert hub.repositories["me/m-awq"].branches["main"].keys() == {path.name for path in export.iterdir()}
    sent = [line for line in hub.requests if line.startswith("PUT ")]
    assert len(set(sent)) == 2
    assert len(sent) == 3  # the file that had arrived was not sent again
    assert said[-1] == "pushed m-0123 to me/m-awq (branch main)"


def test_a_hub_that_stays_away(hub: FakeHub, export: Path) -> None:
    hub.fail["/commit/"] = 503
    with pytest.raises(PushError, match=r"pushing to me/m-awq \(branch main\) failed: the Hub answers 503"):
        push(hub, export)


# -- before any work -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"HF_TOKEN": ""}, "pushing needs HF_TOKEN"),
        ({"HF_TOKEN": "hf_other"}, "the Hub does not know HF_TOKEN"),
        ({"HF_AWQ_CHAT_REPO": ""}, "pushing needs HF_AWQ_CHAT_REPO"),
        ({"HF_AWQ_CHAT_REPO": "your-org/m"}, "pushing needs HF_AWQ_CHAT_REPO"),
        ({"HF_AWQ_CHAT_REPO": "/a/folder"}, "not owner/name"),
        ({"HF_AWQ_CHAT_REPO": "one"}, "not owner/name"),
        ({"HF_AWQ_BRANCH": "../x"}, "not the name of a branch"),
        ({"HF_AWQ_PRIVATE": "perhaps"}, "HF_AWQ_PRIVATE='perhaps': allowed are 1/0"),
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, "the Hub cannot be asked"),
    ],
)
def test_a_push_that_cannot_succeed_is_refused_first(hub: FakeHub, variables: dict[str, str], reason: str) -> None:
    with pytest.raises(PushError) as raised:
        check_targets(["chat"], {**environ(hub), **variables})
    assert reason in str(raised.value)


def test_a_token_that_only_reads(hub: FakeHub) -> None:
    check_targets(["chat"], environ(hub))
    hub.role = "read"
    with pytest.raises(PushError, match="HF_TOKEN may only read"):
        check_targets(["chat"], environ(hub))


def test_nothing_to_push_asks_nothing() -> None:
    check_targets([], {})
    assert push_target.wants_push(False, {"HF_AWQ_PUSH": "1"})
    assert not push_target.wants_push(False, {})

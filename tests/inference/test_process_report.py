from __future__ import annotations

import json

import pytest

from inference.engines.base import EngineRole, EngineState
from inference.engines.status import EngineStatus
from inference.process_report import ProcessReport, decode, encode

ENGINE = EngineStatus(
    EngineRole.CHAT, "owner/chat", EngineState.READY, "", 12.5, 4096, 1,
    {"device": "cuda", "gpus": [0, 1]}, {"running": 3, "waiting": 1, "kv_usage": 0.25, "generated": 77},
    [EngineState.READY, EngineState.DEAD],
)  # fmt: skip
REPORT = ProcessReport("host", 7, "1.1.0", "ready", "", 4, 3, 1000.0, 50.0, {"chat": ENGINE})


def test_a_report_survives_the_way() -> None:
    again = decode(encode(REPORT))
    assert again == REPORT
    assert again.engines["chat"].state is EngineState.READY
    assert again.engines["chat"].as_json() == ENGINE.as_json()
    assert again.generated == 77


def test_processes_of_two_versions_read_each_other() -> None:
    newer = json.loads(encode(REPORT)) | {"planet": "Mars"}
    newer["engines"]["chat"]["colour"] = "blue"
    assert decode(json.dumps(newer).encode()) == REPORT
    older = {name: newer[name] for name in ("host", "pid", "version", "state")}
    assert decode(json.dumps(older).encode()) == ProcessReport("host", 7, "1.1.0", "ready")


@pytest.mark.parametrize(
    "data", [b"", b"x", b"[]", b"{}", b'{"host": "h"}', b'{"engines": {"chat": 3}}', b'{"engines": {"chat": {}}}']
)
def test_what_is_no_report_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="not a report"):
        decode(data)


def test_status_names_engines_by_their_state_and_no_model() -> None:
    assert REPORT.as_json() == {
        "host": "host", "pid": 7, "version": "1.1.0", "state": "ready", "connections": 4, "turns_running": 3,
        "engines": {"chat": "ready"},
    }  # fmt: skip


def test_a_reused_process_id_has_another_name() -> None:
    assert REPORT.name != ProcessReport("host", 7, "1.1.0", "ready", started=1001.0).name

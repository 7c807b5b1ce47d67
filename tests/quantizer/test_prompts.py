"""The beginnings of conversations that calibrate an export."""

from __future__ import annotations

import pytest

from scripts.quantizer import prompts
from scripts.quantizer.progress import Progress


@pytest.mark.django_db
def test_enabled_personas_and_the_tool_prompt() -> None:
    made = prompts.beginnings(["chat", "tool"], 8)
    assert len(made) == 8
    chat, tool = made[:4], made[4:]
    assert len({messages[0]["content"] for messages in chat}) == 3  # mia, nova, theo
    assert all([message["role"] for message in messages] == ["system", "user"] for messages in chat)
    assert not [message for messages in made for message in messages if "{{user}}" in message["content"]]
    for messages in tool:
        assert messages[0]["content"].startswith("You watch a chat.")
        assert messages[-1]["role"] == "user"
        assert messages[2] == {"role": "assistant", "content": "[]"}


@pytest.mark.django_db
def test_one_role_gets_all_samples() -> None:
    assert len(prompts.beginnings(["chat"], 5)) == 5
    assert len(prompts.beginnings(["tool"], 5)) == 5


def test_progress_says_stage_step_and_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress("quantizing m", every=0)
    progress.stage("AWQ")
    progress._stage_began -= 60
    progress.step("layer", 2, 8)
    progress.step("layer", 8, 8)
    assert capsys.readouterr().err.splitlines() == [
        "yap: [0 s] quantizing m: AWQ",
        "yap: [0 s] quantizing m: layer 2 of 8, about 3 min left",
        "yap: [0 s] quantizing m: layer 8 of 8",
    ]

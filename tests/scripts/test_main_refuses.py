"""main.sh: whatever is missing or wrong is one clear line and a non-zero exit, before anything is started."""

from __future__ import annotations

import socket
import subprocess
import sys
import time

import pytest

from tests.scripts.checkout import Checkout

pytestmark = pytest.mark.scripts

NAMED = {"TEXT_API_KEY": "k", "MAX_CONCURRENT_CONNECTIONS": "2"}
FLOAT = "./.models/SmolLM2-135M-Instruct"
W8A8 = {
    "quant_method": "compressed-tensors",
    "config_groups": {"group_0": {"weights": {"num_bits": 8, "type": "int"}, "input_activations": {"num_bits": 8}}},
}


def assert_refused(done: subprocess.CompletedProcess[str], reason: str) -> None:
    assert done.returncode != 0
    assert reason in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("yap: ")
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["model"], "one chat and one tool model are needed"),
        (["both", "model"], "'both' takes one chat and one tool model"),
        (["both"], "'both' takes one chat and one tool model"),
        (["awq", "both", "a", "b", "c"], "'both' takes one chat and one tool model"),
        (["awq", "chat", "a", "b"], "'chat' takes exactly one model"),
        (["--push", "a", "b"], "--push pushes exports that awq makes"),
        (["awq", "model"], "one chat and one tool model are needed"),
        (["chat"], "'chat' takes exactly one model"),
        (["tool", "a", "b"], "'tool' takes exactly one model"),
        (["a", "b", "neither"], "'neither': allowed are both, chat, tool"),
        (["a", "b", "both", "more"], "one chat and one tool model are needed"),
        (["chat", "--flag"], "'--flag' is no model"),
        (["", "b"], "'' is no model"),
    ],
)
def test_arguments(checkout: Checkout, arguments: list[str], reason: str) -> None:
    assert_refused(checkout.run("main.sh", *arguments, **NAMED), reason)


@pytest.mark.parametrize(
    ("arguments", "environ", "reason"),
    [
        (
            ["chat", "./here"],
            {"MAX_CONCURRENT_CONNECTIONS": "2"},
            "not set: TEXT_API_KEY; required when models are",
        ),
        (["chat", "./here"], {"TEXT_API_KEY": "k"}, "not set: MAX_CONCURRENT_CONNECTIONS; required"),
        (["chat", "./here"], {}, "not set: TEXT_API_KEY, MAX_CONCURRENT_CONNECTIONS; required"),
        (
            ["a/b", "./here"],
            {},
            "not set: TEXT_API_KEY, MAX_CONCURRENT_CONNECTIONS, HF_TOKEN (chat model a/b from the Hub); required",
        ),
        (["awq", "chat"], NAMED, "not set: AWQ_CHAT_MODEL or CHAT_MODEL; required"),
        (
            ["awq"],
            {"AWQ_TOOL_MODEL": "./here"},
            "not set: TEXT_API_KEY, MAX_CONCURRENT_CONNECTIONS, AWQ_CHAT_MODEL or CHAT_MODEL; required",
        ),
        (["awq"], {"AWQ_CHAT_MODEL": "./no", "DEPLOY_MODELS": "chat", **NAMED}, "chat model ./no not found"),
        (["awq", "chat"], {"AWQ_CHAT_MODEL": FLOAT, **NAMED}, "its weights are not stored as awq"),
        (["awq", "--push"], {}, "pushing needs HF_TOKEN"),
        (["awq"], {"HF_AWQ_PUSH": "1", "HF_TOKEN": "t"}, "pushing needs HF_AWQ_CHAT_REPO"),
        (["awq"], {"HF_AWQ_PUSH": "maybe"}, "HF_AWQ_PUSH='maybe': allowed are 1/0"),
        (["awq", "--push"], {"HF_TOKEN": "t", "HF_AWQ_CHAT_REPO": "your-org/x"}, "pushing needs HF_AWQ_CHAT_REPO"),
        ([], {"TEXT_API_KEY_FILE": "/no/key"}, "bad setting: TEXT_API_KEY_FILE=/no/key: No such file"),
        (["chat", "./here"], {**NAMED, "MAX_CONCURRENT_CONNECTIONS": "none"}, "MAX_CONCURRENT_CONNECTIONS='none'"),
        (["chat", "./nowhere"], NAMED, "chat model ./nowhere not found"),
        (["tool", "./bin"], NAMED, "is not a model: no config.json"),
        (["awq", "/no/chat", "/no/tool"], NAMED, "chat model /no/chat not found"),
        (["chat", "owner/name"], NAMED, "not set: HF_TOKEN (chat model owner/name from the Hub); required"),
        (["chat", "not an id"], {**NAMED, "HF_TOKEN": "t"}, "is neither a folder here nor a Hub id"),
        ([], {"PORT": "http"}, "PORT='http': allowed are 1 to 65535"),
        ([], {"PORT": "70000"}, "PORT='70000'"),
        ([], {"HOST": "256.1.1.1"}, "HOST='256.1.1.1'"),
        ([], {"DEPLOY_MODELS": "all"}, "DEPLOY_MODELS=all: allowed are both, chat, tool"),
    ],
)
def test_settings(checkout: Checkout, arguments: list[str], environ: dict[str, str], reason: str) -> None:
    assert_refused(checkout.run("main.sh", *arguments, **environ), reason)
    assert not (checkout.root / "prepared").exists()


@pytest.mark.parametrize(
    ("config", "environ", "arguments", "reason"),
    [
        ({"quant_method": "gptq", "bits": 4}, {}, ["awq"], "stored as gptq; awq needs float or AWQ ones"),
        (W8A8, {}, ["awq"], "stored as compressed-tensors; awq needs float or AWQ ones"),
        (W8A8, {"QUANTIZATION": "awq"}, [], "awq needs 4-bit integer weights"),
        ({"quant_method": "gptq", "bits": 8}, {}, [], "stored as gptq, 8-bit int have no CPU kernel"),
        ({"quant_method": "fp8"}, {}, [], "fp8 weights need a GPU"),
        (None, {"QUANTIZATION": "awq"}, [], "its weights are not stored as awq"),
    ],
)
def test_weights(
    checkout: Checkout, config: object, environ: dict[str, str], arguments: list[str], reason: str
) -> None:
    folder = checkout.model("named", **({"quantization_config": config} if config else {}))
    assert_refused(checkout.run("main.sh", *arguments, "chat", str(folder), **NAMED, **environ), reason)


@pytest.mark.parametrize("arguments", [["awq"], ["awq", "chat", FLOAT], ["awq", FLOAT, FLOAT]])
def test_4_bit_weights_need_avx_512_on_a_processor(checkout: Checkout, arguments: list[str]) -> None:
    checkout.processor("sse4 avx2")
    done = checkout.run("main.sh", *arguments, **NAMED)
    assert_refused(done, "4-bit weights need AVX-512 on a CPU, and this one has none")
    assert not (checkout.root / ".venv-quantize").exists()


def test_a_bad_env_file(checkout: Checkout) -> None:
    (checkout.root / ".env").write_text("PORT 8000\n")
    assert_refused(checkout.run("main.sh"), "bad setting: ")


def test_port_taken(checkout: Checkout) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", checkout.port))
        other.listen()
        assert_refused(checkout.run("main.sh"), f"port {checkout.port} on 127.0.0.1 cannot be used")


def test_no_python(checkout: Checkout) -> None:
    (checkout.root / ".venv/bin/python").unlink()
    checkout.program("bin/old-python", f'[[ $1 != -c ]] || exec {sys.executable} -c "raise SystemExit(1)"')
    assert_refused(checkout.run("main.sh", PYTHON="old-python"), "no Python 3.11 to 3.13 found (tried: old-python)")


def test_refusals_are_quick(checkout: Checkout) -> None:
    began = time.monotonic()
    checkout.run("main.sh", "chat", "./nowhere", **NAMED)
    assert time.monotonic() - began < 5  # under 0.3 s here; minutes are what is ruled out


def test_help(checkout: Checkout) -> None:
    done = checkout.run("main.sh", "--help")
    assert done.returncode == 0
    assert "scripts/main.sh [awq] chat <chat_model>" in done.stdout

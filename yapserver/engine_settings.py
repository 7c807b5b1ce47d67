"""Checks of settings against each other: sampling ranges, GPU lists, memory shares, prompt limits and the context."""

# ruff: noqa: N802 (the names are the environment's)
from __future__ import annotations

import json
from typing import Protocol

from inference.engines.sampling import SAMPLING_KEYS
from inference.engines.spec import ALONE_SHARE, CHAT_SHARE, TOOL_SHARE, EngineSettings, gpus_are_apart, parse_gpus
from inference.prompting.prompt_limits import TEMPLATE_RESERVE_TOKENS

ROLES = ("CHAT", "TOOL")


class Settings(EngineSettings, Protocol):
    """The settings that are checked: those of the engines, their prompt limits and the sampling defaults."""

    @property
    def USER_UTT_MAX_TOKENS(self) -> int: ...


def check_sampling_ranges(env: Settings) -> None:
    """Check that each sampling default lies in its range.

    Raises:
        ValueError: one line with the variable and its range.
    """
    for key in SAMPLING_KEYS:
        name = f"CHAT_{key.upper()}"
        value, low, high = (getattr(env, f"{name}{end}") for end in ("", "_MIN", "_MAX"))
        if not low <= value <= high:
            raise ValueError(f"{name}={value}: allowed are {low} to {high} ({name}_MIN, {name}_MAX)")


def check_engine_settings(env: Settings) -> None:
    """Check the settings of the deployed engines.

    Raises:
        ValueError: one line with the variables and the values that are possible.
    """
    for role in ROLES:
        if env.DEPLOY_MODELS in ("both", role.lower()):
            _check_gpus(env, role)
            _check_engine_args(env, role)
            _check_context(env, role)
    _check_gpu_shares(env)


def _check_gpus(env: Settings, role: str) -> None:
    text: str | None = getattr(env, f"{role}_GPUS")
    try:
        gpus = parse_gpus(text)
    except ValueError as error:
        raise ValueError(f"{role}_GPUS={error}") from None
    sizes = {name: getattr(env, f"{role}_{name}_PARALLEL") for name in ("TENSOR", "PIPELINE", "DATA")}
    needed = sizes["TENSOR"] * sizes["PIPELINE"] * sizes["DATA"]
    if gpus is not None and len(gpus) != needed:
        product = " x ".join(f"{role}_{name}_PARALLEL={size}" for name, size in sizes.items())
        raise ValueError(f"{role}_GPUS={text} names {len(gpus)} GPUs; {product} needs {needed}")
    if gpus is not None and env.DISTRIBUTED_EXECUTOR == "ray":
        raise ValueError(f"{role}_GPUS={text}: with DISTRIBUTED_EXECUTOR=ray the cluster chooses the GPUs")


def _check_engine_args(env: Settings, role: str) -> None:
    text: str | None = getattr(env, f"{role}_ENGINE_ARGS")
    if not text:
        return
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{role}_ENGINE_ARGS is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f'{role}_ENGINE_ARGS must be a JSON object such as {{"enable_lora": true}}')


def _check_gpu_shares(env: Settings) -> None:
    """Check the sum of both shares: vLLM would find a sum above 1 only after the first model is loaded."""
    if env.DEPLOY_MODELS != "both" or gpus_are_apart(env.CHAT_GPUS, env.TOOL_GPUS):
        return
    chat, tool = env.CHAT_GPU_FRAC or CHAT_SHARE, env.TOOL_GPU_FRAC or TOOL_SHARE
    if chat + tool > 1.0:
        raise ValueError(
            f"CHAT_GPU_FRAC={chat:g} and TOOL_GPU_FRAC={tool:g} are more than one GPU's memory (defaults: "
            f"{CHAT_SHARE:g} and {TOOL_SHARE:g}): their sum may be at most 1, or set CHAT_GPUS and TOOL_GPUS apart "
            f"(then each may be {ALONE_SHARE:g})"
        )


def _check_context(env: Settings, role: str) -> None:
    """Check that the longest accepted prompt, an utterance and a reply fit the context without any history."""
    context, prompt, reply = (getattr(env, f"{role}_{name}") for name in ("MAX_LEN", "PROMPT_MAX_TOKENS", "MAX_OUT"))
    utterance = env.USER_UTT_MAX_TOKENS
    needed = prompt + utterance + reply + TEMPLATE_RESERVE_TOKENS
    if needed > context:
        raise ValueError(
            f"{role}_MAX_LEN={context}: {role}_PROMPT_MAX_TOKENS={prompt}, USER_UTT_MAX_TOKENS={utterance}, "
            f"{role}_MAX_OUT={reply} and {TEMPLATE_RESERVE_TOKENS} tokens of the chat template need {needed}"
        )

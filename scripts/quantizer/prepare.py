"""Decide for each engine what 4-bit model it serves, make what is missing, and push it. The server's environment.

    .venv/bin/python -m scripts.quantizer.prepare {cpu|cuda} [--push]           for main.sh: shell commands on stdout
    .venv/bin/python -m scripts.quantizer.prepare {cpu|cuda} --model MODEL [--out DIR] [--role ROLE] [--push]

Reads the environment that main.sh made. What happens is on stderr. Exit status 1 with one line where a model cannot be
quantized or an export cannot be pushed; with `AWQ_FAIL_HARD=0` the float model is served instead, and the line warns.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from inference.engines import model_config
from inference.engines.spec import ModelRefused
from scripts.model_source import SourceError, config_text, is_local
from scripts.preflight import available_memory
from scripts.push_target import PushError, check_targets, flag, target, wants_push
from scripts.quantizer import exports, recipe, sources
from scripts.quantizer.recipe import ROOT, QuantizeError
from yapserver.environment_files import EnvironmentFileError, read_secrets

DEMO = "SmolLM2-135M-Instruct"


def say(text: str) -> None:
    """Print one line for the operator."""
    print(f"yap: {text}", file=sys.stderr, flush=True)


def models_dir(environ: Mapping[str, str]) -> Path:
    """The folder that models are kept in."""
    return Path(environ.get("MODELS_DIR") or ROOT / ".models").absolute()


def float_model(role: str, model: str, environ: Mapping[str, str]) -> bool:
    """Whether ``model`` has float weights, so that it has to be quantized.

    Raises:
        QuantizeError: the weights are quantized already, and not with AWQ.
        SourceError: the model cannot be read.
    """
    try:
        config = model_config.parse(model, config_text(role, model, environ))
    except ModelRefused as refusal:
        raise QuantizeError(str(refusal)) from None
    if config.quantization is not None and not config.is_awq:
        raise QuantizeError(f"{role} model {model}: its weights are stored as {config.quantization}; awq needs others")
    return config.quantization is None


def export_of(
    model: str, roles: Sequence[str], device: str, environ: Mapping[str, str], out: Path | None = None
) -> Path:
    """Return the export of a float model, made where it is missing.

    Args:
        model: a folder or a Hub id.
        roles: the engines that will serve it.
        device: `cpu` or `cuda`.
        environ: the variables.
        out: where the export is kept; None is its place in `MODELS_DIR`.

    Raises:
        QuantizeError: there is no room, or the quantizer failed.
    """
    wished = recipe.calibration(environ, device)
    source = sources.resolve(model)
    versions = recipe.tool_versions(device)
    key = recipe.digest(source.identity, wished, versions)
    place = out or models_dir(environ) / "awq" / exports.folder_name(model, key)
    found = exports.metadata(place)
    if found is not None:
        if found.get("digest") != key:
            raise QuantizeError(f"{place} holds another export ({found.get('source_model')}): name another folder")
        say(f"{model}: the export {place} is used again (perplexity {_perplexities(found)})")
        return place
    sources.check_room(source, place.parent, int(available_memory() * 2**30))
    _install(device)
    from scripts.quantizer.prompts import beginnings

    prompts = beginnings(roles, wished.samples) if wished.kind == "self" else []
    with exports.making(place) as work:
        if work is not None:
            job = {
                "source_model": model,
                "source_folder": str(source.folder),
                "source_revision": source.revision,
                "hub_id": source.hub_id,
                "roles": list(roles),
                "digest": key,
                "out": str(work / "model"),
                "prompts": prompts,
                "calibration": asdict(wished),
                "versions": versions,
            }
            _work(model, job)
    return place


def _perplexities(found: Mapping[str, object]) -> str:
    both = found.get("perplexity")
    return f"{both.get('float')} → {both.get('quantized')}" if isinstance(both, dict) else "not measured"


def _install(device: str) -> None:
    """Make the quantizer's environment."""
    command = ["bash", "scripts/install.sh", f"quantize-{device}"]
    if subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False).returncode:
        raise QuantizeError("the quantizer's packages cannot be installed: see the lines above")


def _work(model: str, job: Mapping[str, object]) -> None:
    """Run the worker; an interrupt reaches it too, since both are in one process group."""
    command = [str(ROOT / ".venv-quantize/bin/python"), "-m", "scripts.quantizer.worker"]
    # Threads that wait in a busy loop for each other stand still on a machine where others work too.
    environ = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}
    done = subprocess.run(
        command, cwd=ROOT, env=environ, input=json.dumps(job), text=True, stdout=sys.stderr, check=False
    )
    if done.returncode:
        killed = f" (killed by signal {-done.returncode})" if done.returncode < 0 else ""
        raise QuantizeError(f"{model} was not quantized{killed}: see the lines above")


def push(export: Path, roles: Sequence[str], environ: Mapping[str, str]) -> None:
    """Push one export to the repository of each role.

    Raises:
        PushError: a push failed.
    """
    from scripts.quantizer.push import push_export

    for role in roles:
        push_export(export, target(role, environ), environ, say)


def prepare(device: str, pushing: bool, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that make the server serve 4-bit weights.

    Args:
        device: `cpu` or `cuda`.
        pushing: whether exports are pushed.
        environ: the variables; `DEPLOY_MODELS`, and of each role `AWQ_<ROLE>_MODEL` or `<ROLE>_MODEL`.

    Raises:
        QuantizeError, SourceError, PushError: see `export_of` and `push`.
    """
    variables: dict[str, str] = {}
    floats: dict[str, list[str]] = {}
    deploy = environ.get("DEPLOY_MODELS") or "both"
    hard = flag(environ, "AWQ_FAIL_HARD", True)
    for role in ("chat", "tool"):
        upper = role.upper()
        if deploy not in ("both", role):
            continue
        variables[f"{upper}_QUANTIZATION"] = "awq"
        if environ.get(f"AWQ_{upper}_MODEL"):
            say(f"{role}: {environ[f'AWQ_{upper}_MODEL']} is served as it is")
            continue
        model = environ.get(f"{upper}_MODEL") or str(models_dir(environ) / DEMO)
        variables[f"{upper}_MODEL"] = ""
        variables[f"AWQ_{upper}_MODEL"] = model
        if float_model(role, model, environ):
            key = str(Path(model).expanduser().resolve()) if is_local(model) else model
            floats.setdefault(key, []).append(role)
        else:
            say(f"{role}: {model} is AWQ already and served as it is")
    if pushing:
        check_targets([role for roles in floats.values() for role in roles], environ)
    for model, roles in floats.items():
        try:
            export = export_of(model, roles, device, environ)
        except QuantizeError as error:
            if hard:
                raise
            say(f"WARNING: {error}; AWQ_FAIL_HARD=0: {' and '.join(roles)} served from float weights")
            for role in roles:
                upper = role.upper()
                variables |= {f"{upper}_MODEL": model, f"AWQ_{upper}_MODEL": "", f"{upper}_QUANTIZATION": "auto"}
            continue
        variables |= {f"AWQ_{role.upper()}_MODEL": str(export) for role in roles}
        if pushing:
            try:
                push(export, roles, environ)
            except PushError as error:
                say(f"WARNING: {error}; the export is kept, scripts/restart.sh --push tries again")
    return variables


def prepare_one(arguments: argparse.Namespace, environ: Mapping[str, str]) -> None:
    """Quantize one model for scripts/quantize.sh.

    Raises:
        QuantizeError, SourceError, PushError: see `export_of` and `push`.
    """
    pushing = wants_push(arguments.push, environ)
    roles = ["chat", "tool"] if arguments.role == "both" else [arguments.role]
    if pushing:
        check_targets(roles, environ)
    if not float_model("", arguments.model, environ):
        raise QuantizeError(f"{arguments.model} is AWQ already: there is nothing to quantize")
    out = Path(arguments.out).absolute() if arguments.out else None
    export = export_of(arguments.model, roles, arguments.device, environ, out)
    if pushing:
        push(export, roles, environ)
    print(export)


def main() -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("device", choices=["cpu", "cuda"])
    parser.add_argument("--push", action="store_true")
    parser.add_argument("--model")
    parser.add_argument("--out")
    parser.add_argument("--role", choices=["chat", "tool", "both"], default="chat")
    arguments = parser.parse_args()
    try:
        environ = {**os.environ, **read_secrets(os.environ)}
        if arguments.model:
            prepare_one(arguments, environ)
        else:
            variables = prepare(arguments.device, wants_push(arguments.push, environ), environ)
            for name, value in variables.items():
                print(f"export {name}={shlex.quote(value)}")
    except (QuantizeError, SourceError, PushError, EnvironmentFileError) as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        say("interrupted; nothing half made is left")
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""Read `.env` and `NAME_FILE` secrets. Standard library only: the scripts use this module before anything is installed.

Precedence, highest first: a variable of the process, the file that `NAME_FILE` of the process names, `NAME` in `.env`,
`NAME_FILE` in `.env`. A variable that the process sets to the empty string hides the one in `.env`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, MutableMapping
from pathlib import Path

SECRETS = ("TEXT_API_KEY", "HF_TOKEN", "HUGGINGFACE_HUB_TOKEN", "SECRET_KEY", "DATABASE_URL", "REDIS_URL")
MAX_ENV_FILE_BYTES = 256 * 1024
MAX_SECRET_BYTES = 64 * 1024
_LINE = re.compile(r"(?:export\s+)?([A-Za-z_]\w*)\s*=\s*(.*)")
_SINGLE_QUOTED = re.compile(r"'([^']*)'\s*(?:#.*)?")
_DOUBLE_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"\s*(?:#.*)?')
_ESCAPES = {"n": "\n", "t": "\t"}


class EnvironmentFileError(Exception):
    """An environment file or secret file is unusable; the message is one line and never holds a value."""


def parse(text: str) -> dict[str, str]:
    """Parse the lines of a `.env` file.

    A line is `NAME=value`, with an optional `export` in front. Single quotes keep a value literally; double quotes know
    the escapes `\\n`, `\\t`, `\\"` and `\\\\`; an unquoted value ends at ` #`. Variables in values are not expanded.

    Args:
        text: the file's content; blank lines and lines that begin with `#` are skipped.

    Returns:
        Names and values; the last of several lines with one name wins.

    Raises:
        EnvironmentFileError: a line has another form; the message names its number.
    """
    values: dict[str, str] = {}
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        value = _value(match[2]) if match else None
        if match is None or value is None or "\0" in value:
            raise EnvironmentFileError(f"line {number} is not NAME=value")
        values[match[1]] = value
    return values


def _value(text: str) -> str | None:
    if text.startswith("'"):
        match = _SINGLE_QUOTED.fullmatch(text)
        return match[1] if match else None
    if text.startswith('"'):
        match = _DOUBLE_QUOTED.fullmatch(text)
        return re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[1]), match[1]) if match else None
    return re.split(r"(?:^|\s)#", text, maxsplit=1)[0].rstrip()


def read_env_file(path: Path) -> dict[str, str]:
    """Return the variables of one `.env` file; none where the file does not exist.

    Raises:
        EnvironmentFileError: the file is unreadable, larger than `MAX_ENV_FILE_BYTES`, not UTF-8, or malformed.
    """
    try:
        if path.stat().st_size > MAX_ENV_FILE_BYTES:
            raise EnvironmentFileError(f"{path}: larger than {MAX_ENV_FILE_BYTES} bytes")
        return parse(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return {}
    except UnicodeDecodeError:
        raise EnvironmentFileError(f"{path}: not UTF-8") from None
    except OSError as error:
        raise EnvironmentFileError(f"{path} cannot be read: {error.strerror or error}") from None
    except EnvironmentFileError as error:
        message = str(error)
        raise EnvironmentFileError(message if message.startswith(str(path)) else f"{path}: {message}") from None


def missing_from(environ: Mapping[str, str], checkout: Path) -> dict[str, str]:
    """Return the variables that `.env` adds to ``environ``.

    Args:
        environ: the process's variables. `ENV_FILE` names another file than `.env`; empty means none.
        checkout: the folder whose `.env` is read.

    Raises:
        EnvironmentFileError: see `read_env_file`; also a file that `ENV_FILE` names and that does not exist.
    """
    named = environ.get("ENV_FILE")
    if named == "":
        return {}
    path = Path(named) if named else checkout / ".env"
    if named and not path.exists():
        raise EnvironmentFileError(f"ENV_FILE={named}: no such file")
    found = read_env_file(path)
    hidden = set(environ)
    for name in SECRETS:  # a secret that the process names in one form hides the other form in the file
        if environ.get(name) or environ.get(f"{name}_FILE"):
            hidden |= {name, f"{name}_FILE"}
    return {name: value for name, value in found.items() if name not in hidden}


def read_secrets(environ: Mapping[str, str], names: Iterable[str] = SECRETS) -> dict[str, str]:
    """Return the secrets that `NAME_FILE` variables name, without the newline at the end of a file.

    Args:
        environ: variables, those of `.env` included. Where `NAME` itself is set, `NAME_FILE` is ignored.
        names: the variables that may be given as a file.

    Raises:
        EnvironmentFileError: a named file is missing, unreadable, empty, too large or not UTF-8.
    """
    secrets: dict[str, str] = {}
    for name in names:
        path = environ.get(f"{name}_FILE")
        if path and not environ.get(name):
            secrets[name] = _secret(f"{name}_FILE", Path(path))
    return secrets


def _secret(variable: str, path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_SECRET_BYTES + 1)
        value = raw.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise EnvironmentFileError(f"{variable}={path}: not UTF-8") from None
    except OSError as error:
        raise EnvironmentFileError(f"{variable}={path}: {error.strerror or error}") from None
    if len(raw) > MAX_SECRET_BYTES:
        raise EnvironmentFileError(f"{variable}={path}: larger than {MAX_SECRET_BYTES} bytes")
    if not value or "\0" in value:
        raise EnvironmentFileError(f"{variable}={path}: {'empty' if not value else 'not a text'}")
    return value


def load(environ: MutableMapping[str, str], checkout: Path) -> dict[str, str]:
    """Add the variables of `.env` to ``environ`` and return the secrets that `NAME_FILE` variables name.

    The secrets are not added: a process that is started later finds the same `NAME_FILE` and reads the file itself.

    Raises:
        EnvironmentFileError: see `missing_from` and `read_secrets`.
    """
    environ.update(missing_from(environ, checkout))
    return read_secrets(environ)

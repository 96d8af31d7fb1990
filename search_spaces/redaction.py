"""Takes secrets and terminal escapes out of texts. Every text that this project prints, logs or stores and that may quote an
exception or a command line goes through `clean`.

Secrets are the values of environment variables with names such as HF_TOKEN or MLFLOW_TRACKING_PASSWORD, values given to
`register_secret`, access tokens of well-known shapes, and the credentials and queries of addresses. Numbers, ids and names of a
sweep are never passed through here, since a secret may happen to be a common word.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from types import TracebackType
from urllib.parse import quote, quote_plus, unquote

HIDDEN = "***"
# Values of at least LONG characters are removed wherever they occur. Shorter ones, of at least SHORT characters, only as a whole
# word and if they mix kinds of characters: a password such as "test" also stands in every sentence about the test split.
LONG, SHORT = 8, 4

_SECRET_NAME = re.compile(r"TOKEN|KEY|SECRET|PASSW|PASSPHRASE|CREDENTIAL|_PWD$|_PASS$|_PAT$", re.IGNORECASE)
_PATH_NAME = re.compile(r"_(FILE|PATH|DIR|HOME|SOCK)$", re.IGNORECASE)

# Greedy, because an unquoted password may hold a slash or an @.
_USERINFO = re.compile(r"(?<=://)(?!/)[^\s'\"]*@")
# Settings of object storage, without which a recorded command would not find it again.
HARMLESS_QUERY = r"(?:&?(?:region|scheme|endpoint_override)=[\w.:-]+)+"
_QUERY = re.compile(rf"(://[^\s'\"?]*)\?(?!{HARMLESS_QUERY}(?:[\s'\"]|$))[^\s'\"]*")
_PASSWORD_IN_ADDRESS = re.compile(r"(?<=://)(?!/)[^\s'\":@]*:([^\s'\"]+)@")
_TOKEN = re.compile(
    r"\b(?:"
    r"hf_[A-Za-z0-9_-]{8,}|gh[pousr]_[A-Za-z0-9]{8,}|github_pat_\w{8,}|glpat-[\w-]{8,}|sk-[A-Za-z0-9_-]{8,}|xox[a-z]-[\w-]{8,}"
    r"|(?:AKIA|ASIA)[A-Z0-9]{8,}|AIza[\w-]{20,}|dapi[0-9a-f]{16,}|npm_\w{16,}|pypi-[\w-]{16,}"
    r"|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*)"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
    r"|(?<=Bearer )\S+|(?<=Basic )(?=\S*[a-z]\S*[A-Z])[A-Za-z0-9+/]{8,}={0,2}",
    re.DOTALL,
)
# What is assigned to a name such as password, PGPASSWORD, api_key or HF_TOKEN; names of special tokens (pad_token) are left.
_VALUE = r"(\"[^\"]+\"|'[^']+'|[^\s'\",;&)\]}]+)"
_ASSIGNED = re.compile(
    r"((?i:\b\w*(?:password|passwd|passphrase|pwd|secret|api[_-]?key|access[_-]?key|secret[_-]?key|private[_-]?key)"
    r"|\b(?:auth|access|refresh|api|id)_?token)['\"]?(?:\s*=\s*|:\s*)"
    r"|\b(?:[A-Z0-9_]*TOKEN|token)['\"]?=)" + _VALUE
)
_ASSIGNED_IN_ADDRESS = re.compile(r"(?i)\w*(?:passw|passphrase|passwd|pwd|secret|token|credential)\w*\s*=")

_TERMINAL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]PX^_].*?(?:\x07|\x1b\\|\Z)|\x1b[ -/]*[0-~]", re.DOTALL)
_KEPT = "\n\t\u200c\u200d"  # the last two join letters of Persian, Hindi and others, and parts of emoji

_registered: set[str] = set()


def register_secret(*values: str) -> None:
    """Treat these values as secrets from now on in this process, besides those of environment variables."""
    _registered.update(values)


def passwords_in(address: str) -> list[str]:
    """Return the passwords in the user part of the addresses that a text contains, as written and percent-decoded."""
    found = _PASSWORD_IN_ADDRESS.findall(address)
    return list(dict.fromkeys(text for password in found for text in (password, unquote(password))))


def holds_password(address: str) -> bool:
    """Return whether any part of the address, percent-encoded or not, holds a password or another secret."""
    for text in (address, unquote(address), unquote(unquote(address))):
        userinfo = _USERINFO.search(text)
        if (userinfo and ":" in userinfo[0]) or _ASSIGNED_IN_ADDRESS.search(text) or _TOKEN.search(text):
            return True
    return False


def redact(text: str) -> str:
    """Return the text without secrets, and its addresses without user names, passwords and queries."""
    for pattern in _patterns(frozenset(_registered | _from_environment())):
        text = pattern.sub(HIDDEN, text)
    text = _QUERY.sub(r"\1", _USERINFO.sub("", text))
    return _ASSIGNED.sub(rf"\1{HIDDEN}", _TOKEN.sub(HIDDEN, text))


def printable(text: str) -> str:
    """Return the text without terminal escape sequences; other control and formatting characters become "?".

    Line feeds and tabs stay.
    """
    text = _TERMINAL.sub("", text)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in _KEPT else "?" for c in text)


def clean(text: object) -> str:
    """Return a text that may be printed, logged or stored: without secrets and without control characters."""
    return redact(printable(str(text)))


def clean_line(text: object) -> str:
    """Return `clean` of the text on one line."""
    return " ".join(clean(text).split())


class CleanRecords(logging.Filter):
    """A filter for logging handlers that makes messages and tracebacks clean. It drops no record."""

    def filter(self, record: logging.LogRecord) -> bool:
        try:
            message = record.getMessage()
        except Exception:  # the arguments do not fit the message; logging itself reports that
            return True
        record.msg, record.args = clean(message), ()
        if record.exc_info and record.exc_info[0]:
            record.exc_text = clean("".join(traceback.format_exception(*record.exc_info)).rstrip())
            record.exc_info = None
        return True


@contextmanager
def without_secrets() -> Iterator[None]:
    """Replace an exception whose message holds a secret by a RuntimeError without it.

    For code that runs on other machines: what is secret there may be unknown where the message is recorded.
    """
    try:
        yield
    except Exception as error:
        if redact(str(error)) == str(error):
            raise
        raise RuntimeError(f"{type(error).__name__}: {redact(str(error))}") from None


def clean_tracebacks() -> None:
    """Print the tracebacks of uncaught exceptions of this process through `clean`."""

    def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        sys.stderr.write(clean("".join(traceback.format_exception(kind, error, trace))))

    def show_in_thread(hook: threading.ExceptHookArgs) -> None:
        if hook.exc_value is not None and not issubclass(hook.exc_type, SystemExit):
            show(hook.exc_type, hook.exc_value, hook.exc_traceback)

    sys.excepthook, threading.excepthook = show, show_in_thread


def _from_environment() -> set[str]:
    """Return the values of environment variables that are secrets by their name, and passwords of addresses in any of them."""
    found = set()
    for name, value in os.environ.items():
        if _SECRET_NAME.search(name) and not _PATH_NAME.search(name) and not _is_path(value):
            found.add(value)
        elif "://" in value:
            found.update(passwords_in(value))
    return found


def _is_path(value: str) -> bool:
    return value.startswith(("/", "~", "./", "../")) and "\0" not in value and os.path.exists(os.path.expanduser(value))


@lru_cache(maxsize=8)
def _patterns(values: frozenset[str]) -> tuple[re.Pattern[str], ...]:
    """Return the patterns of all spellings of these values: one for long values, one for short ones."""
    spellings = {text for value in values for text in _spellings(value)}
    long = sorted((text for text in spellings if len(text) >= LONG), key=len, reverse=True)
    short = sorted((text for text in spellings if SHORT <= len(text) < LONG and _is_mixed(text)), key=len, reverse=True)
    patterns = []
    if long:
        patterns.append(re.compile("|".join(map(re.escape, long))))
    if short:
        patterns.append(re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, short))})(?!\w)"))
    return tuple(patterns)


def _spellings(value: str) -> set[str]:
    """Return how exceptions may spell a secret: as it is, each of its lines, percent-encoded, and with escapes as in repr."""
    value = value.strip()
    lines = [line.strip() for line in value.splitlines()] if "\n" in value else []
    texts = {value, *lines}
    texts |= {quote(value, safe=""), quote(value), quote_plus(value), value.encode("unicode_escape").decode("ascii")}
    return {printable(text) for text in texts}


def _is_mixed(text: str) -> bool:
    """Return whether a text has letters and digits, or other characters: then it is no word and no number."""
    return not (text.isalpha() or text.isdecimal())

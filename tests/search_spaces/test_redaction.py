"""No text that is printed, logged or stored holds a secret or a terminal escape, and other texts stay as they are."""

import logging
import subprocess
import sys

import pytest

from search_spaces import redaction
from search_spaces.redaction import CleanRecords, clean, clean_line, printable, redact, without_secrets


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://u:p/ss@host/db", "postgresql://host/db"),
        ("postgresql://ann:p@ss@host/db", "postgresql://host/db"),
        ("postgresql://host/db?password=secret", "postgresql://host/db"),
        ("sqlite:////runs/mlflow.db?timeout=5", "sqlite:////runs/mlflow.db"),
        ("a@b without an address", "a@b without an address"),
        ("http://user:p@ss/w@host:5000/x", "http://host:5000/x"),
        ("cannot reach 'https://u:p@host' twice: http://host", "cannot reach 'https://host' twice: http://host"),
        ("sqlite:////home/a@b/mlflow.db", "sqlite:////home/a@b/mlflow.db"),
        ("http://host/x?token=abc rest", "http://host/x rest"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
        ("hf_abcdefghijk and use_cls_token=1", "*** and use_cls_token=1"),
    ],
)
def test_redact_takes_out_what_is_secret_and_leaves_the_rest(text, shown):
    assert redact(text) == shown


@pytest.mark.parametrize(
    "secret",
    [
        "hf_abcdefgh12345678",
        "ghp_abcdefgh12345678",
        "gho_abcdefgh12345678",
        "github_pat_11ABCDEFG0_abcdef",
        "glpat-abcdefgh-1234",
        "sk-abcdefgh12345678",
        "xoxb-1234567890-abcdef",
        "AKIAABCDEFGHIJKLMNOP",
        "AIzaSyA1234567890abcdefghijk",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\nabc=\n-----END RSA PRIVATE KEY-----",
    ],
)
def test_tokens_of_known_shapes_are_hidden_wherever_they_stand(secret):
    assert redact(f"before ({secret}) after") == "before (***) after"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Authorization: Basic dXNlcjpwYXNzMQ==", "Authorization: Basic ***"),
        ("Basic classification", "Basic classification"),
        ("host=h password=s3 dbname=d", "host=h password=*** dbname=d"),
        ("{'password': 'a b', 'user': 'u'}", "{'password': ***, 'user': 'u'}"),
        ("'s3://b/x?scheme=http&endpoint_override=h:9000'", "'s3://b/x?scheme=http&endpoint_override=h:9000'"),
        ("s3://b/x?region=eu-1&sig=abc", "s3://b/x"),
        ("PGPASSWORD=abc ./start", "PGPASSWORD=*** ./start"),
        ("AWS_SECRET_ACCESS_KEY=abc/x", "AWS_SECRET_ACCESS_KEY=***"),
        ("HF_TOKEN=x1", "HF_TOKEN=***"),
        ("api_key: abc", "api_key: ***"),
        ("pad_token=<pad> mask_token='[MASK]'", "pad_token=<pad> mask_token='[MASK]'"),
        ("token: expected a text; missing key 'secret_key'", "token: expected a text; missing key 'secret_key'"),
        ("KeyError: 'password'", "KeyError: 'password'"),
    ],
)
def test_what_is_assigned_to_a_secret_name_is_hidden(text, shown):
    assert redact(text) == shown


@pytest.mark.parametrize(
    "name",
    [
        "MLFLOW_TRACKING_TOKEN",
        "AWS_SECRET_ACCESS_KEY",
        "MY_API_KEY",
        "DB_PASSWORD",
        "mysql_passwd",
        "MYSQL_PWD",
        "GH_PAT",
    ],
)
def test_values_of_variables_with_secret_names_are_hidden(name, monkeypatch):
    monkeypatch.setenv(name, "tall/Ship+and star")
    assert redact("no tall/Ship+and star to steer by") == "no *** to steer by"
    assert redact("?q=tall%2FShip%2Band%20star or tall%2FShip%2Band+star") == "?q=*** or ***"


def test_a_secret_of_several_lines_is_hidden_line_by_line(monkeypatch):
    monkeypatch.setenv("SERVICE_KEY", "first-line-of-it\nsecond-line-of-it\n")
    assert redact("got 'first-line-of-it\\nsecond-line-of-it'") == "got '***'"
    assert redact("second-line-of-it") == "***"


@pytest.mark.parametrize(
    ("value", "text", "shown"),
    [
        ("1", "1 of 10 trials, 11 epochs", "1 of 10 trials, 11 epochs"),
        ("test", "the test split", "the test split"),
        ("2048", "2048 tokens", "2048 tokens"),
        ("hunt3r", "login as hunt3r failed", "login as *** failed"),
        ("hunt3r", "hunt3rs", "hunt3rs"),
        ("test", "MLFLOW_TRACKING_PASSWORD=test", "MLFLOW_TRACKING_PASSWORD=***"),
        ("", "nothing", "nothing"),
    ],
)
def test_short_values_are_hidden_only_where_they_can_be_no_word_and_no_number(value, text, shown, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", value)
    assert redact(text) == shown


def test_paths_and_other_variables_are_no_secrets(monkeypatch, tmp_path):
    for name in ("SSH_KEY_FILE", "RAY_AUTH_TOKEN_PATH", "SIGNING_KEY", "HOSTNAME"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    assert redact(f"{tmp_path}: false") == f"{tmp_path}: false"


def test_passwords_in_the_address_of_any_variable_are_hidden_on_their_own(monkeypatch):
    monkeypatch.setenv("DATABASE_URL", "postgresql://ann:p%40ss-w0rd@host/db")
    assert (
        redact("authentication of ann with p@ss-w0rd failed, p%40ss-w0rd")
        == "authentication of ann with *** failed, ***"
    )


def test_values_can_be_registered(monkeypatch):
    monkeypatch.setattr(redaction, "_registered", set())
    redaction.register_secret("a-token-of-ray")
    assert redact("with a-token-of-ray") == "with ***"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b]8;;http://x\x1b\\link", "link"),
        ("\x1b[2J\x1b[1;1Hcleared", "cleared"),
        ("a\rb\x00c\x9bd\u202ee", "a?b?c?d?e"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("가각 naïve 👩\u200d🔬", "가각 naïve 👩\u200d🔬"),
        ("\ud800", "?"),
    ],
)
def test_terminal_escapes_and_control_characters_become_harmless(text, shown):
    assert printable(text) == shown


def test_an_escape_inside_a_secret_does_not_save_it():
    assert clean("hf_abcdef\x1b[0mgh12345678") == "***"
    assert clean_line("a\nb  c") == "a b c"


def log_line(*call, **more):
    lines = []

    class Lines(logging.Handler):
        def emit(self, record):
            lines.append(self.format(record))

    handler = Lines()
    handler.addFilter(CleanRecords())
    logger = logging.Logger("made up")
    logger.addHandler(handler)
    logger.error(*call, **more)
    return lines[0]


def test_log_messages_arguments_and_tracebacks_are_clean(monkeypatch):
    monkeypatch.setenv("MY_SECRET", "CANARY-of-a-mine")
    assert log_line("%s: %s", "\x1b[31mlogin", ValueError("CANARY-of-a-mine")) == "login: ***"
    assert log_line("100 %") == "100 %"
    try:
        raise ValueError("CANARY-of-a-mine")
    except ValueError:
        text = log_line("it failed", exc_info=True)
    assert "ValueError: ***" in text
    assert "CANARY" not in text


def test_an_exception_with_a_secret_is_replaced_and_others_pass(monkeypatch):
    monkeypatch.setenv("MY_SECRET", "CANARY-of-a-mine")
    with pytest.raises(RuntimeError, match=r"^KeyError: '\*\*\*'$") as caught, without_secrets():
        raise KeyError("CANARY-of-a-mine")
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    with pytest.raises(KeyError, match="a name"), without_secrets():
        raise KeyError("a name")


@pytest.mark.parametrize("where", ["main", "thread"])
def test_uncaught_exceptions_are_printed_clean(where, monkeypatch):
    monkeypatch.setenv("MY_SECRET", "CANARY-of-a-mine")
    lines = [
        "import os, threading",
        "from search_spaces.redaction import clean_tracebacks",
        "clean_tracebacks()",
        "def fail(): raise ValueError(os.environ['MY_SECRET'])",
        "fail()" if where == "main" else "threading.Thread(target=fail).start()",
    ]
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=False)
    assert "ValueError: ***" in done.stderr
    assert "CANARY" not in done.stderr

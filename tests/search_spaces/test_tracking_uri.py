"""Addresses of tracking stores are taken or refused, and never shown with a secret."""

import pytest

from search_spaces.tracking_uri import check_recorded_uri, check_uri, redact


@pytest.mark.parametrize(
    "uri",
    [
        "sqlite:///mlflow.db",
        "sqlite:////abs/olute/a@b/mlflow.db",
        "http://127.0.0.1:5000",
        "https://mlflow.example.org/prefix/",
        "http://[::1]:5000",
        "postgresql+psycopg2://user@host/mlflow",
    ],
)
def test_addresses_that_mlflow_serves_are_returned_unchanged(uri):
    assert check_uri(uri) == check_recorded_uri(uri) == uri


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("", "sqlite:///"),
        ("./mlruns", "plain folders"),
        ("/srv/mlruns", "plain folders"),
        ("file:///srv/mlruns", "plain folders"),
        ("ftp://host/x", "one of sqlite, http, https"),
        ("sqlite://", "sqlite:///relative"),
        ("sqlite:///", "sqlite:///relative"),
        ("sqlite:///:memory:", "sqlite:///relative"),
        ("sqlite:mlflow.db", "sqlite:///FOLDER"),
        ("sqlite:/srv/x/mlflow.db", "sqlite:///FOLDER"),
        ("file:/srv/mlruns", "plain folders"),
        ("http://", "host"),
        ("http://host:99999", "port"),
        ("http://host:abc", "port"),
        ("http://host?token=hunter2", "MLFLOW_TRACKING_TOKEN"),
        ("http://user:hunter2@host", "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"),
        ("https://user:hun/ter2@host", "MLFLOW_TRACKING_PASSWORD"),
        ("postgresql://user:hunter2@host/db", "MLFLOW_TRACKING_PASSWORD"),
        ("postgresql://user:hun/ter2@host/db", "MLFLOW_TRACKING_PASSWORD"),
        ("mysql+pymysql://host/db?password=hunter2", "MLFLOW_TRACKING_PASSWORD"),
    ],
)
def test_other_addresses_are_refused_with_a_way_out_and_without_the_password(uri, message):
    with pytest.raises(ValueError, match=message) as caught:
        check_recorded_uri(uri)
    assert "hunter2" not in str(caught.value)
    assert "ter2" not in str(caught.value)


@pytest.mark.parametrize("uri", ["http://user:pw@host", "postgresql://user:p/w@host/db", "mysql://host/db?password=pw"])
def test_a_reader_who_records_no_address_may_give_credentials(uri):
    assert check_uri(uri) == uri


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

"""Addresses of tracking stores are taken or refused, and never shown with a secret."""

import pytest

from search_spaces.tracking_uri import check_recorded_uri, check_uri, sqlite_uri


@pytest.mark.parametrize(
    "uri",
    [
        "sqlite:///mlflow.db",
        "sqlite:////abs/olute/a@b/mlflow.db",
        "http://127.0.0.1:5000",
        "https://mlflow.example.org/prefix/",
        "http://[::1]:5000",
        "sqlite:////data/100% #1/mlflow.db",
        "sqlite:////data/mlflow.db?timeout=60",
        "postgresql+psycopg2://user@host/mlflow",
        "postgresql://user@host:5432/mlflow?sslmode=require&sslkey=/etc/client.key",
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
        ("http://user%3Ahunter2%40host", "MLFLOW_TRACKING_PASSWORD"),
        ("postgresql://user%3Ahunter2@host/db", "MLFLOW_TRACKING_PASSWORD"),
        ("mysql+pymysql://host/db?password=hunter2", "MLFLOW_TRACKING_PASSWORD"),
        ("mysql+pymysql://u@host/db?passwd=hunter2", "MLFLOW_TRACKING_PASSWORD"),
        ("mysql+pymysql://u@host/db?passw%6Frd=hunter2", "MLFLOW_TRACKING_PASSWORD"),
        ("postgresql://u@host/db?sslmode=require&sslpassword=hunter2", "MLFLOW_TRACKING_PASSWORD"),
        ("mssql+pyodbc://?odbc_connect=DRIVER%3D%7BODBC%7D%3BUID%3Du%3BPWD%3Dhunter2", "MLFLOW_TRACKING_PASSWORD"),
        ("postgresql://u@host/db;password=hunter2", "MLFLOW_TRACKING_PASSWORD"),
        ("sqlite:////data/why?/mlflow.db", "cannot hold a '\\?'"),
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


def test_the_address_of_a_database_is_made_of_any_path_without_a_question_mark(tmp_path):
    assert sqlite_uri(tmp_path / "100% #1" / "mlflow.db") == f"sqlite:///{tmp_path}/100% #1/mlflow.db"
    with pytest.raises(ValueError, match="cannot hold a '\\?'"):
        sqlite_uri(tmp_path / "why?" / "mlflow.db")

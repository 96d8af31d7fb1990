"""`doctor`: one line for each thing that a sweep needs, an exit code, and no secret."""

import shutil
import sqlite3
from importlib.util import find_spec

import pytest

from orchestrator import machine_checks
from orchestrator.__main__ import main
from orchestrator.machine_checks import Destinations, Finding


@pytest.fixture
def machine(tmp_path):
    return Destinations(out=tmp_path / "runs", tracking_uri=None)


def only(found: list[Finding]) -> Finding:
    (finding,) = found
    return finding


def test_a_version_outside_its_range_is_a_problem_with_the_command_that_mends_it(machine, monkeypatch):
    assert only(machine_checks.check_packages(machine)).level == "ok"
    real = machine_checks.metadata.version
    monkeypatch.setattr(machine_checks.metadata, "version", lambda name: "2.8.0" if name == "torch" else real(name))
    found = only(machine_checks.check_packages(machine))
    assert (found.level, found.advice) == ("problem", "pip install 'torch<2.14,>=2.9'")


@pytest.mark.parametrize(
    ("torch", "level", "phrase"),
    [
        ({"cuda": None}, "problem", "built for the CPU"),
        ({"cuda": "13.0", "available": False}, "problem", "finds none of 2; the driver is 535.1"),
        ({"cuda": "13.0", "capabilities": ["sm_70"], "built_for": ["sm_90"]}, "warning", "not built for sm_70"),
        ({"cuda": "13.0"}, "ok", "2 x H100, driver 535.1, torch 2.13 for CUDA 13.0"),
    ],
)
def test_a_gpu_that_torch_cannot_use_is_told_from_one_that_it_can(machine, monkeypatch, torch, level, phrase):
    usual = {
        "version": "2.13",
        "available": True,
        "names": ["H100"] * 2,
        "capabilities": ["sm_90"],
        "built_for": ["sm_90"],
    }

    class Answer:
        stdout = __import__("json").dumps({**usual, **torch})

    monkeypatch.setattr(machine_checks, "count_gpus", lambda: 2)
    monkeypatch.setattr(machine_checks.subprocess, "run", lambda *_, **__: Answer())
    monkeypatch.setattr(machine_checks, "_nvidia_smi", lambda field: {"driver_version": ["535.1"]}.get(field, []))
    found = only(machine_checks.check_gpus(machine))
    assert found.level == level
    assert phrase in found.text


def test_a_full_disk_and_a_folder_that_is_a_file_are_named(machine, tmp_path, monkeypatch):
    (tmp_path / "runs").write_text("")
    assert machine_checks.check_places(machine)[0].level == "problem"
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=2**30))
    found = machine_checks.check_places(Destinations(out=tmp_path, tracking_uri=None))[0]
    assert (found.level, found.advice) == ("warning", "give another folder with --out")
    assert machine_checks.check_limits(machine)[1].level == "ok"
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=64 * 2**20))
    assert "--shm-size" in machine_checks.check_limits(machine)[1].advice


def test_a_store_that_does_not_answer_is_a_problem_and_its_password_stays_hidden(machine, tmp_path, monkeypatch):
    assert only(machine_checks.check_store(machine)).level == "ok"
    for uri in ("http://127.0.0.1:9/", "http://user:hunter22secret@127.0.0.1:9/"):
        found = only(machine_checks.check_store(Destinations(out=tmp_path, tracking_uri=uri)))
        assert found.level == "problem"
        assert "hunter22secret" not in found.text + found.advice
    (tmp_path / "mlflow.db").write_text("no database")
    assert only(machine_checks.check_store(Destinations(out=tmp_path, tracking_uri=None))).level == "problem"
    (tmp_path / "mlflow.db").unlink()
    with sqlite3.connect(tmp_path / "mlflow.db") as store:
        store.execute("CREATE TABLE experiments (experiment_id INTEGER)")
    assert only(machine_checks.check_store(Destinations(out=tmp_path, tracking_uri=None))).level == "ok"


def test_the_hub_that_does_not_answer_is_a_warning(machine, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    assert only(machine_checks.check_hub(machine)).level == "warning"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert only(machine_checks.check_hub(machine)).level == "ok"


def test_storing_backbones_in_4_bits_is_tried_where_the_package_is_and_no_problem_where_not(machine, monkeypatch):
    if find_spec("bitsandbytes"):
        found = only(machine_checks.check_quantization(machine))
        assert (found.level, found.advice) == ("ok", "")
        assert "stores weights in 4 bits on the CPU" in found.text
    monkeypatch.setattr(machine_checks, "find_spec", lambda name: None)
    found = only(machine_checks.check_quantization(machine))
    assert found.level == "ok"
    assert "pip install 'peft-sweep[nf4]'" in found.text
    monkeypatch.setattr(machine_checks, "find_spec", lambda name: "there")
    monkeypatch.setattr(machine_checks, "NF4", "raise RuntimeError('no kernel')")
    found = only(machine_checks.check_quantization(machine))
    assert (found.level, found.text) == ("problem", "bitsandbytes cannot be used: RuntimeError: no kernel")


def test_only_a_problem_makes_the_exit_code_4(monkeypatch, capsys, tmp_path):
    def checks(*levels):
        return tuple(lambda _, level=level: [Finding(level, "disk", f"{level} it is", "mend it")] for level in levels)

    monkeypatch.setattr(machine_checks, "CHECKS", checks("ok", "warning"))
    assert main(["doctor", "--quick"]) == 0
    assert capsys.readouterr().out.splitlines()[1] == "warning  disk       warning it is; mend it"
    monkeypatch.setattr(machine_checks, "CHECKS", checks("problem", "ok"))
    assert main(["doctor", "--quick"]) == 4


@pytest.mark.slow
def test_ray_starts_answers_and_leaves_nothing(machine):
    assert only(machine_checks.start_ray(machine)).level == "ok"

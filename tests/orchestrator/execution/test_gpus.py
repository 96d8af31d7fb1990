"""GPUs are found by themselves where no number is given, and it is said; nvidia-smi and the cluster are replaced."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from orchestrator import exit_codes
from orchestrator.__main__ import main
from orchestrator.execution import gpus
from orchestrator.exit_codes import EnvironmentUnfit
from orchestrator.run_options import RunOptions

LISTED = "".join(
    f"GPU {i}: NVIDIA H100 80GB HBM3 (UUID: GPU-{i})\n  MIG 1g.10gb Device 0: (UUID: MIG-{i})\n" for i in range(3)
)


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """Puts a program nvidia-smi into PATH that prints the given text; torch counts as built with CUDA."""

    def install(text: str, code: int = 0) -> None:
        path = tmp_path / "bin" / "nvidia-smi"
        path.parent.mkdir()
        path.write_text(f"#!/bin/sh\ncat <<'END'\n{text}END\nexit {code}\n")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{path.parent}{os.pathsep}{os.environ['PATH']}")

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(gpus, "_torch_has_cuda", lambda: True)
    return install


@pytest.mark.parametrize(
    ("visible", "count", "sentence"),
    [
        (None, 3, "3 GPUs found: using all of them; --gpus 0 for the CPU"),
        ("0,2", 2, "2 GPUs found: using both; --gpus 0 for the CPU"),
        ("GPU-1", 1, "1 GPU found: using it; --gpus 0 for the CPU"),
        ("0,1,2,3,4", 3, "3 GPUs found: using all of them"),
        ("", 0, "no GPU found (CUDA_VISIBLE_DEVICES hides those of this machine): using"),
        ("-1", 0, "no GPU found (CUDA_VISIBLE_DEVICES hides"),
    ],
)
def test_the_gpus_that_the_driver_lists_and_cuda_may_see_are_used(nvidia_smi, monkeypatch, visible, count, sentence):
    nvidia_smi(LISTED)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = gpus.find_gpus(None)
    assert found[0] == count
    assert found[1].startswith(sentence)
    gpus.check_gpus(RunOptions(gpus=count))
    with pytest.raises(EnvironmentUnfit, match=rf"--gpus {count + 1}: this machine has {count}"):
        gpus.check_gpus(RunOptions(gpus=count + 1))


def test_of_a_range_as_many_are_used_as_this_machine_has_and_a_cluster_is_left_to_itself(nvidia_smi):
    nvidia_smi(LISTED)
    asked = RunOptions(gpus=8, least_gpus=2)
    gpus.check_gpus(asked)
    assert gpus.with_present_gpus(asked) == RunOptions(gpus=3)
    assert gpus.with_present_gpus(RunOptions(gpus=2, least_gpus=1)) == RunOptions(gpus=2)
    with pytest.raises(EnvironmentUnfit, match=r"--gpus 4\.\.8: this machine has 3"):
        gpus.check_gpus(RunOptions(gpus=8, least_gpus=4))
    on_cluster = RunOptions(gpus=8, least_gpus=4, address="h:1")
    gpus.check_gpus(on_cluster)
    assert gpus.with_present_gpus(on_cluster) == on_cluster


def test_a_driver_that_does_not_answer_lists_no_gpu(nvidia_smi):
    nvidia_smi("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n", code=9)
    assert gpus.present_gpus() == 0


def test_a_torch_without_cuda_uses_no_gpu_and_it_is_said(nvidia_smi, monkeypatch):
    nvidia_smi(LISTED)
    monkeypatch.setattr(gpus, "_torch_has_cuda", lambda: False)
    count, sentence = gpus.find_gpus(None)
    assert count == 0
    assert "3 GPUs found, but the installed torch is built without CUDA: using" in sentence


def test_whether_torch_has_cuda_is_read_without_importing_it():
    import torch

    assert gpus._torch_has_cuda() == (torch.version.cuda is not None)


def test_a_run_uses_what_is_found_and_says_so_unless_a_number_is_given(nvidia_smi, run, driver, monkeypatch, capsys):
    nvidia_smi(LISTED)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    asked = []
    driver.drive = lambda plan, options: asked.append((options.gpus, options.command)) or exit_codes.COMPLETE
    assert main(["run", "quickstart"]) == exit_codes.COMPLETE
    assert capsys.readouterr().err == "3 GPUs found: using all of them; --gpus 0 for the CPU\n"
    assert main(["run", "quickstart", "--gpus", "1"]) == exit_codes.COMPLETE
    assert capsys.readouterr().err == ""
    assert [number for number, _ in asked] == [3, 1]
    assert asked[0][1].endswith("run --space quickstart --gpus 3")
    assert run("--space", "quickstart") == (exit_codes.COMPLETE, "")
    assert asked[-1][0] == 0, "python -m orchestrator.run trains on the CPU unless told otherwise"


def test_a_plan_imports_neither_torch_nor_ray():
    script = (
        "import sys; from orchestrator.__main__ import main; code = main(['plan', 'quickstart']); "
        "assert not {'torch', 'ray', 'transformers'} & set(sys.modules), sys.modules; sys.exit(code)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "found" in done.stderr


@pytest.mark.parametrize(
    ("answer", "count", "sentence"),
    [
        ("noise\nGPUs 2\n", 2, "the cluster at h:1 has 2 GPUs: using both"),
        ("GPUs 0\n", 0, "has 0 GPUs: using its CPU cores"),
    ],
)
def test_the_gpus_of_a_cluster_are_those_that_it_reports(monkeypatch, answer, count, sentence):
    monkeypatch.setattr(gpus.subprocess, "run", lambda *words, **options: SimpleNamespace(stdout=answer, stderr=""))
    found = gpus.find_gpus("h:1")
    assert found[0] == count
    assert sentence in found[1]


def test_a_cluster_that_cannot_be_asked_is_an_unfit_environment(monkeypatch):
    errors = SimpleNamespace(stdout="", stderr="Traceback\nConnectionError: refused\n")
    monkeypatch.setattr(gpus.subprocess, "run", lambda *words, **options: errors)
    with pytest.raises(EnvironmentUnfit, match=r"cluster at h:1 cannot be joined: ConnectionError: refused"):
        gpus.find_gpus("h:1")


@pytest.mark.slow
def test_a_running_cluster_is_asked():
    """The cluster of a process of its own, with two logical GPUs."""
    script = (
        "import ray, sys; ray.init(address='local', num_cpus=1, num_gpus=2, include_dashboard=False, "
        "_temp_dir=sys.argv[1]); print(ray.get_runtime_context().gcs_address, flush=True); sys.stdin.read()"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    # Otherwise Ray makes a token, and a process without it cannot join the cluster.
    environment["RAY_AUTH_MODE"] = "disabled"
    # A short path, because those of sockets are limited to 107 bytes.
    folder = tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True)
    command = [sys.executable, "-c", script, folder.name]
    with (
        folder,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        ) as head,
    ):
        address = head.stdout.readline().strip()
        try:
            assert gpus.find_gpus(address)[0] == 2
        finally:
            head.stdin.close()

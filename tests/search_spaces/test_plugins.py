"""Methods, tasks, spaces and model families of another installed package, in a process that finds it on its path."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from search_spaces.records import Trial
from tests.fixtures.cli_process import finish, start
from tests.fixtures.encoders import write_tiny
from tests.fixtures.ledger_lines import read
from tests.fixtures.plugin_package import ENTRY_POINTS, write_plugin
from tests.fixtures.trials import make_trial

ROOT = Path(__file__).resolve().parents[2]


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "orchestrator.run", *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_what_a_package_offers_is_listed_and_planned_like_what_is_built_in(tmp_path):
    model = write_tiny(tmp_path / "model", "bert")
    write_plugin(tmp_path, model=str(model))
    listed = run(tmp_path, "--list")
    assert listed.returncode == 0, listed.stderr
    for line in (
        "output_scale",
        "Output scale (none)",
        "parity",
        "Parity: accuracy, package",
        "parity_space",
        "Parity by output",
    ):
        assert line in listed.stdout
    planned = run(tmp_path, "--space", "parity_space", "--plan")
    assert planned.returncode == 0, planned.stderr
    assert "output_scale" in planned.stdout


@pytest.mark.parametrize(
    ("entry_points", "told"),
    [
        (
            "[peft_sweep.methods]\nlora = other_methods.scale:OutputScale\n",
            ["the method 'lora'", "in peft-sweep itself"],
        ),
        ("[peft_sweep.tasks]\nrte = other_methods.parity:PARITY\n", ["the task 'rte'", "in peft-sweep itself"]),
        ("[peft_sweep.spaces]\nquickstart = other_methods.parity_space\n", ["the space 'quickstart'"]),
        ("[peft_sweep.families]\nbert = other_methods.family:BERT_LIKE\n", ["the model family 'bert'"]),
        (
            "[peft_sweep.methods]\nx = other_methods.scale:Missing\n",
            ["other_methods.scale:Missing is not usable", "Attribute"],
        ),
        ("[peft_sweep.methods]\nx = other_methods.parity:PARITY\n", ["must be a subclass of"]),
        ("[peft_sweep.tasks]\nx = other_methods.parity:PARITY\n", ["has the name 'parity'"]),
        ("[peft_sweep.families]\nx = other_methods.scale:OutputScale\n", ["must be a ModelFamily"]),
        ("[peft_sweep.spaces]\nx = other_methods.nowhere\n", ["there is no such Python file"]),
    ],
)
def test_a_name_that_is_taken_and_an_object_that_is_unfit_are_told_with_the_package(tmp_path, entry_points, told):
    done = run(write_plugin(tmp_path, entry_points), "--list", "spaces")
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    for text in ("error: package 'other-methods' 1.5 offers the", "pip uninstall other-methods", *told):
        assert text in line


def test_two_packages_with_one_name_are_told_with_both(tmp_path):
    write_plugin(tmp_path)
    write_plugin(tmp_path / "more", name="third-methods")
    path = f"{tmp_path}{os.pathsep}{tmp_path / 'more'}"
    done = run(Path(path.split(os.pathsep)[0]), "--list", "spaces")
    assert done.returncode == 0, done.stderr
    (tmp_path / "other_methods-1.5.dist-info" / "entry_points.txt").write_text(ENTRY_POINTS, encoding="utf-8")
    (tmp_path / "more" / "third_methods-1.5.dist-info").rename(tmp_path / "third_methods-1.5.dist-info")
    done = run(tmp_path, "--list", "spaces")
    assert done.returncode == 2
    assert "package 'third-methods' 1.5 offers" in done.stderr
    assert "from the package 'other-methods'" in done.stderr


CODE = """
import sys
from search_spaces.plugins import all_identities
from trainables.worker.worker_environment import environment
assert all_identities().items() <= environment().items()
print(*all_identities().items())
"""


def identity_in(folder: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}"}
    done = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, check=True)
    return done.stdout


def test_a_worker_with_other_code_of_the_package_is_told_apart(tmp_path):
    write_plugin(tmp_path)
    before = identity_in(tmp_path)
    assert before.startswith("('other-methods', '1.5+")
    assert identity_in(tmp_path) == before
    with (tmp_path / "other_methods" / "scale.py").open("a", encoding="utf-8") as file:
        file.write("\n# changed\n")
    assert identity_in(tmp_path) != before


def test_a_trial_of_this_project_keeps_its_id_and_one_of_a_package_has_its_own():
    trial = make_trial("lora")
    assert "plugin" not in trial.to_json()
    other = Trial.from_json({**trial.to_json(), "plugin": "other-methods 1.5+0123"})
    assert other.id != trial.id
    assert Trial.from_json(other.to_json()) == other


@pytest.mark.slow
def test_a_sweep_of_a_package_runs_names_it_and_is_not_continued_with_other_code(tmp_path, monkeypatch):
    model = write_tiny(tmp_path / "model", "bert")
    write_plugin(tmp_path, model=str(model))
    out = tmp_path / "runs"
    words = ["--space", "parity_space", "--gpus", "0", "--out", str(out), "--report", str(out / "report")]
    code, errors = finish(start(*words, cwd=tmp_path, path=tmp_path))
    assert code == 0, errors
    folder = next(out.glob("*/ledger.jsonl")).parent
    manifest = json.loads((folder / "sweep.json").read_text(encoding="utf-8"))
    version = manifest["plugins"]["other-methods"]
    assert manifest["versions"]["other-methods"] == version
    asked = [record["trial"] for record in read(folder) if record["event"] == "asked"]
    assert {trial["plugin"] for trial in asked} == {f"other-methods {version}"}
    assert "Output scale" in (out / "report" / "summary.md").read_text(encoding="utf-8")
    with (tmp_path / "other_methods" / "scale.py").open("a", encoding="utf-8") as file:
        file.write("\n# changed\n")
    code, errors = finish(start(*words, cwd=tmp_path, path=tmp_path))
    assert code == 2
    assert "package other-methods changed since this sweep began" in errors

"""What holds of the source as a whole: who imports whom, how long files are, what is never called."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("search_spaces", "trainables", "orchestrator", "reports")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
NAMES = [str(path.relative_to(ROOT)) for path in SOURCES]
MAX_LINES = 400
VAGUE = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "factory"}
# Reading what these wrote can run code.
UNSAFE = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
UNSAFE_CALLS = {"torch.load", "torch.save", "yaml.load", "eval", "exec"}
PRINTERS = {"orchestrator/run.py", "orchestrator/reproduce.py", "orchestrator/command_line.py", "reports/__main__.py"}
HEAVY = {"torch", "ray", "transformers", "datasets", "optuna", "mlflow", "pandas", "numpy"}
# Third-party names of the design that each belong to few files.
OWNERS = {
    "optuna": {"orchestrator/search/sampler.py", "orchestrator/search/study_storage.py"},
    "ray": {
        "orchestrator/execution/cluster.py",
        "orchestrator/execution/gpu_demand.py",
        "orchestrator/execution/tune_runner.py",
        "orchestrator/machine_checks.py",
        "trainables/worker/tune_trainable.py",
    },
    "mlflow": {
        "orchestrator/export/logged_model.py",
        "orchestrator/machine_checks.py",
        "orchestrator/tracking/mlflow_store.py",
        "reports/data/store.py",
    },
}


@pytest.fixture(params=NAMES)
def source(request) -> tuple[str, ast.Module]:
    return request.param, ast.parse((ROOT / request.param).read_text(encoding="utf-8"))


def imported(tree: ast.Module) -> set[str]:
    """Top-level packages that a file names anywhere in an import."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").partition(".")[0])
    return found


def calls(tree: ast.Module) -> list[tuple[str, ast.Call]]:
    return [(ast.unparse(node.func), node) for node in ast.walk(tree) if isinstance(node, ast.Call)]


def test_the_import_contract_is_kept():
    pytest.importorskip("importlinter", reason="the extra [dev] is not installed")
    # In a process of its own: the linter switches off every logger that exists when it starts.
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True, no_logo=True))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_all_packages_are_looked_at():
    assert {name.partition("/")[0] for name in NAMES} == set(PACKAGES)
    assert len(NAMES) > 50


def test_no_file_is_long(source):
    assert len((ROOT / source[0]).read_text(encoding="utf-8").splitlines()) <= MAX_LINES


def test_no_file_has_a_name_that_says_nothing(source):
    assert VAGUE.isdisjoint(Path(source[0]).stem.split("_"))


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith("__init__.py")])
def test_an_init_is_empty_or_holds_the_one_table(name):
    body = ast.parse((ROOT / name).read_text(encoding="utf-8")).body
    rest = [node for node in body if not isinstance(node, ast.Import | ast.ImportFrom)]
    if rest and isinstance(rest[0], ast.Expr) and isinstance(rest[0].value, ast.Constant):
        rest = rest[1:]
    assert len(rest) <= 1
    assert all(isinstance(node, ast.Assign | ast.AnnAssign) for node in rest)
    assert rest or not body


def test_nothing_is_read_or_written_that_runs_code_when_read(source):
    assert UNSAFE.isdisjoint(imported(source[1]))
    for called, node in calls(source[1]):
        assert called not in UNSAFE_CALLS, f"line {node.lineno}"
        for keyword in node.keywords:
            unsafe = keyword.arg in ("trust_remote_code", "allow_pickle")
            assert not unsafe or ast.unparse(keyword.value) == "False", f"line {node.lineno}"


def test_only_the_command_lines_print(source):
    printed = [node.lineno for called, node in calls(source[1]) if called == "print"]
    assert source[0] in PRINTERS or source[0].startswith("orchestrator/verbs/") or not printed


@pytest.mark.parametrize("package", OWNERS)
def test_a_third_party_package_stays_where_it_belongs(package):
    users = {name for name in NAMES if package in imported(ast.parse((ROOT / name).read_text(encoding="utf-8")))}
    assert users <= OWNERS[package]


def test_nothing_depends_on_where_it_was_written(source):
    text = (ROOT / source[0]).read_text(encoding="utf-8")
    assert not any(place in text for place in ("/home/", "/root/", "/Users/"))


LIGHT = [
    "search_spaces.loading",
    "trainables.methods",
    "trainables.tasks",
    "trainables.tasks.task_loading",
    "trainables.backbone.models",
    "orchestrator.planning.plan",
    "orchestrator.planning.preview",
    "orchestrator.__main__",
    "orchestrator.run",
    "orchestrator.planning.preflight",
]


@pytest.mark.parametrize("module", LIGHT)
def test_what_a_plan_needs_is_imported_without_anything_heavy(module):
    script = f"import sys, {module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert HEAVY.isdisjoint(done.stdout.split())

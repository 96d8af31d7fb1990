"""A cluster of nodes that share neither a folder nor code with the driver: equal results, lost nodes, nodes that join."""

import signal
import sys

import pytest

from orchestrator import exit_codes
from tests.fixtures.cli_process import ROOT, arguments, finish, launch, start, table, wait_for, write_project
from tests.fixtures.node_namespaces import lacking, opened

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(lacking()), reason=lacking() or "there can be nodes here")]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return write_project(tmp_path_factory.mktemp("project"), epochs=3, train=120)


@pytest.fixture(scope="module")
def on_one_machine(project, tmp_path_factory):
    out = tmp_path_factory.mktemp("one")
    code, errors = finish(start(*arguments(project, out), cwd=out))
    assert code == 0, errors
    return results(out)


@pytest.fixture
def nodes():
    with opened() as nodes:
        yield nodes


def other_code(folder):
    """A checkout in which nothing can be imported."""
    for package in ("trainables", "search_spaces", "orchestrator", "reports"):
        (folder / package).mkdir(parents=True)
        (folder / package / "__init__.py").write_text("raise ImportError('another checkout')")
    return folder


def driver_on(nodes, number, words, cwd):
    command = nodes.command(number, [sys.executable, "-m", "orchestrator.run", *words, "--address", nodes.address])
    return launch(command, cwd, {**nodes.environment, "PYTHONPATH": str(ROOT)})


def results(out):
    """Every trial of a sweep with its scores."""
    names = ("trial", "phase", "state", "epochs", "best_epoch", "best_score", "test.accuracy")
    return sorted(tuple(row[name] for name in names) for row in table(out, "trials", ()))


def test_nodes_without_the_folder_and_the_code_train_as_one_machine_does_even_if_one_is_lost(
    nodes, project, on_one_machine, tmp_path
):
    out = tmp_path / "many"
    out.mkdir()
    hidden = {out: None, ROOT: other_code(tmp_path / "checkout")}
    nodes.start(1, cores=0)
    nodes.start(2, cores=1, hidden=hidden)
    driver = driver_on(nodes, 1, arguments(project, out), tmp_path)
    wait_for(out, "progress", 8, driver)
    nodes.kill(2)
    nodes.start(3, cores=1, hidden=hidden)
    code, errors = finish(driver)
    assert code == 0, errors
    assert results(out) == on_one_machine


def test_a_node_that_cannot_train_is_named_and_the_others_train_all(nodes, project, on_one_machine, tmp_path):
    nodes.start(1, cores=0)
    nodes.start(2, cores=1, hidden={project.parent / "model": None})
    nodes.start(3, cores=1)
    code, errors = finish(driver_on(nodes, 1, arguments(project, tmp_path / "many"), tmp_path))
    assert code == 0, errors
    assert f"node {nodes.host(2)} is set aside: " in errors
    assert results(tmp_path / "many") == on_one_machine


def test_a_sweep_whose_driver_s_node_was_lost_goes_on_from_another_node(nodes, project, on_one_machine, tmp_path):
    out = tmp_path / "many"
    nodes.start(1, cores=1)
    nodes.start(2, cores=0)  # has the driver, and the actor through which it speaks with the workers
    nodes.start(3, cores=2)
    words = arguments(project, out)
    first = driver_on(nodes, 2, words, tmp_path)
    wait_for(out, "progress", 8, first)
    nodes.kill(2)
    assert first.wait(30) == -signal.SIGKILL
    code, errors = finish(driver_on(nodes, 1, words, tmp_path))
    assert code == 0, errors
    assert results(out) == on_one_machine


def test_a_lost_head_ends_the_driver_with_its_code_and_another_cluster_continues(
    nodes, project, on_one_machine, tmp_path
):
    out, kept = tmp_path / "many", tmp_path / "kept"
    words = arguments(project, out, "--checkpoints", f"file://{kept}")
    nodes.start(1, cores=1)
    driver = driver_on(nodes, 1, words, tmp_path)
    wait_for(out, "progress", 8, driver)
    nodes.kill(1, spared=[driver.pid])
    code, errors = finish(driver)
    assert code == exit_codes.CLUSTER_LOST, errors
    assert "the same command continues this sweep" in errors
    with opened() as fresh:
        fresh.start(1, cores=1)
        code, errors = finish(driver_on(fresh, 1, words, tmp_path))
    assert code == 0, errors
    assert results(out) == on_one_machine
    (sweep,) = kept.iterdir()
    assert len([path for path in sweep.iterdir() if path.is_dir()]) == 2, "the best final of each cell"
    assert not list(out.glob("*/checkpoints"))

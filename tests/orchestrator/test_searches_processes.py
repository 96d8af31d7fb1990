"""A whole sweep that searches every cell twice, on the real command line: killed, continued, reproduced and reported."""

import json

import pytest

from orchestrator import exit_codes, reproduce
from orchestrator.ledger import read_history
from tests.fixtures.cli_process import arguments, finish, ledger_lines, start, table, wait_for, write_project
from tests.orchestrator.test_processes import TIMES

pytestmark = pytest.mark.slow
FEW = ("--trials", "2")


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    space = write_project(tmp_path_factory.mktemp("project"), epochs=2, train=160)
    text = space.read_text(encoding="utf-8").replace("final_seeds=2", "final_seeds=2, searches=2")
    space.write_text(text, encoding="utf-8")
    return space


@pytest.fixture(scope="module")
def calm(space):
    code, errors = finish(start(*arguments(space, space.parent / "calm", *FEW), cwd=space.parent), 600)
    assert code == 0, errors
    return space.parent / "calm"


def folder_of(out):
    return next(out.glob("*/ledger.jsonl")).parent


def test_every_search_has_its_own_split_and_finals_and_the_report_counts_searches(calm):
    history = read_history(folder_of(calm))
    finals = [each.trial for each in history.trials.values() if each.trial.phase == "final"]
    assert len(history.winners) == 2 * 2
    assert sorted((t.cell.method, t.search, t.seed) for t in finals) == sorted(
        (method, search, 1000 * search + 1 + i) for method in ("full", "adapter") for search in (0, 1) for i in (0, 1)
    )
    assert len({trial.split for trial in finals}) == 2
    splits = {
        path.name: json.loads(path.read_text(encoding="utf-8")) for path in (folder_of(calm) / "splits").glob("*.json")
    }
    first, second = splits["markers.json"], splits["markers.search2.json"]
    assert first["test"] == second["test"]
    assert set(first["validation"]) != set(second["validation"])
    summary = (calm / "report" / "summary.md").read_text(encoding="utf-8")
    assert "Which differences are real over 2 searches per cell" in summary
    rows = table(calm, "results", ())
    assert all((row["n"], row["planned"]) == ("4", "4") for row in rows)


def test_killed_in_both_searches_it_ends_with_the_same_report(space, calm):
    out = space.parent / "killed"
    for event, number in (("ended", 3), ("winner", 3)):
        process = start(*arguments(space, out, *FEW), cwd=space.parent)
        wait_for(out, event, max(number, ledger_lines(out, event) + 1), process, timeout=300)
        process.kill()
        process.communicate()
    code, errors = finish(start(*arguments(space, out, *FEW), cwd=space.parent), 600)
    assert code == 0, errors
    for name in ("results", "winners", "budget", "trials"):
        ours, theirs = table(out, name, TIMES), table(calm, name, TIMES)
        assert sorted(map(json.dumps, ours)) == sorted(map(json.dumps, theirs)), name


def test_the_finals_of_both_searches_are_reproduced(calm, capsys):
    cell = next(str(key[0]) for key in read_history(folder_of(calm)).winners if key[0].method == "adapter")
    assert reproduce.main([str(folder_of(calm)), cell]) == exit_codes.COMPLETE
    lines = capsys.readouterr().out.splitlines()
    assert any("search 2: " in line for line in lines)
    trained = [line.split() for line in lines if line.split() and line.split()[0].isdigit()]
    assert len(trained) == 4
    assert all(row[2] == row[3] for row in trained)

"""What cannot be exported or predicted is refused: what, where, how to mend it, and nothing is written."""

import json
import shutil

import pytest

from orchestrator.exit_codes import EnvironmentUnfit
from orchestrator.ledger import Damaged
from orchestrator.verbs import export, predict
from tests.fixtures.encoders import write_tiny
from tests.fixtures.exported_sweep import write_sweep
from tests.orchestrator.export.test_export import call
from trainables.worker.file_system_store import FileSystemStore


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A sweep with two finals, and exports of its winner."""
    place = tmp_path_factory.mktemp("place")
    sweep = write_sweep(place, "lora", str(write_tiny(place / "model", "bert")), seeds=2)
    call(export, sweep.folder, sweep.cell, "--to", place / "export")
    return place, sweep


def test_a_sweep_that_is_not_there(place, tmp_path, monkeypatch):
    folder, sweep = place
    monkeypatch.chdir(folder)
    name = sweep.folder.name
    with pytest.raises(ValueError, match=f"moods-x: there is no sweep.*did you mean '{name}'"):
        call(export, "moods-x", sweep.cell, "--to", tmp_path / "export")
    assert not (tmp_path / "export").exists()
    assert call(export, name, sweep.cell, "--to", tmp_path / "export") == 0


@pytest.mark.parametrize("cell", ["lorra", "model/mods/lora"])
def test_a_cell_that_is_not_there(place, tmp_path, cell):
    _, sweep = place
    wrong = sweep.cell.rpartition("/")[0] + "/" + cell if cell == "lorra" else sweep.cell.replace("moods", "mods")
    with pytest.raises(ValueError, match=r"is not in .*: did you mean '.*/moods/lora'"):
        call(export, sweep.folder, wrong, "--to", tmp_path / "export")


def test_a_folder_that_is_not_empty(place, tmp_path):
    _, sweep = place
    (tmp_path / "file").touch()
    for to, reason in ((tmp_path, "not empty"), (tmp_path / "file", "not empty"), (tmp_path / "a" / "b", "no folder")):
        with pytest.raises(ValueError, match=f"--to .*{reason}"):
            call(export, sweep.folder, sweep.cell, "--to", to)
    (tmp_path / "empty").mkdir()
    assert call(export, sweep.folder, sweep.cell, "--to", tmp_path / "empty") == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file"]


def test_a_seed_that_was_not_trained_and_a_cell_without_finals(place, tmp_path):
    _, sweep = place
    with pytest.raises(ValueError, match="no finished final with seed 7; seeds: 2, 1"):
        call(export, sweep.folder, sweep.cell, "--to", tmp_path / "export", "--seed", 7)
    young = tmp_path / "young"
    young.mkdir()
    lines = (sweep.folder / "ledger.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (young / "ledger.jsonl").write_text("".join(lines[:-2]), "utf-8")
    with pytest.raises(ValueError, match="has no finished final yet; continue the sweep with: python -m orchestrator"):
        call(export, young, sweep.cell, "--to", tmp_path / "export")


def test_a_final_that_was_not_kept_is_named_and_others_are_offered(place, tmp_path):
    _, sweep = place
    runs = tmp_path / "runs"
    shutil.copytree(sweep.folder.parent, runs)
    copy = runs / sweep.folder.name
    shutil.rmtree(copy / "checkpoints" / sweep.finals[1].id)
    with pytest.raises(ValueError, match=r"with seed 2, .* was not kept \(--keep.*--retrain.*--seed 1"):
        call(export, copy, sweep.cell, "--to", tmp_path / "export")
    # As if the final had been taken from another sweep in the same folder.
    other = runs / "other" / "checkpoints"
    shutil.copytree(sweep.folder / "checkpoints" / sweep.finals[1].id, other / sweep.finals[1].id)
    assert call(export, copy, sweep.cell, "--to", tmp_path / "export") == 0
    assert not list(tmp_path.glob(".export*"))


def test_a_final_that_was_kept_elsewhere_is_found_there(place, tmp_path):
    _, sweep = place
    runs, kept = tmp_path / "runs", tmp_path / "kept"
    shutil.copytree(sweep.folder.parent, runs)
    copy = runs / sweep.folder.name
    for final in sweep.finals:
        FileSystemStore(str(kept), "s").store(final.id, copy / "checkpoints" / final.id)
    shutil.rmtree(copy / "checkpoints")
    (copy / "sweep.json").write_text(json.dumps({"sweep": "s", "checkpoints": str(kept)}))
    assert call(export, copy, sweep.cell, "--to", tmp_path / "export") == 0
    shutil.rmtree(kept / "s" / sweep.finals[1].id)
    with pytest.raises(ValueError, match=r"with seed 2, .* was not kept .*--seed 1"):
        call(export, copy, sweep.cell, "--to", tmp_path / "export2")
    (copy / "sweep.json").write_text(json.dumps({"sweep": "s", "checkpoints": "away://bucket"}))
    with pytest.raises(EnvironmentUnfit, match=r"away://bucket: cannot be read .*--retrain"):
        call(export, copy, sweep.cell, "--to", tmp_path / "export2")


def test_a_damaged_checkpoint_and_one_of_another_final(place, tmp_path):
    _, sweep = place
    runs = tmp_path / "runs"
    shutil.copytree(sweep.folder.parent, runs)
    copy = runs / sweep.folder.name
    file = copy / "checkpoints" / sweep.finals[1].id / "state.safetensors"
    good = file.read_bytes()
    file.write_bytes(good[:-4] + b"\0\0\0\1")
    with pytest.raises(Damaged, match="the checkpoint of the final is damaged"):
        call(export, copy, sweep.cell, "--to", tmp_path / "export")
    file.write_bytes(good)
    name = f"{sweep.finals[1].id}.json"
    shutil.copy(copy / "predictions" / f"{sweep.finals[0].id}.json", copy / "predictions" / name)
    with pytest.raises(Damaged, match="does not predict what the final"):
        call(export, copy, sweep.cell, "--to", tmp_path / "export")
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


WRONG_FILES = {
    "no.csv": (None, "there is no file"),
    "wrong.xlsx": ("note\nw1\n", "name must end in"),
    "empty.csv": ("", "no header"),
    "header.csv": ("note\n", "has no examples"),
    "other.csv": ("text\nw1\n", "column 'note' is not in the header: 'text'.*; here: --text, --text-pair, --header"),
    "blank.csv": ("note,x\nw1,1\n,2\n", "row 2, column 'note': is empty; fill or remove the row$"),
    "number.jsonl": ('{"note": 3}\n', "is 3, not a text"),
}


@pytest.mark.parametrize("name", WRONG_FILES)
def test_files_that_cannot_be_predicted(place, tmp_path, name):
    folder, _ = place
    content, message = WRONG_FILES[name]
    if content is not None:
        (tmp_path / name).write_text(content, "utf-8")
    with pytest.raises(ValueError, match=message):
        call(predict, folder / "export", tmp_path / name, "--to", tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


def test_a_place_that_cannot_be_written_is_named_before_the_model_is_loaded(place, tmp_path, monkeypatch):
    folder, _ = place
    (tmp_path / "new.csv").write_text("note\nw1\n", "utf-8")
    monkeypatch.setattr("orchestrator.export.prediction.Predictor", None)
    with pytest.raises(EnvironmentUnfit, match=r"--to /proc/x\.csv: cannot be written .*; give another place"):
        call(predict, folder / "export", tmp_path / "new.csv", "--to", "/proc/x.csv")


def test_columns_of_other_names_and_formats(place, tmp_path, capsys):
    folder, _ = place
    (tmp_path / "new.csv").write_text('id,text\n1,"w3, w4"\n2,w9\n', "utf-8")
    (tmp_path / "new.jsonl").write_text('{"note": "w3, w4"}\n{"note": "w9"}\n', "utf-8")
    (tmp_path / "new.tsv").write_text("w3, w4\nw9\n", "utf-8")
    shown = []
    for words in (("new.csv", "--text", "text"), ("new.jsonl",), ("new.tsv", "--header", "note")):
        assert call(predict, folder / "export", tmp_path / words[0], *words[1:]) == 0
        shown.append(capsys.readouterr().out)
    assert shown[0].startswith('label,probability_angry,probability_calm,"probability_neither, nor"\n')
    assert len(shown[0].splitlines()) == 3
    assert shown[0] == shown[1] == shown[2]


def test_folders_that_are_no_exports_or_damaged(place, tmp_path):
    folder, _ = place
    new = folder / "test.csv"
    for wrong, message in ((tmp_path, "has no export.json"), (tmp_path / "x", "is no folder")):
        with pytest.raises(ValueError, match=message):
            call(predict, wrong, new)
    for file, change in (
        ("adapter_model.safetensors", lambda data: data[:-9]),
        ("adapter_model.safetensors", lambda data: data[:-1] + bytes([data[-1] ^ 1])),
        ("export.json", lambda data: data[:-9]),
        ("export.json", lambda data: data.replace(b'"columns"', b'"rows"')),
    ):
        copy = tmp_path / "copy"
        shutil.copytree(folder / "export", copy)
        (copy / file).write_bytes(change((copy / file).read_bytes()))
        with pytest.raises(Damaged, match="export the model again"):
            call(predict, copy, new)
        shutil.rmtree(copy)


def test_another_pretrained_model_is_refused_and_a_moved_one_is_found(place, tmp_path, capsys):
    folder, _ = place
    other = write_tiny(tmp_path / "other", "bert", seed=1)
    with pytest.raises(EnvironmentUnfit, match="has other files"):
        call(predict, folder / "export", folder / "test.csv", "--base", other)
    shutil.copytree(folder / "model", tmp_path / "moved")
    assert call(predict, folder / "export", folder / "test.csv", "--base", tmp_path / "moved") == 0
    assert len(capsys.readouterr().out.splitlines()) == 61

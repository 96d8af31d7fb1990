"""Finds the final of a cell that is exported, and its checkpoint.

The best final is that with the best validation score; the test score has no say. A final whose result was taken from another
sweep in the same output folder has its checkpoint there. Checkpoints are in the folder of their sweep, or at its --checkpoints.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from torch import Tensor

from orchestrator import reproduce
from orchestrator.exit_codes import EnvironmentUnfit
from orchestrator.ledger import LEDGER, Damaged
from orchestrator.reproduce import Final, Record
from search_spaces.loading import nearest
from search_spaces.records import Outcome, Trial
from trainables.worker import checkpoint
from trainables.worker.checkpoint_store import NotStored
from trainables.worker.file_system_store import FileSystemStore, open_store
from trainables.worker.worker_environment import MANIFEST

# Where a sweep is looked for if it is given by the name of its folder alone: the default of --out.
OUT = Path("runs")


@dataclass(frozen=True, kw_only=True)
class KeptFinal:
    """A finished final of the cell in `record`: its parameters after the best epoch, `values` [P], and its outcome.

    `retrained`: it was trained once more for the export, because its checkpoint was not kept.
    """

    record: Record
    final: Final
    values: Tensor
    retrained: bool = False

    @property
    def outcome(self) -> Outcome:
        assert self.final.outcome is not None
        return self.final.outcome


def find_sweep(name: str) -> Path:
    """Return the folder of a sweep, given by its path or by its name in the folder `runs`. Raises ValueError if there is none."""
    for folder in (Path(os.path.expanduser(name)), OUT / name):
        if (folder / LEDGER).is_file():
            return folder
    near = {path.parent.name for place in (Path(name).parent, OUT) for path in place.glob(f"*/{LEDGER}")}
    hint = nearest(Path(name).name, near) if near else "no sweep is there or in runs"
    raise ValueError(f"{name}: there is no sweep; give its folder, OUT/SWEEP, with its {LEDGER}: {hint}")


def finished_finals(record: Record) -> list[Final]:
    """Return the cell's finals that ended with a test score, the best one on the validation split first.

    Raises ValueError if there is none.
    """
    done = [f for f in record.finals if f.outcome and f.outcome.state == "DONE" and f.outcome.metrics]
    if not done:
        raise ValueError(
            f"cell '{record.cell}' of {record.folder} has no finished final yet; continue the sweep with: "
            f"{record.manifest['command']}"
        )
    return sorted(done, key=lambda final: -_score(final))


def load(record: Record, seed: int | None, retrain: bool) -> KeptFinal:
    """Return the best finished final of the cell, or that with `seed`, with its parameters.

    `retrain`: train it once more if its checkpoint was not kept. Raises ValueError if there is no such final, or no checkpoint;
    Damaged if the checkpoint cannot be read, EnvironmentUnfit if the place where it may be cannot.
    """
    finals = finished_finals(record)
    if seed is not None:
        seeds = [str(final.trial.seed) for final in finals]
        finals = [final for final in finals if final.trial.seed == seed]
        if not finals:
            raise ValueError(f"cell '{record.cell}' has no finished final with seed {seed}; seeds: {', '.join(seeds)}")
    best = [final for final in finals if _score(final) == _score(finals[0])]
    try:
        for final in best:
            saved = _saved(record, final.trial)
            if saved is not None:
                return KeptFinal(record=record, final=final, values=saved)
    except NotStored as error:
        if not retrain:
            raise EnvironmentUnfit(f"{error}; mend that, or train the final once more with --retrain") from None
    if not retrain:
        raise ValueError(_not_kept(record, best[0]))
    return KeptFinal(record=record, final=best[0], values=_trained_again(record, best[0].trial), retrained=True)


def _score(final: Final) -> float:
    assert final.outcome is not None
    return final.outcome.best_score


def _saved(record: Record, trial: Trial) -> Tensor | None:
    """Return the parameters of a final's best epoch [P] from its checkpoint; None if that was not kept.

    Raises Damaged if it cannot be read.
    """
    folder = _folder(record, trial)
    if folder:
        return _values(folder, trial)
    for store in _stores(record):
        with TemporaryDirectory() as scratch:
            store.fetch(trial.id, Path(scratch) / trial.id)
            saved = checkpoint.read(Path(scratch) / trial.id, trial)
        if saved and saved.done:
            return saved.tensors["best"]
    return None


def _sweeps(record: Record) -> list[Path]:
    """Return the folders of the final's sweep and of those beside it, from which it may have taken results."""
    return [record.folder, *sorted(path for path in record.folder.resolve().parent.iterdir() if path.is_dir())]


def _folder(record: Record, trial: Trial) -> Path | None:
    """Return the folder of a final's checkpoint in a sweep's folder; None if it is in none."""
    found = (sweep / "checkpoints" / trial.id for sweep in _sweeps(record))
    return next((folder for folder in found if folder.is_dir()), None)


def _stores(record: Record) -> Iterator[FileSystemStore]:
    """Return the stores of the sweeps that keep their checkpoints elsewhere."""
    for sweep in _sweeps(record):
        if (sweep / MANIFEST).is_file():
            manifest = json.loads((sweep / MANIFEST).read_text(encoding="utf-8"))
            if manifest.get("checkpoints"):
                yield open_store(manifest["checkpoints"], manifest["sweep"])


def _not_kept(record: Record, final: Final) -> str:
    others = [str(f.trial.seed) for f in finished_finals(record) if _is_kept(record, f.trial)]
    hint = f", or export one that was kept: --seed {' or '.join(others)}" if others else ""
    return (
        f"the model of '{record.cell}' with seed {final.trial.seed}, the best on the validation split, was not kept (--keep "
        f"decides that); train it once more with --retrain{hint}"
    )


def _is_kept(record: Record, trial: Trial) -> bool:
    return bool(_folder(record, trial)) or any(trial.id in store.trial_ids() for store in _stores(record))


def _values(folder: Path, trial: Trial) -> Tensor:
    """Return the parameters of the trial's best epoch [P] from its checkpoint. Raises Damaged if that cannot be read."""
    saved = checkpoint.read(folder, trial)
    if saved is None or not saved.done:
        raise Damaged(
            f"{folder}: the checkpoint of the final is damaged; put a backup of it back, or remove the folder and export with "
            "--retrain"
        )
    return saved.tensors["best"]


def _trained_again(record: Record, trial: Trial) -> Tensor:
    with TemporaryDirectory() as folder:
        reproduce.train(record, trial, Path(folder))
        # The ablation map, which is not computed again, is a part of a trial's id.
        again = replace(trial, ablated=False)
        return _values(Path(folder) / again.id, again)

"""Names of cells and trials in log lines and on the progress display: cell and configuration instead of an id."""

from __future__ import annotations

from search_spaces.language import Cell, Scalar, Space
from search_spaces.records import SearchKey, Trial


class TrialNames:
    """Names within one space. What is the same for all cells is left out: a single model, a single search, fixed settings."""

    def __init__(self, space: Space):
        self.space = space.name
        self.models, self.tasks = len(space.models), len(space.tasks)
        self.searches = space.budget.searches
        self._search_seeds = space.budget.search_seeds
        # By label of a method's row: names of the searched hyperparameters, the learning rate first; without any, the latter.
        self._searched = {
            entry.label: sorted(space.dimensions_of(entry) or ("lr",), key=lambda name: (name != "lr", name))
            for entry in space.methods
        }

    def cell(self, cell: Cell) -> str:
        """Return the cell as "task/method", with the model before it if the space has several."""
        return str(cell) if self.models > 1 else f"{cell.task}/{cell.method}"

    def search(self, key: SearchKey) -> str:
        """Return the cell and, if cells have several searches, the number of this one, counted from 1."""
        cell, number = key
        return f"{self.cell(cell)}, search {number + 1}" if self.searches > 1 else self.cell(cell)

    def configuration(self, trial: Trial) -> str:
        """Return the searched hyperparameters, such as "lr=1e-3 r=16", after the seed of a final or of one of several seeds."""
        values = trial.hyperparameters
        shown = [f"{name}={value_text(values[name])}" for name in self._searched[trial.cell.method] if name in values]
        seeded = trial.phase == "final" or self._search_seeds > 1
        return " ".join([f"seed={trial.seed}"] * seeded + shown)

    def trial(self, trial: Trial) -> str:
        """Return cell and configuration, such as "agreement/adapter lr=1e-3 r=16" or "agreement/adapter final seed=1 lr=1e-3"."""
        final = " final" if trial.phase == "final" else ""
        return f"{self.search(trial.search_key)}{final} {self.configuration(trial)}"


def value_text(value: Scalar) -> str:
    """Return a hyperparameter's value with three significant digits, small numbers as 1e-3 or 3.16e-4."""
    if not isinstance(value, float):
        return str(value)
    if value and abs(value) < 0.01:
        digits, _, exponent = f"{value:.2e}".partition("e")
        return f"{float(digits):g}e{int(exponent)}"
    return f"{value:.3g}"

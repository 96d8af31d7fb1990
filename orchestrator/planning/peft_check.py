"""Checks the rows of peft in a plan, and counts what they train, in a process that loads it (`peft_training/measure.py`)."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.execution.cluster import environment
from orchestrator.exit_codes import EnvironmentUnfit
from search_spaces.language import Scalar, Space
from search_spaces.peft_rows import PEFT
from trainables.backbone import models
from trainables.methods.peft_row import installed_peft

# Seconds after which the check is given up: it takes about ten.
LIMIT = 300


@dataclass(frozen=True, kw_only=True)
class TrainedRange:
    """The fewest and the most parameters that a row of peft trains on a model, over its settings and the tasks' heads."""

    least: int
    most: int


def check_installed(space: Space) -> None:
    """Raise EnvironmentUnfit if the space has rows of peft and the library is not installed."""
    rows = [entry.label for entry in space.methods if entry.name == PEFT]
    if rows and installed_peft() is None:
        raise EnvironmentUnfit(
            f"the rows {', '.join(rows)} need the library peft, which is not installed: pip install 'peft-sweep[peft]'"
        )


def check_peft_rows(
    space: Space, settings: Mapping[str, list[dict[str, Scalar]]], heads: list[tuple[int, bool]]
) -> dict[tuple[str, str], TrainedRange]:
    """Return what each row of peft trains, by (model, label); pairs for which it is not known are missing.

    `settings`: by label of the row, those that are checked. `heads`: (number of outputs, whether it is a regression) of the
    tasks. Raises ValueError for a configuration that peft or a model refuses, EnvironmentUnfit if the check itself fails.
    """
    pairs = [(model, label, each) for model in space.models for label in settings for each in settings[label]]
    if not pairs:
        return {}
    folders = {name: models.local(name) for name in space.models}
    answers = _run(
        [
            {"settings": each, "model": str(folders[model]) if folders[model] else None, "outputs": heads}
            for model, _, each in pairs
        ]
    )
    numbers: dict[tuple[str, str], list[int]] = {}
    for (model, label, _), answer in zip(pairs, answers, strict=True):
        if "error" in answer:
            raise ValueError(f"method {label!r} on {model}: {answer['error']}")
        trained = answer["trained"]
        assert isinstance(trained, list)
        numbers.setdefault((model, label), []).extend(trained)
    return {pair: TrainedRange(least=min(each), most=max(each)) for pair, each in numbers.items() if each}


def _run(jobs: list[dict[str, object]]) -> list[dict[str, object]]:
    """Return the answer to each job. Raises EnvironmentUnfit if there are fewer."""
    command = [sys.executable, "-m", "trainables.peft_training.measure"]
    variables = {**environment(), "CUDA_VISIBLE_DEVICES": ""}
    try:
        done = subprocess.run(
            command, input=json.dumps(jobs), capture_output=True, text=True, env=variables, timeout=LIMIT, check=False
        )
    except subprocess.TimeoutExpired:
        raise EnvironmentUnfit(f"the check of the rows of peft took more than {LIMIT} s") from None
    answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if len(answers) < len(jobs):
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise EnvironmentUnfit(f"the rows of peft cannot be checked, {' '.join(command)} failed: {last[:300]}")
    return answers

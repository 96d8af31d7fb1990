"""C8: one sweep end to end, three ways to give its trials a process: start, compute and control apart.

    python -m benchmarks.sweep_split [--rounds 3] [--json FILE]

The same trials and the same ASHA on a tiny encoder: trials together on one worker per core; one process per core, kept from trial
to trial (`reuse_actors`); one process per trial. All is read from the ledger. Start: from 'started' to the first epoch's report,
without the epoch. Compute: the epochs. Control: what is left until the trial's end is on record. A resident's epochs contain its
the others' steps, so that a sum over trials says little for workers: compare the wall time.
"""

from __future__ import annotations

import csv
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from benchmarks import measure
from search_spaces.events import EpochReported, LedgerRecord, TrialEnded, TrialStarted

Arm = Literal["worker", "kept process", "process per trial"]
ARMS: dict[Arm, int] = {"worker": 8, "kept process": 1, "process per trial": 1}

SPACE = """
from search_spaces.language import Budget, FileTask, Recipe, Space, choice, log_uniform, method

space = Space(
    models=({model!r},),
    tasks=(FileTask(name="markers", train="train.csv", test="test.csv", text="text", label="label"),),
    methods=(method("adapter", r=choice(2, 4, 8)), method("madapter", r=choice(2, 4))),
    search={{"lr": log_uniform(1e-4, 1e-2), "batch_size": choice(8, 16)}},
    recipe=Recipe(epochs={epochs}, patience=9),
    budget=Budget({budget}),
)
"""


def write_project(folder: Path, trials: int) -> Path:
    """A tiny encoder with its tokenizer, a task in CSV files and the space; returns the space's file."""
    write_encoder(folder / "model")
    draw = random.Random(0)
    for name, number in (("train", 320), ("test", 60)):
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "label"])
            for i in range(number):
                words = [f"w{i % 2}", *(f"w{draw.randrange(20, 195)}" for _ in range(draw.randrange(3, 9)))]
                writer.writerow([" ".join(words), "yes" if i % 2 else "no"])
    space = folder / "split.py"
    budget = f"trials={trials}, final_seeds=1, in_flight=8, grace=1"
    space.write_text(SPACE.format(model=str(folder / "model"), epochs=4, budget=budget), encoding="utf-8")
    return space


def write_encoder(folder: Path) -> None:
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    from benchmarks.arms import Encoder

    Encoder(layers=2, width=32, heads=4, vocabulary=200).save(folder)
    words = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]", *(f"w{i}" for i in range(195))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    special = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)


def sweep(arm: Arm, space: Path) -> dict[str, float]:
    """Run the command line in a process of its own; seconds, from its ledger."""
    with tempfile.TemporaryDirectory() as out:
        words = ["--space", str(space), "--gpus", "0", "--out", out, "--report", f"{out}/report"]
        words += ["--trials-per-gpu", str(ARMS[arm])]
        command = [sys.executable, "-m", "benchmarks.sweep_split", "--arm", arm, "--words", json.dumps(words)]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent), "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(command, env=environment, cwd=space.parent, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        from orchestrator.ledger import read

        return split(read(next(Path(out).glob("*/ledger.jsonl")).parent))


def split(records: list[LedgerRecord]) -> dict[str, float]:
    """Mean seconds per trial of start, compute and control, and of the whole sweep per trial."""
    started = {r.event.id: r.time for r in records if isinstance(r.event, TrialStarted)}
    ended = {r.event.id: r.time for r in records if isinstance(r.event, TrialEnded)}
    first, compute = {}, dict.fromkeys(ended, 0.0)
    for r in records:
        if isinstance(r.event, EpochReported):
            seconds = r.event.progress.seconds
            compute[r.event.id] += seconds
            first.setdefault(r.event.id, r.time - seconds)
    number = len(ended)
    start = sum(first[i] - started[i] for i in ended) / number
    control = sum(ended[i] - first[i] - compute[i] for i in ended) / number
    wall = (max(ended.values()) - min(started.values())) / number
    return {"start": start, "compute": sum(compute.values()) / number, "control": control, "wall": wall}


def run_here(arm: Arm, words: list[str]) -> int:
    """The sweep's own command line; for one process per trial Tune is told to keep none."""
    from orchestrator import driver
    from orchestrator.run import main

    if arm == "process per trial":
        driver.cluster = _keeping_nothing(driver.cluster)  # type: ignore[assignment]
    return main(words)


def _keeping_nothing(real: Any) -> Any:
    @contextmanager
    def cluster(*arguments: Any) -> Iterator[Any]:
        with real(*arguments) as made:
            # Not before: Ray reads its switches when it is imported.
            from ray import tune

            original = tune.TuneConfig
            tune.TuneConfig = lambda **options: original(**{**options, "reuse_actors": False})
            yield made

    return cluster


def main() -> None:
    parser = measure.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=24, help="of each of two cells")
    parser.add_argument("--arm", choices=list(ARMS), help="run one sweep in this process (internal)")
    parser.add_argument("--words", type=json.loads, default=[])
    arguments = parser.parse_args()
    if arguments.arm:
        sys.exit(run_here(arguments.arm, arguments.words))
    found: dict[str, list[dict[str, float]]] = {arm: [] for arm in ARMS}
    with tempfile.TemporaryDirectory() as folder:
        space = write_project(Path(folder), arguments.trials)
        for number in range(arguments.rounds):
            for arm in list(ARMS)[:: -1 if number % 2 else 1]:
                found[arm].append(sweep(arm, space))
    report(found, arguments.json)


def report(found: dict[str, list[dict[str, float]]], path: Path | None) -> None:
    parts = {arm: {part: measure.Spread.of([r[part] for r in runs]) for part in runs[0]} for arm, runs in found.items()}
    walls = {arm: [r["wall"] for r in runs] for arm, runs in found.items()}
    faster = {arm: measure.ratio(walls[arm], walls["worker"]) for arm in walls if arm != "worker"}
    flags = measure.conditions(
        clock="wall, from the ledger", encoder="d32 L2 H4", trials="2 cells, ASHA grace 1, 4 epochs"
    )
    measure.print_conditions(flags)
    rows = [[arm, part, str(value)] for arm, each in parts.items() for part, value in each.items()]
    measure.print_table(["arm", "seconds per trial", "median (range)"], rows)
    measure.print_table(["arm", "worker is faster, times"], [[arm, str(value)] for arm, value in faster.items()])
    measure.write(path, "sweep_split", flags, {"seconds_per_trial": parts, "worker_is_faster_than": faster})


if __name__ == "__main__":
    main()

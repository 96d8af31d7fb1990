"""Whole sweeps: our command against Ray Tune with the Hugging Face Trainer, one process per trial.

    python -m benchmarks.sweep_comparison --data-dir ../shared/data/glue [--rounds 2] [--json FILE]

One sweep per task and arm, from a cold process: the same data and split, the same trials (lr, batch size, seed) in the same
order, the same epochs and halving, the winner re-trained on the same number of fresh seeds and tested. Arms alternate in every
round; ratios are taken round by round. Both take two cores with one thread per trial. Scores and thus what halving stops
differ between the arms (dropout and starting values are drawn differently), so that epochs trained are printed beside, and
"per epoch" divides by them. `--full` takes all of the data, `--smoke` a random encoder and a generated task.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks import measure
from benchmarks.process_tree import Usage, run
from benchmarks.sweep_setting import Setting
from search_spaces.events import EpochReported, TrialAsked, TrialEnded

TASKS = ("cola", "mrpc", "stsb", "rte")
ROOT = Path(__file__).resolve().parent.parent
OURS, PEERS = "ours", {"longest": "Tune + Trainer, longest", "128": "Tune + Trainer, 128"}
# Ray gives way to everything else on the machine, which on a shared one would measure the others.
NICENESS = {"RAY_worker_niceness": "0"}
PEER_TRIAL = (
    "Trainer with adamw_torch_fused, linear schedule with warm-up, max_grad_norm 1, eval_strategy=epoch (batches of 32), "
    "save_strategy=no, logging_strategy=no, report_to=none, dataloader_num_workers=0, no grouping by length; tokenised once"
)
PEER_SWEEP = (
    "tune.Tuner, ASHAScheduler(time_attr=epoch), reuse_actors, 1 CPU and 1 torch thread per trial, Tune's loggers and snapshots "
    "off"
)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One sweep of one arm, in seconds: `start` until the first step of training, `search` and `finals` until the last report of
    each, `end` until the command returns. `epochs` trained, of them in the search `search_epochs`; `cpu` of all processes,
    `trials_cpu` of it between the first step and the last report."""

    makespan: float
    start: float
    search: float
    finals: float
    end: float
    cpu: float
    trials_cpu: float
    search_epochs: int
    epochs: int
    best_score: float
    test_scores: list[float]
    cpu_by_process: Mapping[str, float]

    @property
    def trials(self) -> float:
        """Wall-clock seconds from the first step to the last report."""
        return self.search + self.finals

    @property
    def quantities(self) -> dict[str, float]:
        """What ratios are taken of."""
        return {
            "makespan": self.makespan,
            "trials": self.trials,
            "cpu": self.cpu,
            "trials' cpu": self.trials_cpu,
            "trials per epoch": self.trials / self.epochs,
            "trials' cpu per epoch": self.trials_cpu / self.epochs,
        }


def run_ours(setting: Setting, data_dir: Path | None, folder: Path) -> Measured:
    """The shipped command on a space file, in an empty folder."""
    from orchestrator.ledger import read
    from trainables.tasks.task_loading import describe

    score = describe(setting.task).metrics[0]
    out = folder / "runs"
    command = [sys.executable, "-m", "orchestrator.run", "--space", str(setting.write_space(folder)), "--gpus", "0"]
    command += ["--out", str(out), "--report", str(folder / "report"), *_data(data_dir)]
    usage = run(command, _environment(), folder / "ours.log")
    records = read(next(out.glob("*/ledger.jsonl")).parent)
    finals = {r.event.id for r in records if isinstance(r.event, TrialAsked) and r.event.trial.phase == "final"}
    reports = [(r.time, r.event) for r in records if isinstance(r.event, EpochReported)]
    ended = {r.event.id: r.event.outcome for r in records if isinstance(r.event, TrialEnded)}
    searching = [(time, epoch) for time, epoch in reports if epoch.id not in finals]
    return measured(
        usage,
        began=min(time - each.progress.seconds for time, each in reports if each.progress.epoch == 1),
        searched=max(time for time, _ in searching),
        ended=max(time for time, _ in reports),
        search_epochs=len(searching),
        epochs=len(reports),
        best_score=max(each.progress.best_score for _, each in searching),
        test_scores=[ended[trial].metrics[score] for trial in finals],
    )


def run_peer(setting: Setting, padding: str, data_dir: Path | None, folder: Path) -> Measured:
    command = [sys.executable, "-m", "benchmarks.tune_and_trainer", str(setting.write_json(folder))]
    command += ["--padding", padding, "--out", str(folder), *_data(data_dir)]
    usage = run(command, _environment(), folder / "peer.log")
    told = json.loads(usage.output.strip().split("\n")[-1])
    epochs = sum(told["search_epochs"])
    return measured(
        usage,
        began=told["began"],
        searched=told["searched"],
        ended=told["ended"],
        search_epochs=epochs,
        epochs=epochs + sum(told["final_epochs"]),
        best_score=told["best_score"],
        test_scores=told["test_scores"],
    )


def measured(usage: Usage, *, began: float, searched: float, ended: float, **more: Any) -> Measured:
    return Measured(
        makespan=usage.end - usage.start,
        start=began - usage.start,
        search=searched - began,
        finals=ended - searched,
        end=usage.end - ended,
        cpu=sum(usage.cpu.values()),
        trials_cpu=usage.cpu_between(began, ended),
        cpu_by_process=usage.cpu,
        **more,
    )


def run_arm(arm: str, setting: Setting, data_dir: Path | None) -> Measured:
    # Short: Ray's socket paths lie below it.
    with tempfile.TemporaryDirectory(prefix="versus-", dir="/tmp") as folder:
        if arm == OURS:
            return run_ours(setting, data_dir, Path(folder))
        return run_peer(setting, arm, data_dir, Path(folder))


def ratios(found: Mapping[str, list[Measured]]) -> dict[str, dict[str, measure.Spread]]:
    """Of each peer: how many times more it takes than ours, round by round."""
    ours = found[OURS]
    return {
        PEERS[arm]: {
            name: measure.ratio([m.quantities[name] for m in theirs], [m.quantities[name] for m in ours])
            for name in ours[0].quantities
        }
        for arm, theirs in found.items()
        if arm != OURS
    }


def summary(results: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Mean over tasks of the medians."""
    peers = next(iter(results.values()))["ratios"]
    return {
        peer: {
            name: statistics.fmean(task["ratios"][peer][name].median for task in results.values())
            for name in peers[peer]
        }
        for peer in peers
    }


def tiny(folder: Path) -> str:
    """A random encoder, with a tokenizer of the generated task's words."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    from benchmarks.arms import Encoder
    from trainables.tasks.task_loading import load

    loaded = load("agreement", data_dir=None, folder=Path(), train_examples=0, test_examples=0)
    words = sorted({word for text in loaded.train.first for word in text.split()})
    special = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate([*special, *words])}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    names = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
    Encoder(layers=2, width=16, heads=2).save(folder)
    return str(folder)


def parse() -> argparse.Namespace:
    parser = measure.parser(__doc__)
    parser.add_argument("--data-dir", type=Path, help="folder of GLUE's TSV files; without it, from the Hub")
    parser.add_argument("--model", default="minilm")
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--method", choices=("adapter", "lora"), default="adapter")
    parser.add_argument("--r", type=int, default=64)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--arms", default="ours,longest,128")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--lrs", default="1e-3,3e-3")
    parser.add_argument("--batch-sizes", default="8,16")
    parser.add_argument("--finals", type=int, default=2)
    parser.add_argument("--train-examples", type=int, default=256)
    parser.add_argument("--test-examples", type=int, default=200)
    parser.add_argument("--full", action="store_true", help="all training and test examples: hours")
    parser.add_argument("--smoke", action="store_true", help="a random encoder and a generated task: about two minutes")
    return parser.parse_args()


def settings_of(arguments: argparse.Namespace, scratch: Path) -> dict[str, Setting]:
    """By task."""
    base = Setting(
        model=arguments.model,
        task="",
        method=arguments.method,
        r=arguments.r,
        lrs=tuple(map(float, arguments.lrs.split(","))),
        batch_sizes=tuple(map(int, arguments.batch_sizes.split(","))),
        epochs=arguments.epochs,
        finals=arguments.finals,
        train_examples=0 if arguments.full else arguments.train_examples,
        test_examples=0 if arguments.full else arguments.test_examples,
        precision=arguments.precision,
    )
    if arguments.smoke:
        small = {"lrs": (1e-3, 3e-3), "batch_sizes": (8,), "r": 4, "epochs": 2, "finals": 1, "train_examples": 40}
        return {"agreement": replace(base, model=tiny(scratch), task="agreement", **small)}
    return {task: replace(base, task=task) for task in arguments.tasks.split(",")}


def main() -> None:
    arguments = parse()
    with tempfile.TemporaryDirectory() as scratch:
        settings = settings_of(arguments, Path(scratch))
        flags = conditions(next(iter(settings.values())), arguments)
        measure.print_conditions(flags)
        found: dict[str, dict[str, list[Measured]]] = {task: {} for task in settings}
        results: dict[str, Any] = {}
        arms = arguments.arms.split(",")
        for number in range(arguments.rounds):
            for task, setting in settings.items():
                for arm in arms[:: -1 if number % 2 else 1]:
                    one = run_arm(arm, setting, arguments.data_dir)
                    found[task].setdefault(arm, []).append(one)
                    print(line(number, task, arm, one), flush=True)
                results[task] = {
                    "ratios": ratios(found[task]),
                    "rounds": {arm: [asdict(m) for m in each] for arm, each in found[task].items()},
                }
                whole = {**results, "mean of medians": summary(results)}
                measure.write(arguments.json, "sweep_comparison", flags, whole)
    print_ratios(results)


def line(number: int, task: str, arm: str, m: Measured) -> str:
    return (
        f"round {number + 1} {task:5} {PEERS.get(arm, arm):24} makespan {m.makespan:5.1f} s = start {m.start:.1f} + search "
        f"{m.search:.1f} + finals {m.finals:.1f} + end {m.end:.1f}; CPU {m.cpu:.1f} s, of it trials {m.trials_cpu:.1f}; "
        f"epochs {m.search_epochs} + {m.epochs - m.search_epochs}; best {m.best_score:.1f}, test "
        f"{' '.join(f'{s:.1f}' for s in m.test_scores)}"
    )


def print_ratios(results: Mapping[str, Any]) -> None:
    rows, means = [], summary(results)
    for peer, quantities in means.items():
        for task, found in results.items():
            rows.append([peer, task, *found["ratios"][peer].values()])
        rows.append([peer, "mean", *quantities.values()])
    print()
    measure.print_table(["peer / ours", "task", *next(iter(means.values()))], rows)


def conditions(setting: Setting, arguments: argparse.Namespace) -> dict[str, str]:
    flags = measure.conditions(
        precision=f"{setting.precision}, both arms (peer: Trainer's bf16=True, CPU autocast; ours: the space's recipe)"
        if setting.precision != "fp32"
        else "fp32",
        attention="peer: transformers' sdpa; ours: packed, explicit with dropout",
        padding="peer: longest of the batch (DataCollatorWithPadding), or all to 128; ours: packed rows",
        optimiser="peer: torch AdamW fused; ours: AdamW on flat buffers",
        threads="1 per trial, trials at once: 2",
        malloc=" ".join(f"{n}={value}" for n, value in {**measure.MALLOC, **NICENESS}.items()) + ", both arms",
        clock="wall-clock of the whole command from a cold process; CPU seconds of its tree of processes, seen twice a second",
    )
    method = "peft's LoRA on query and value" if setting.method == "lora" else "Houlsby adapters as nn.Modules"
    return {
        **flags,
        "peer": f"{PEER_SWEEP}; {PEER_TRIAL}; {method}",
        "ours": "python -m orchestrator.run --gpus 0, tracking and report included",
        "setting": str(replace(setting, task="each", model="random" if arguments.smoke else setting.model)),
        "trials": " ".join(f"({t['lr']:g}, {t['batch_size']}, seed {t['seed']})" for t in setting.trials()),
    }


def _data(data_dir: Path | None) -> list[str]:
    return ["--data-dir", str(data_dir.resolve())] if data_dir else []


def _environment() -> dict[str, str]:
    return {**os.environ, **measure.MALLOC, **NICENESS, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}


if __name__ == "__main__":
    main()

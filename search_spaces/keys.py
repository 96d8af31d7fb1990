"""Names of tags, metrics and artifacts in MLflow. The orchestrator writes them, the reports read them.

A space is an MLflow experiment. Each sweep has a run; each cell has a run that is a child of the sweep's; each trial has a run
that is a child of its cell's.
"""

from collections.abc import Mapping

PARENT = "mlflow.parentRunId"
NOTE = "mlflow.note.content"  # description that the UI shows, Markdown
TABLES = "mlflow.loggedArtifacts"  # which artifacts are tables

# Tags of every run.
KIND = "peft.kind"  # "sweep", "cell" or "trial"
SWEEP = "peft.sweep"  # sweep id
DUPLICATE = "peft.duplicate"  # "true" on a duplicate run of a trial, cell or sweep, made when a response was lost
# Tags of the sweep's run.
SPACE = "peft.space"  # name of the space; missing in sweeps of earlier versions, where the experiment has that name
STAMP = "peft.stamp"  # options that made the sweep smaller than its space ("--epochs 2", ...); empty if there were none
COMMAND = "peft.command"  # the command that continues or repeats the sweep
CURTAILED = "peft.curtailed"  # the time budget that ended the searches ("40h"), empty when none did
EXTENDED = "peft.extended"  # "true": the searches were resumed after a time budget had ended them
POSITION = "peft.position"  # number of the ledger's events that have been written to MLflow
# Tags of cells and trials.
CELL = "peft.cell"  # "model/task/method label"
MODEL, TASK, METHOD = "peft.model", "peft.task", "peft.method"
# Tags of trials.
TRIAL = "peft.trial"  # trial id
PHASE = "peft.phase"  # "search", "final", or "replaced": a final of a configuration that is no longer the winner
STATE = "peft.state"  # a State of search_spaces.records; RUNNING until the trial ends
REASON = "peft.reason"
CACHED = "peft.cached"  # "true" when the result was taken from another sweep
COLLAPSED = "peft.collapsed"  # "true": all predictions on the test split are (in regression: almost) equal
DIVERGED = "peft.diverged"  # "true": the training loss was not finite
WINNER = (
    "peft.winner"  # trial id of the cell's winner, on the cell's run; of its second search "peft.winner.1", and so on
)
CONFIGURATION = (
    "peft.configuration"  # on a cell's run: the winner's hyperparameters ("lr 0.001, r 16"), from the report
)
VERDICT = "peft.verdict"  # on a cell's run: comparison with the best method of its task, from the report ("best", "tied", ...)
DIGEST = "peft.digest"  # on a logged model: SHA-256 of the exported file with its tensors
TRAINED_BY = "peft.trained_by"  # of rows of the library peft: "peft 0.21.2, alone"; missing for methods of this project
SEARCH = "peft.search"  # number of the cell's search that a trial belongs to, from 1; missing for those of the first, number 0

# Params of trials and cells beside the hyperparameters and the seed. The tags with the same contents are what readers use: params
# cannot change, and the runs of earlier versions lack these.
PLACE = ("model", "task", "method", "phase", "search")

# Metrics of trials; step = epoch. The names of the task's metrics follow the prefixes: "validation/accuracy", "test/f1".
VALIDATION, TEST = "validation/", "test/"
LOSS, LEARNING_RATE, SECONDS, MEMORY = "train/loss", "lr", "seconds", "memory_mib"
# Regression only: the loss is in squared standard deviations of the train targets, this one in squared units of the targets.
TARGET_LOSS = "train/loss_target_units"
# Metrics of trials, written once at the end. TEST + metric name, too: score on the test split in percent points; finals only.
BEST = "validation/best_"  # + metric name: validation score at the best epoch. On a cell's run: the best so far, step = trials
BEST_EPOCH, EPOCHS = "validation/best_epoch", "epochs"
COUNTS = "weight_counts/"  # + a field of search_spaces.records.Counts
CHECKPOINT_ELEMENTS = (
    "weight_counts/stored"  # number of tensor elements in the trial's checkpoint: dense, pruned weights and masks too
)
SAVED_BYTES = "saved_bytes"  # size of the checkpoint's file

# What earlier versions called these metrics. Readers translate them with `current_metrics`; they are not written any more.
_FORMER = {
    "loss": LOSS,
    "loss_target_units": TARGET_LOSS,
    "best_epoch": BEST_EPOCH,
}
_FORMER_PREFIXES = {"test.": TEST, "params.": COUNTS}
FORMER_SCORE, FORMER_BEST = "score", "best_score"

# Artifacts.
SWEEP_FILE = "sweep.json"  # of the sweep's run: the manifest (see orchestrator/planning/sweep_manifest.py)
LEADERBOARD_FILE = (
    "leaderboard.json"  # of the sweep's run: one row per cell, from the report, as `mlflow.log_table` writes it
)
REPORT_FOLDER = "report"  # of the sweep's run: the files of the report
ABLATION_FILE = "ablation.json"  # of an ablated final's run: a search_spaces.records.Ablation as JSON
PREDICTIONS_FILE = "predictions.json"  # of a final's run: {"predictions": [...], "labels": [...], "checksum": n}


def winner_of(search: int) -> str:
    """Return the name of the tag with the winner of this search of the cell; searches count from 0."""
    return f"{WINNER}.{search}" if search else WINNER


def best(metric: str, search: int = 0) -> str:
    """Return the name of the metric with the best validation score, of a trial or of this search of a cell."""
    return f"{BEST}{metric}" + (f"_search_{search + 1}" if search else "")


def current_metrics(values: Mapping[str, float], score: str) -> dict[str, float]:
    """Return the metrics of a trial's run by their names in this file, also if an earlier version wrote them.

    `score` is the name of the task's score. A run that was begun by an earlier version and continued by this one can have a
    metric under both names; the newer one counts.
    """
    former = {_current(name, score): value for name, value in values.items()}
    return {**former, **{name: value for name, value in values.items() if _current(name, score) == name}}


def _current(name: str, score: str) -> str:
    if name == FORMER_SCORE:
        return VALIDATION + score
    if name == FORMER_BEST:
        return best(score)
    for former, prefix in _FORMER_PREFIXES.items():
        if name.startswith(former):
            return prefix + name.removeprefix(former)
    return _FORMER.get(name, name)

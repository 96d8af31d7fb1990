"""What the report's intervals and corrected tests do where the truth is known: coverage, false "better", power.

    python -m benchmarks.interval_coverage coverage [--scale 1] [--seed 1] [--json FILE]
    python -m benchmarks.interval_coverage power
    python -m benchmarks.interval_coverage collapse

Every repetition goes through the functions of the report: bootstrap of the metric, moderated variances, intervals, correction
for all pairs. `coverage`: predictions of methods that are alike, by metric, number of seeds and of methods, and tails of the
variation between seeds. `power`: scores drawn directly, half of the methods worse by a gap, or none; standard deviations
between seeds differ by method. Each row stands beside the statistics of the first release (own variances, Holm). `collapse`:
seeds collapse with a given probability. Tables are printed in Markdown; percentages have their standard error over repetitions
behind them. `--scale` multiplies the numbers of repetitions.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from benchmarks.simulated_methods import Accuracy, Matthews, Pearson, SimulatedTask
from reports.statistics.intervals import LEVEL, Estimate, TaskScores
from reports.statistics.multiple_comparisons import all_pairs, holm
from reports.statistics.resampling import covariances, draw_resamples, resampled_scores, score_limits
from reports.statistics.seed_variance import estimate_priors

Array = np.ndarray
Row = dict[str, object]
EXAMPLES = 300
DRAWS = 300
SAME_DRAWS = 20  # repetitions that share the bootstrap's draws


@dataclass(frozen=True)
class Judged:
    """The report's statements on one simulated column: means, differences of pairs (i, j), i < j, corrected p-values."""

    means: list[Estimate]
    differences: dict[tuple[int, int], Estimate]
    corrected: dict[tuple[int, int], float]


def judge(column: TaskScores, regular: Sequence[bool], moderate: bool = True) -> Judged:
    """Estimate as the report does, or as the first release did (`moderate` False); `regular`: no seed of the method collapsed."""
    pairs_of: Callable[[list[float]], list[float]] = holm
    if moderate:
        variances = column.sample_variances
        (prior,) = estimate_priors([[v for v, good in zip(variances, regular, strict=True) if v and good]])
        column = column.moderated([prior if good else None for good in regular])
        pairs_of = lambda p_values: all_pairs(p_values, len(regular))  # noqa: E731
    differences = column.differences()
    means = [column.mean(method) for method in range(len(regular))]
    corrected = pairs_of([each.p_value for each in differences.values()])
    return Judged(
        means=[each for each in means if each is not None],
        differences=differences,
        corrected=dict(zip(differences, corrected, strict=True)),
    )


def covers(estimate: Estimate, truth: float) -> bool:
    low, high = estimate.interval
    return low <= truth <= high


def columns(
    task: SimulatedTask, methods: int, seeds: int, rounds: int, generator: np.random.Generator
) -> Iterator[tuple[TaskScores, Array]]:
    """Simulated columns, each with the flags of its collapsed seeds [M, S]."""
    for number in range(rounds):
        if number % SAME_DRAWS == 0:
            weights = draw_resamples(EXAMPLES, generator, DRAWS)
        predictions, labels, collapsed = task.draw(generator, methods, seeds, EXAMPLES)
        scores = resampled_scores(task.metric, predictions, labels, np.ones((1, EXAMPLES))).reshape(methods, seeds)
        covariance = covariances(task.metric, predictions, labels, weights)
        yield TaskScores([list(each) for each in scores], covariance, limits=score_limits(task.metric)), collapsed


def simulate_coverage(
    task: SimulatedTask, methods: int, seeds: int, rounds: int, generator: np.random.Generator
) -> dict[str, Array]:
    """Per repetition: shares of means and differences whose interval holds the truth, and whether any "better" is false.

    `mean, none collapsed`: of the cells without a collapsed seed, whether the interval holds the mean of seeds that do not
    collapse; NaN if there is none.
    """
    rows = []
    for column, collapsed in columns(task, methods, seeds, rounds, generator):
        regular = ~collapsed.any(1)
        judged = judge(column, list(regular))
        given = [
            covers(mean, task.true_without_collapse) for mean, good in zip(judged.means, regular, strict=True) if good
        ]
        rows.append(
            (
                np.mean([covers(mean, task.truth) for mean in judged.means]),
                np.mean(given) if given else math.nan,
                np.mean([covers(difference, 0.0) for difference in judged.differences.values()]),
                min(judged.corrected.values()) < 1 - LEVEL,
            )
        )
    names = ("mean", "mean, none collapsed", "difference", "false better")
    return dict(zip(names, np.array(rows, dtype=float).T, strict=True))


@dataclass(frozen=True, kw_only=True)
class DrawnScores:
    """Scores drawn directly, in points. The second half of the methods is worse by `gap`.

    spread: mean standard deviation between seeds; its logarithm varies by `uneven` (standard deviation) between methods.
    unstable: factor of the first method's standard deviation. examples: variance over test examples that no methods share.
    """

    methods: int
    seeds: int
    gap: float = 0.0
    spread: float = 1.0
    uneven: float = 0.5
    unstable: float = 1.0
    examples: float = 0.3

    @property
    def truth(self) -> Array:
        return np.where(np.arange(self.methods) < self.methods // 2, 0.0, -self.gap)

    def draw(self, generator: np.random.Generator) -> TaskScores:
        factors = np.exp(generator.normal(-(self.uneven**2) / 2, self.uneven, self.methods))
        factors[0] *= self.unstable
        shared = generator.normal(0, math.sqrt(self.examples), (self.methods, 1))
        noise = generator.normal(0, self.spread, (self.methods, self.seeds)) * factors[:, None]
        blocks = np.kron(np.eye(self.methods), np.full((self.seeds, self.seeds), self.examples))
        return TaskScores((self.truth[:, None] + shared + noise).tolist(), blocks)


def simulate_power(
    world: DrawnScores, rounds: int, generator: np.random.Generator, moderate: bool = True
) -> dict[str, Array]:
    """Per repetition: coverage as above, false "better", share of worse methods found worse than the best, smallest visible gap.

    A worse method counts as found if the best by the data is one of the better methods, and differs significantly from it.
    """
    truth, rows = world.truth, []
    alike = {pair for pair in combinations(range(world.methods), 2) if truth[pair[0]] == truth[pair[1]]}
    for _ in range(rounds):
        judged = judge(world.draw(generator), [True] * world.methods, moderate)
        means = [mean.value for mean in judged.means]
        best = int(np.argmax(means))
        significant = {pair for pair, p in judged.corrected.items() if p < 1 - LEVEL}
        worse = [m for m in range(world.methods) if truth[m] < 0]
        found = [truth[best] == 0 and (min(m, best), max(m, best)) in significant for m in worse]
        differences = judged.differences
        rows.append(
            (
                np.mean([covers(mean, truth[m]) for m, mean in enumerate(judged.means)]),
                covers(judged.means[0], truth[0]),
                np.mean([covers(each, truth[a] - truth[b]) for (a, b), each in differences.items()]),
                bool(significant & alike),
                np.mean(found) if worse and world.gap else math.nan,
                np.median([each.significance_threshold(len(differences)) for each in differences.values()]),
            )
        )
    names = ("mean", "mean of the first", "difference", "false better", "found", "smallest visible")
    return dict(zip(names, np.array(rows, dtype=float).T, strict=True))


def shown(values: Array) -> str:
    """A mean of shares in percent, with its standard error."""
    known = values[~np.isnan(values)]
    if not len(known):
        return "–"
    return f"{100 * known.mean():.1f} ({100 * known.std() / math.sqrt(len(known)):.1f})"


def coverage_rows(scale: float, generator: np.random.Generator) -> Iterator[Row]:
    for tails in ("normal", "t3"):
        for methods, rounds in ((4, 400), (13, 150), (38, 60)):
            for task in (Accuracy(0.1, tails), Matthews(0.06, tails), Pearson(0.06, tails)):
                for seeds in (2, 3, 5):
                    number = max(2, round(scale * rounds))
                    found = simulate_coverage(task, methods, seeds, number, generator)
                    names = ("mean", "difference", "false better")
                    yield {
                        "tails": tails,
                        "methods": methods,
                        "metric": task.metric,
                        "spread": round(task.spread, 1),
                        "seeds": seeds,
                        "repetitions": number,
                        **{name: shown(found[name]) for name in names},
                    }


POWER = (
    (DrawnScores(methods=4, seeds=2, gap=4), 3000),
    (DrawnScores(methods=4, seeds=3, gap=3), 2000),
    (DrawnScores(methods=4, seeds=5, gap=3), 1000),
    (DrawnScores(methods=13, seeds=2, gap=4), 300),
    (DrawnScores(methods=13, seeds=3, gap=3), 300),
    (DrawnScores(methods=38, seeds=3, gap=4), 60),
    (DrawnScores(methods=4, seeds=2), 3000),
    (DrawnScores(methods=4, seeds=2, uneven=0), 3000),
    (DrawnScores(methods=4, seeds=2, uneven=1), 3000),
    (DrawnScores(methods=4, seeds=2, uneven=0.2, unstable=4), 3000),
    (DrawnScores(methods=4, seeds=3), 2000),
    (DrawnScores(methods=4, seeds=3, uneven=0.2, unstable=4), 2000),
    (DrawnScores(methods=4, seeds=5, uneven=0.2, unstable=4), 1000),
    (DrawnScores(methods=2, seeds=2), 3000),
    (DrawnScores(methods=13, seeds=2), 300),
    (DrawnScores(methods=13, seeds=3), 300),
)


def power_rows(scale: float, generator: np.random.Generator) -> Iterator[Row]:
    for world, rounds in POWER:
        for moderate in (True, False):
            number = max(2, round(scale * rounds))
            found = simulate_power(world, number, generator, moderate)
            visible = float(np.median(found.pop("smallest visible")))
            yield {
                "methods": world.methods,
                "seeds": world.seeds,
                "gap": world.gap,
                "uneven": world.uneven,
                "first method": f"{world.unstable:g} x",
                "repetitions": number,
                "variances": "moderated" if moderate else "own",
                **{name: shown(values) for name, values in found.items()},
                "smallest visible": f"{visible:.1f}",
            }


def collapse_rows(scale: float, generator: np.random.Generator) -> Iterator[Row]:
    for risk in (0.1, 0.3):
        for kind, shift in ((Accuracy, 0.1), (Matthews, 0.06), (Pearson, 0.06)):
            for seeds in (2, 3, 5):
                number = max(2, round(scale * 400))
                found = simulate_coverage(kind(shift, risk=risk), 4, seeds, number, generator)
                yield {
                    "risk": f"{100 * risk:.0f} %",
                    "metric": kind.metric,
                    "seeds": seeds,
                    "repetitions": number,
                    **{name: shown(values) for name, values in found.items()},
                }


TABLES = {"coverage": coverage_rows, "power": power_rows, "collapse": collapse_rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("--scale", type=float, default=1.0, help="factor of all numbers of repetitions")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    options = parser.parse_args()
    rows: list[Row] = []
    for row in TABLES[options.table](options.scale, np.random.default_rng(options.seed)):
        if not rows:
            print("| " + " | ".join(row) + " |\n|" + " ---: |" * len(row), flush=True)
        rows.append(row)
        print("| " + " | ".join(map(str, row.values())) + " |", flush=True)
    if options.json:
        options.json.write_text(json.dumps({"seed": options.seed, "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

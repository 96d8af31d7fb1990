"""How often methods that are identical are called different, with one search per cell and with several: a simulation.

    python -m benchmarks.search_luck > table.md          # a minute on one core

Every method has the same landscape: the same true scores of the same configurations. Each search sees a validation score of
every configuration (its true score, the luck of a validation split, and that of one seed), takes the best, and trains it on fresh
seeds. The report's own statistics then compare the methods: search means, moderated variances, correction for all pairs. A
verdict "better" for any pair is false. Also printed: how often a method that is really ahead by `GAP` points is found to be.

Assumptions: validation scores of the configurations err independently, seeds and searches are normal, and a method's finals share
one error over test examples. Scores and standard deviations are in percent points.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.interval_coverage import covers, judge
from reports.statistics.intervals import LEVEL, TaskScores
from reports.statistics.searches import search_means

# True scores of the configurations below the best, as of four learning rates and two batch sizes.
LANDSCAPE = np.array([-6.0, -5.5, -1.5, -1.0, 0.0, -0.3, -2.5, -3.0])
FLAT = np.zeros(8)
GAP = 4.0


@dataclass(frozen=True, kw_only=True)
class Setting:
    """`searches`, `seeds`: of each cell and of each search. `validation`, `seed`, `examples`: standard deviations of a score over
    validation splits, over seeds, and over test examples.
    """

    searches: int
    seeds: int
    validation: float
    seed: float
    methods: int = 4
    examples: float = 0.5
    landscape: tuple[float, ...] = tuple(LANDSCAPE)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """Shares of simulated columns, in percent, and the standard deviation of the chosen configurations' true scores.

    false: any pair called different. covered: the true mean of a method within its 95 % interval. found: see `GAP`. visible:
    median of the smallest visible difference, percent points.
    """

    false: float
    covered: float
    found: float
    visible: float
    luck: float


def draw(setting: Setting, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores of the finals [methods, searches, seeds] and the true scores of the winners [methods, searches]."""
    landscape, shape = np.asarray(setting.landscape), (setting.methods, setting.searches)
    noise = np.hypot(setting.validation, setting.seed)
    seen = landscape + noise * generator.normal(size=(*shape, len(landscape)))
    true = landscape[seen.argmax(-1)]
    scores = true[..., None] + setting.seed * generator.normal(size=(*shape, setting.seeds))
    return scores + setting.examples * generator.normal(size=(setting.methods, 1, 1)), true


def column(setting: Setting, scores: np.ndarray) -> TaskScores:
    """Return what the report computes its estimates from."""
    size = setting.searches * setting.seeds
    covariance = np.kron(np.eye(setting.methods), np.full((size, size), setting.examples**2))
    flat = [list(each.reshape(-1)) for each in scores]
    if setting.searches == 1:
        return TaskScores(flat, covariance)
    numbers = [list(np.repeat(np.arange(setting.searches), setting.seeds))] * setting.methods
    return TaskScores(*search_means(flat, numbers, covariance))


def simulate(setting: Setting, rounds: int, seed: int = 4) -> Seen:
    generator = np.random.default_rng(seed)
    draws = [draw(setting, generator) for _ in range(rounds)]
    truth = float(np.mean([true.mean() for _, true in draws]))
    counted, visible = np.zeros(3), []
    regular = [True] * setting.methods
    for scores, _ in draws:
        judged = judge(column(setting, scores), regular)
        ahead = judge(column(setting, scores + GAP * (np.arange(setting.methods) == 0)[:, None, None]), regular)
        counted += (
            min(judged.corrected.values()) < 1 - LEVEL,
            covers(judged.means[0], truth),
            ahead.corrected[0, 1] < 1 - LEVEL and ahead.differences[0, 1].value > 0,
        )
        visible.append(judged.differences[0, 1].significance_threshold(len(judged.differences)))
    false, covered, found = 100 * counted / rounds
    luck = float(np.mean([true.std(ddof=1) for _, true in draws]))
    return Seen(false=false, covered=covered, found=found, visible=float(np.median(visible)), luck=luck)


def settings() -> list[Setting]:
    noises = ((1.2, 0.6), (2.4, 1.0))
    repeated = [(k, seeds) for k in (1, 2, 3, 5) for seeds in ((3, 5) if k == 1 else (1, 3))]
    found = [
        Setting(searches=k, seeds=seeds, validation=validation, seed=seed)
        for validation, seed in noises
        for k, seeds in repeated
    ]
    wide = [replace(found[0], searches=k, seeds=3, methods=13) for k in (1, 2, 3, 5)]
    flat = [replace(found[0], searches=k, seeds=3, landscape=tuple(FLAT)) for k in (1, 3)]
    return [*found, *wide, *flat]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3000, help="simulated columns per row of the table")
    rounds = parser.parse_args().rounds
    head = "searches k | finals of each | methods | validation, seed sd | luck of the search, sd | any false difference"
    print(f"| {head} | mean in its interval | gap of {GAP:g} found | smallest visible |")
    print("|" + " ---: |" * 9)
    for each in settings():
        seen = simulate(each, rounds)
        luck = f"{seen.luck:.2f}" if any(each.landscape) else "0 (nothing to choose)"
        row = (
            each.searches,
            each.seeds,
            each.methods,
            f"{each.validation:g}, {each.seed:g}",
            luck,
            f"{seen.false:.1f} %",
        )
        print(
            "| "
            + " | ".join(map(str, (*row, f"{seen.covered:.1f} %", f"{seen.found:.0f} %", f"{seen.visible:.1f}")))
            + " |"
        )


if __name__ == "__main__":
    main()

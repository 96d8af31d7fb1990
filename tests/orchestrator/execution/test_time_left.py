"""The range of the time left holds the true time in simulated sweeps, and says nothing before anything was measured."""

import heapq
import itertools
import math
import os
import random
from contextlib import closing
from dataclasses import replace

import pytest

from orchestrator.execution.time_left import WorkRate, time_left
from search_spaces.events import EpochReported, LedgerRecord, TrialStarted
from search_spaces.language import Budget
from search_spaces.records import Trial
from tests.fixtures.fakes import curve, end_of, make_space, open_sweep


def simulated(space, root, slots: int, seed: int):
    """The end of a sweep whose cells and trials differ in speed, and (time, range of what is left) after each report.

    A cell's mean epoch is lognormal with a factor of e, a trial's differs from it by 20 %, and each trial takes a second more.
    """
    draw, rate, now, found = random.Random(seed), WorkRate(), 0.0, []
    sweep = open_sweep(
        space, root, notify=lambda records: [rate.apply(replace(record, time=now + 1e-9)) for record in records]
    )
    speed = {cell: 10 * math.exp(draw.gauss(0, 1)) for cell in space.cells}
    queue, running, order = [], {}, itertools.count()
    with closing(sweep._ledger):
        while True:
            while len(running) < slots and isinstance(trial := sweep.next_trial(), Trial):
                seconds = speed[trial.cell] * math.exp(draw.gauss(0, 0.2))
                running[trial.id] = (trial, 0, seconds)
                heapq.heappush(queue, (now + seconds + 1, next(order), trial.id))
            if not running:
                return now, found
            now, _, trial_id = heapq.heappop(queue)
            trial, epoch, seconds = running.pop(trial_id)
            progress = replace(curve(trial)[epoch], seconds=seconds)
            ended = end_of(trial, progress) if epoch + 1 == trial.recipe.epochs else (None, None)
            if sweep.record(trial_id, progress, *ended):
                running[trial_id] = (trial, epoch + 1, seconds)
                heapq.heappush(queue, (now + seconds, next(order), trial_id))
            found.append((now, time_left(sweep.snapshot(), rate.concurrency, slots)))


@pytest.mark.parametrize(
    ("budget", "slots"),
    [
        (Budget(trials=6, final_seeds=2, in_flight=2, grace=2), 2),
        (Budget(trials=4, final_seeds=2, in_flight=1, grace=8), 3),
    ],
    ids=["with early stopping", "without"],
)
def test_most_ranges_hold_the_time_that_was_left(tmp_path, monkeypatch, budget, slots):
    monkeypatch.setattr(os, "fsync", lambda file: None)
    held, wide, known, reports = 0, [], 0, 0
    for seed in range(2):
        end, found = simulated(make_space(budget=budget), tmp_path / str(seed), slots, seed)
        for now, estimate in found[:-1]:
            reports += 1
            if estimate:
                known += 1
                low, high = estimate
                held += low - 1e-6 <= end - now <= high + 1e-6
                wide += [high / (end - now)] if end - now > 0.1 * end else []
    assert known > 0.75 * reports
    assert held > 0.8 * known
    assert sum(wide) / len(wide) < 2.5, "a range that always holds says nothing"


def test_nothing_is_known_before_two_trials_have_ended(tmp_path):
    sweep = open_sweep(make_space(), tmp_path)
    assert time_left(sweep.snapshot(), 1.0, 2) is None
    for _ in range(2):
        assert time_left(sweep.snapshot(), 1.0, 2) is None
        trial = sweep.next_trial()
        points = curve(trial)
        for point in points[:-1]:
            sweep.record(trial.id, point)
        sweep.record(trial.id, points[-1], *end_of(trial, points[-1]))
    assert time_left(sweep.snapshot(), 0.0, 2) is None, "and not before a report of this run"
    low, high = time_left(sweep.snapshot(), 1.0, 1)
    # 26 search trials and 8 finals of 8 epochs of one second are left. ASHA is meant to stop half of those after 2 and 4 epochs.
    assert high == pytest.approx(34 * 8)
    assert low == pytest.approx(26 * (2 + 2 / 2 + 4 / 4) + 8 * 8)


def test_epochs_without_a_duration_say_nothing(tmp_path):
    sweep = open_sweep(make_space(), tmp_path)
    for _ in range(3):
        trial = sweep.next_trial()
        points = [replace(point, seconds=0.0) for point in curve(trial)]
        for point in points[:-1]:
            sweep.record(trial.id, point)
        sweep.record(trial.id, points[-1], *end_of(trial, points[-1]))
    assert time_left(sweep.snapshot(), 1.0, 2) is None


def test_the_rate_counts_trials_at_once_and_leaves_cached_epochs_out(tmp_path):
    rate = WorkRate()
    sweep = open_sweep(make_space(), tmp_path)
    trials = [sweep.next_trial() for _ in range(3)]
    assert rate.concurrency == 0
    events = [(0.0, TrialStarted(id=trial.id)) for trial in trials[:2]]
    events += [(10.0, EpochReported(id=trial.id, progress=replace(curve(trial)[0], seconds=10.0))) for trial in trials]
    for time, event in events:
        rate.apply(LedgerRecord(seq=1, time=1e9 + time, event=event))
    assert rate.concurrency == pytest.approx(2.0)

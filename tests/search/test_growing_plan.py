"""A plan gains the cells of suggested trials, and nothing that was decided changes."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
from search_toy import SWEEP, open_bowls

from orchestrator.plan.columns import Plan
from orchestrator.plan.join import join, keys_at
from orchestrator.search.studies import Studies

VALUES = [{"lr": 0.1 / (each + 1), "net": ("narrow", "wide")[each % 2]} for each in range(6)]


def _join(plan: Plan, studies: Studies, study: int, trial: int, seeds: int = 3) -> list[int]:
    mine = studies.all[study]
    values = VALUES[trial] | ({"momentum": 0.5} if mine.coords["arm"] == "b" else {})
    return join(plan, mine.over[trial][:seeds], mine.search.meant(values))


def _cells(plan: Plan) -> list[tuple[str, ...]]:
    return [(str(plan.cell_coords(cell)), plan.cell_key(cell)) for cell in np.flatnonzero(plan.decided).tolist()]


def test_at_first_nothing_is_decided_but_all_that_may_come_is_numbered(tmp_path: Path) -> None:
    plan = open_bowls(tmp_path).plan
    # 2 arms × 6 trials × (3 seeds and 2 fresh ones); the bases of 5 seeds are known already.
    assert len(plan.points) == 60
    assert not plan.decided.any()
    assert len(plan) == 60 + 5
    assert len(plan.known) == 5
    assert not plan.steps_of().any()


def test_in_whatever_order_trials_join_the_cells_and_their_keys_are_the_same(tmp_path: Path) -> None:
    trials = [(study, trial) for study in range(2) for trial in range(6)]
    found = []
    for order in range(4):
        random.Random(order).shuffle(trials)
        session = open_bowls(tmp_path)
        studies = Studies(session.plan)
        for study, trial in trials:
            # Repetitions may come one by one.
            for seeds in range(1, 4) if order % 2 else [3]:
                _join(session.plan, studies, study, trial, seeds)
        found.append((_cells(session.plan), session.plan.digest, session.plan.users.sum()))
    assert found[0] == found[1] == found[2] == found[3]
    assert len(found[0][0]) == 36


def test_a_cell_of_a_trial_has_the_key_of_the_same_cell_of_a_grid(tmp_path: Path) -> None:
    session = open_bowls(tmp_path)
    studies = Studies(session.plan)
    _join(session.plan, studies, 0, 1)
    grid = SWEEP[: SWEEP.index("search:")] + SWEEP[SWEEP.index("stages:") :]
    grid = (
        grid.replace("{arm: [a, b]}", "{arm: [a], seed: [0, 1, 2]}")
        .replace("$tuning", "{lr: 0.05, net: [16, 16], momentum: 0.5}")
        .replace("results: [fit]", "results: [fit]\nexclude: []")
        .replace("base: {stage", "base: {when: true, stage")
    )
    plain = open_bowls(tmp_path, "stages.fit.config=[{lr: 0.05, net: [16, 16]}, {seed: $seed}, $arm]",
                       text=grid.replace("arm: [a]", "arm: {a: {}}")).plan  # fmt: skip
    assert [key for _, key in _cells(session.plan)] == [plain.cell_key(cell) for cell in range(3)]


def test_trials_of_the_same_values_share_their_steps(tmp_path: Path) -> None:
    session = open_bowls(tmp_path)
    plan, studies = session.plan, Studies(session.plan)
    study = studies.all[0]
    meant = study.search.meant(VALUES[0])
    new = join(plan, study.over[0], meant)
    assert len(new) == 3
    assert join(plan, study.over[4], meant) == []
    assert plan.groups("fit")[study.over[0]].tolist() == plan.groups("fit")[study.over[4]].tolist()
    assert plan.users[new].tolist() == [2, 2, 2]
    # Every step comes after those that it reads.
    assert all(parent < number for number in new for parent in plan.parents(number))


def test_keys_can_be_asked_for_without_deciding_anything(tmp_path: Path) -> None:
    plan, other = open_bowls(tmp_path).plan, open_bowls(tmp_path).plan
    study = Studies(plan).all[1]
    meant = study.search.meant(VALUES[2] | {"momentum": 0.1})
    asked = keys_at(plan, study.over[2], meant)
    assert not plan.decided.any()
    join(other, study.over[2], meant)
    assert asked == [other.cell_key(cell) for cell in study.over[2]]


def test_joining_again_changes_nothing(tmp_path: Path) -> None:
    plan = open_bowls(tmp_path).plan
    studies = Studies(plan)
    _join(plan, studies, 0, 2)
    before = (_cells(plan), plan.users.tolist())
    assert _join(plan, studies, 0, 2) == []
    assert (_cells(plan), plan.users.tolist()) == before


def test_the_id_of_a_study_is_what_it_asks_and_not_how_often_or_what_it_is_called(tmp_path: Path) -> None:
    def ids(*overrides: str, text: str = SWEEP) -> list[str]:
        return [study.id for study in Studies(open_bowls(tmp_path, *overrides, text=text).plan).all]

    first = ids()
    assert len(set(first)) == 2
    assert ids("search.tuning.trials=60", "search.tuning.concurrency=8", "search.tuning.fresh={}",
               "search.tuning.start=[]") == first  # fmt: skip
    assert ids(text=SWEEP.replace("tuning", "search_of_mine").replace("name: bowls", "name: other")) == first
    # The axis may be called otherwise too, since only the values count.
    assert ids(text=SWEEP.replace("arm", "side")) == first
    for change in (
        "search.tuning.space.lr.float=[1.0e-5, 1.0]",
        "search.tuning.seed=4",
        "search.tuning.objective.reduce=median",
        "search.tuning.objective.over.seed=[0, 1, 3]",
        "search.tuning.sampler={name: RandomSampler}",
        "search.tuning.constraints={size: {at_most: 20}}",
    ):
        assert not set(ids(change)) & set(first), change

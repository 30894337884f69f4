"""`sweep best`, and what other commands print of a search."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import toy_sweep
from command_server import sweep


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a search that was run."""
    folder = tmp_path_factory.mktemp("searched")
    toy_sweep.write_sweep(folder, toy_sweep.SEARCH, "tune.yaml")
    ran = sweep(folder, "run", "tune.yaml", "--outputs", "out", "--inline")
    assert ran.returncode == 0, ran.stderr
    (folder / "ran").write_text(ran.stdout)
    return folder


def test_a_run_says_what_may_come_how_studies_end_and_which_trials_are_best(searched: Path) -> None:
    lines = (searched / "ran").read_text().splitlines()
    assert "2 studies to finish, up to 14 cells; 0 cells decided, 0 steps to run" in lines
    assert [line.partition(": best total ")[0] for line in lines if "(trial " in line] == [
        "tuning/kind=1",
        "tuning/kind=2",
    ]
    assert "the best trial of each study, by total" in lines


def test_the_best_trials_are_printed_and_handed_to_machines(searched: Path) -> None:
    told = json.loads(sweep(searched, "best", "tune.yaml", "--outputs", "out", "--json").stdout)
    assert [row["coords"] for row in told] == [{"kind": 1}, {"kind": 2}]
    assert all(row["importances"] is None or row["importances"].keys() == {"add", "value"} for row in told)
    printed = sweep(searched, "best", "tune.yaml", "--outputs", "out", "--study", "kind=2").stdout
    assert "how much each field matters (PedAnovaImportanceEvaluator):" in printed
    results = sweep(searched, "results", "tune.yaml", "--outputs", "out").stdout
    assert printed.splitlines()[1] == results.splitlines()[2]
    cells = sweep(searched, "results", "tune.yaml", "--outputs", "out", "--cells").stdout
    assert len(cells.splitlines()) == 1 + 14


def test_mistakes_in_best_say_what_to_do(searched: Path) -> None:
    wrong = sweep(searched, "best", "tune.yaml", "--outputs", "out", "--study", "kind=3")
    assert (wrong.returncode, "no study has kind '3'; choose from 1, 2" in wrong.stderr) == (2, True)
    toy_sweep.write_sweep(searched)
    without = sweep(searched, "best", "toy.yaml", "--outputs", "out")
    assert (without.returncode, "has no `search`" in without.stderr) == (2, True)


def test_comparisons_and_status_of_a_search(searched: Path) -> None:
    compared = sweep(searched, "compare", "tune.yaml", "kind=1,2", "--outputs", "out")
    assert "of each study only the best trial counts, at its fresh values" in compared.stdout
    refused = sweep(searched, "compare", "tune.yaml", "trial=1,2", "--outputs", "out")
    assert (refused.returncode, "`sweep best` shows" in refused.stderr) == (2, True)
    more = sweep(searched, "status", "tune.yaml", "--outputs", "out", "-s", "search.tuning.trials=4")
    assert "12 cells: 12 succeeded, up to 6 more" in more.stdout
    planned = sweep(searched, "plan", "tune.yaml", "--outputs", "out", "-s", "search.tuning.trials=4")
    assert "tuning: 2 studies × 4 trials × 2 repetitions, each best one again at 1 fresh value" in planned.stdout
    assert "may come" in planned.stdout


def test_a_run_that_leaves_studies_unfinished_names_them(tmp_path: Path) -> None:
    toy_sweep.write_sweep(tmp_path, toy_sweep.SEARCH, "tune.yaml")
    bad = sweep(
        tmp_path, "run", "tune.yaml", "--outputs", "out", "--inline", "-s", "stages.total.config.behaviour=raise"
    )
    assert bad.returncode == 1
    assert "6 trials failed, as the sampler was told; another try may still complete them" in bad.stdout
    assert "no trial is complete in tuning/kind=1, tuning/kind=2" in bad.stdout
    some = sweep(tmp_path, "run", "tune.yaml", "--outputs", "out", "--inline", "--only", "trial=0")
    assert "2 studies are not finished: tuning/kind=1 (1 of 3 trials), tuning/kind=2 (1 of 3 trials)" in some.stdout

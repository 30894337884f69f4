"""Every test is in one part of the suite, and a test without the marker of what it uses is found out."""

from __future__ import annotations

import re
import subprocess
import sys
from itertools import combinations

import pytest
from parts import MARKER_OF, MARKERS, OF_OTHERS, OF_WORKERS, TESTS, WORKERS, is_left_out, selects

MAKEFILE = (TESTS.parent / "Makefile").read_text()
NAMED = dict(re.findall(r"^([A-Z_]+) := (.*)$", MAKEFILE, re.MULTILINE))
#: Target -> which tests it runs, and whether those of workers, the others ("--ignore="), or both ("").
PARTS = {
    target: (NAMED[name], where)
    for target, name, where in re.findall(
        r'^([\w-]+): setup\n\t.*pytest -m "\$\((\w+)\)"( tests/stages| --ignore=tests/stages|)$', MAKEFILE, re.M
    )
}
LIGHT = NAMED["LIGHT"]


def test_whatever_its_markers_a_test_is_in_exactly_one_part() -> None:
    for possible, elsewhere in ((OF_WORKERS, " --ignore=tests/stages"), (OF_OTHERS, " tests/stages")):
        for count in range(len(possible) + 1):
            for markers in combinations(sorted(possible), count):
                found = [
                    target
                    for target, (expression, where) in PARTS.items()
                    if where != elsewhere and selects(expression, markers, markers)
                ]
                assert len(found) == 1, (markers, found)


def test_make_test_and_make_test_long_run_every_part_once_and_check_the_light_one() -> None:
    run = {
        target: [word for word in recipe.split() if word in PARTS]
        for target, recipe in re.findall(r"^(check|test|test-long): setup\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)
    }
    assert sorted(run["test"] + run["test-long"]) == sorted(PARTS)
    light = [part for part, (expression, _) in PARTS.items() if expression == LIGHT]
    assert sorted(run["check"]) == sorted(light)
    assert all("long" in PARTS[part][0].split() for part in run["test-long"])


def test_every_marker_is_described_and_has_a_place(pytestconfig: pytest.Config) -> None:
    described = {line.split(":")[0] for line in pytestconfig.getini("markers")}
    assert described >= MARKERS >= set(MARKER_OF.values())
    assert MARKERS == OF_WORKERS | OF_OTHERS


def test_a_file_of_which_nothing_is_wanted_is_not_imported() -> None:
    trained = WORKERS / "language_models" / "test_sft.py"
    assert is_left_out(trained, LIGHT)
    assert not is_left_out(trained, "train")
    assert not is_left_out(trained, "long")
    assert not is_left_out(trained, "")
    assert is_left_out(WORKERS, "ray and not long")
    assert not is_left_out(WORKERS, LIGHT)
    assert is_left_out(TESTS / "maintenance" / "test_gc.py", "train and not long")
    assert is_left_out(TESTS / "store" / "test_full_disk.py", LIGHT)
    assert not is_left_out(TESTS / "store" / "test_full_disk.py", "ray and faults")
    # Nothing is known of markers that are not ours.
    assert not is_left_out(trained, "skipif")


@pytest.mark.parametrize(
    ("use", "words"),
    [
        ("import transformers", "marker train; it gets it with the fixture tiny_policy"),
        ("import mlflow", "marker mlflow; it gets it with the fixture mlflow_server"),
        ("import playwright.sync_api", "marker browser; it gets it with the fixture chromium"),
        (
            "from orchestrator.run.executors.ray_cluster import RayExecutor; RayExecutor()",
            "marker ray; it gets it with the fixture local_ray or head",
        ),
        ("import os, urllib.request; urllib.request.urlopen(os.environ['AWS_ENDPOINT_URL'])", "refused"),
    ],
    ids=["train", "mlflow", "browser", "ray", "s3"],
)
def test_what_a_part_leaves_out_does_not_work_in_it_and_names_the_missing_marker(use: str, words: str) -> None:
    code = f"import parts; parts.forbid_what_is_left_out({LIGHT!r})\n{use}"
    done = subprocess.run([sys.executable, "-c", code], cwd=TESTS, capture_output=True, text=True)
    assert done.returncode == 1
    assert words in done.stderr

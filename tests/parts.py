"""Which part of the suite a test belongs to: by its markers, which follow from the fixtures that it uses.

Marker            whose tests have it
ray               those that use `local_ray` or `head`, or start a Ray of their own
s3                those that use `s3`
mlflow            those that use `mlflow_server` or `start_mlflow`, and others that write to MLflow's database
browser           those that use `chromium`
train             those below tests/stages that need transformers: they train or run a language model
faults            those that kill, corrupt or starve something on purpose
long              those that are left to `make test-long`

`faults`, `long`, and a marker of a whole file are written by hand; a test that starts a Ray of its own, or writes to an
MLflow of its own, says so too.
"""

from __future__ import annotations

import importlib.abc
import os
import re
import sys
from collections.abc import Collection, Sequence
from importlib.machinery import ModuleSpec
from itertools import combinations
from pathlib import Path

import pytest
from _pytest.mark.expression import Expression

TESTS = Path(__file__).parent
WORKERS = TESTS / "stages"

MARKER_OF = {
    "local_ray": "ray",
    "head": "ray",
    "s3": "s3",
    "start_mlflow": "mlflow",
    "chromium": "browser",
    "tiny_policy": "train",
}
"""Fixture -> the marker of all tests that use it, directly or through others."""

MARKERS = frozenset({"ray", "s3", "mlflow", "browser", "train", "faults", "long"})

#: Workers know nothing of Ray, object stores and MLflow, and nobody else trains in the process of a test: half of the
#: tests need not be imported to see that none of them is wanted.
OF_WORKERS = frozenset({"train", "long"})
OF_OTHERS = MARKERS - {"train"}

_WHOLE_FILE = re.compile(r"^pytestmark = .*$", re.MULTILINE)


def selects(expression: str, certain: Collection[str] = (), possible: Collection[str] = MARKERS) -> bool:
    """Tell whether `-m expression` selects a test that has all `certain` markers and none but `possible` ones.

    Of markers that are not ours, such as `skipif`, nothing is known: any test may have them.
    """
    if not expression:
        return True
    compiled = Expression.compile(expression)
    others = set(re.findall(r"\w+", expression)) - MARKERS - {"and", "or", "not"}
    free = sorted({*possible, *others} - set(certain))
    return any(
        compiled.evaluate(lambda name, /, has={*certain, *more}, **_: name in has)  # type: ignore[misc]
        for count in range(len(free) + 1)
        for more in combinations(free, count)
    )


def is_left_out(path: Path, expression: str) -> bool:
    """Tell whether `-m expression` selects nothing of a file or folder, so that it need not be imported."""
    possible = OF_WORKERS if path.is_relative_to(WORKERS) else OF_OTHERS
    if path.is_dir():
        return path == WORKERS and not selects(expression, (), possible)
    if path.suffix != ".py":
        return False
    certain = MARKERS.intersection(
        name for line in _WHOLE_FILE.findall(path.read_text()) for name in re.findall(r"mark\.(\w+)", line)
    )
    return not selects(expression, certain, possible)


def mark(items: Sequence[pytest.Item]) -> None:
    """Give each test the markers of its fixtures.

    Raises:
        pytest.UsageError: a marker does not belong where the test is.
    """
    for item in items:
        # A parameter may happen to be called like a fixture; then it takes its place.
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        for fixture in MARKER_OF.keys() & set(getattr(item, "fixturenames", ())) - set(parameters):
            item.add_marker(MARKER_OF[fixture])
        names = {each.name for each in item.iter_markers()} & MARKERS
        allowed = OF_WORKERS if item.path.is_relative_to(WORKERS) else OF_OTHERS
        if wrong := names - allowed:
            raise pytest.UsageError(
                f"{item.nodeid} is marked {', '.join(sorted(wrong))}. Tests below tests/stages use no Ray, S3, MLflow "
                "or browser, and no others train: move it (see tests/parts.py)."
            )


def forbid_what_is_left_out(expression: str) -> None:
    """Have a test fail that uses what `-m expression` leaves out, since its marker must be missing.

    Processes that tests start are told by their environment.
    """
    said = "this test needs the marker {0}; it gets it with the fixture {1} (see parts.py in tests)"
    if not selects(expression, {"ray"}):
        # Ray cannot start there, and names the place.
        os.environ["RAY_TMPDIR"] = "/dev/null/" + said.format("ray", "local_ray or head")
    if not selects(expression, {"s3"}):
        os.environ["AWS_ENDPOINT_URL"] = "http://127.0.0.1:1/" + said.format("s3", "s3").replace(" ", "-")
    modules = {
        "train": ("transformers", "tiny_policy"),
        "browser": ("playwright", "chromium"),
        "mlflow": ("mlflow", "mlflow_server"),
    }
    forbidden = {
        module: said.format(name, fixture)
        for name, (module, fixture) in modules.items()
        if not selects(expression, {name})
    }
    if forbidden:
        sys.meta_path.insert(0, _Forbidden(forbidden))


class _Forbidden(importlib.abc.MetaPathFinder):
    """Modules that may not be imported -> why."""

    def __init__(self, modules: dict[str, str]) -> None:
        self._modules = modules

    def find_spec(self, fullname: str, path: object, target: object = None) -> ModuleSpec | None:
        if fullname in self._modules:
            raise ImportError(f"{fullname}: {self._modules[fullname]}")
        return None

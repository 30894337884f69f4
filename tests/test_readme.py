"""What the first pages of README.md promise: its sweeps run as they are printed, and its links lead somewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from orchestrator import open_sweep
from orchestrator.study.modules import study_at

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "sweeps").rglob("*.md"))]
PAGES += [ROOT / name / "README.md" for name in ("workers", "orchestrator")]


def section(title: str) -> str:
    (found,) = re.findall(rf"^## {title}\n(.*?)(?=^## )", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    return str(found)


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def lines(text: str) -> int:
    return len([line for line in text.splitlines() if line.strip()])


def run(file: Path) -> list[dict[str, Any]]:
    sweep = open_sweep(file, ["tracking=false"], outputs=file.parent / "out")
    assert sweep.run(inline=True).finished
    table: list[dict[str, Any]] = sweep.table().to_pylist()
    return table


@pytest.fixture(autouse=True)
def _no_module_is_left(tmp_path: Path) -> Iterator[None]:
    yield
    study_at(tmp_path.parent).activate()


def test_the_sweep_in_twelve_lines_runs_and_shows_what_is_said_of_it(tmp_path: Path) -> None:
    text = section("Your own sweep in twelve lines")
    (sweep,) = blocks(text, "yaml")
    assert lines(sweep) == 12
    file = tmp_path / "noise.yaml"
    file.write_text(sweep)
    assert f"`{file.name}`" in text
    steps = open_sweep(file).plan()["steps"]
    assert {name: steps[name]["total"] for name in ("embed", "annotate", "fit")} == {
        "embed": 3,
        "annotate": 18,
        "fit": 18,
    }
    rows = run(file)
    assert len(rows) == 18

    def mean(metric: str, labels: int, beta: float) -> float:
        return fmean(row[metric] for row in rows if (row["labels"], row["beta"]) == (labels, beta))

    assert mean("flip_rate", 800, 1) == pytest.approx(0.30, abs=0.01)
    assert mean("flip_rate", 200, 10) == pytest.approx(0.04, abs=0.005)
    for beta in (0.5, 1, 10):
        assert mean("improvement", 800, beta) > mean("improvement", 200, beta)
    assert mean("improvement", 800, 1) == pytest.approx(mean("improvement", 200, 10), abs=0.1)


def test_the_stage_in_twenty_lines_runs_and_shows_what_is_said_of_it(tmp_path: Path) -> None:
    text = section("Your own stage in twenty")
    (module,), (sweep,) = blocks(text, "python"), blocks(text, "yaml")
    assert lines(module) + lines(sweep) <= 20
    for name, content in (("my_study.py", module), ("my-study.yaml", sweep)):
        assert f"`{name}`" in text
        (tmp_path / name).write_text(content)
    rows = run(tmp_path / "my-study.yaml")
    assert len(rows) == 18
    # "Which learning rate comes closest": the largest, at both noises.
    for noise in (0.1, 1):
        of_noise = [row for row in rows if row["noise"] == noise]
        assert min(of_noise, key=lambda row: row["distance"])["lr"] == 0.1
    before = open_sweep(tmp_path / "my-study.yaml", outputs=tmp_path / "out").plan()["steps"]
    assert before["train"]["to_run"] == 0
    (tmp_path / "my_study.py").write_text(module.replace("steps: int = 100", "steps: int = 200"))
    after = open_sweep(tmp_path / "my-study.yaml", outputs=tmp_path / "out").plan()["steps"]
    assert after["train"]["to_run"] == 18


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings_that_are_there(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if re.match(r"https?:", link):
            continue
        target, _, anchor = link.partition("#")
        file = page.parent / target if target else page
        assert file.exists(), f"{page}: {link}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
            assert anchor in [re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings], link


@pytest.mark.parametrize("page", ["security.md", "promises.md"])
def test_the_tests_that_a_page_of_promises_names_are_there(page: str) -> None:
    named = set(re.findall(r"`([\w/]*test_\w+\.py)`", (ROOT / "docs" / page).read_text()))
    assert len(named) > 12
    assert [name for name in named if not (ROOT / "tests" / name).is_file()] == []

"""`sweep show` as a person reads it: nothing too wide, nothing that moves a terminal, no identifier cut."""

from __future__ import annotations

import json
import re
from pathlib import Path

import exhibits
import pytest
from command_server import sweep
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.cli import console, show_cell
from orchestrator.cli.show_cell import sparkline
from orchestrator.explain.shown import show
from orchestrator.session import open_session


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with stages of its own that was run."""
    folder = tmp_path_factory.mktemp("show")
    # Of another name: the processes of this test know `exhibits` already, from elsewhere.
    stages = Path(exhibits.__file__).read_text().replace('"exhibits:', '"own_exhibits:')
    (folder / "own_exhibits.py").write_text(stages)
    (folder / "exhibits.yaml").write_text(exhibits.SWEEP.replace("uses: [exhibits]", "uses: [own_exhibits]"))
    done = sweep(folder, "run", "exhibits.yaml", "--inline")
    assert done.returncode == 0, done.stderr
    return folder


def test_a_cell_is_shown_with_its_texts_rewards_judgments_and_curves(folder: Path) -> None:
    done = sweep(folder, "show", "exhibits.yaml", "x=2")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert re.fullmatch(r"x=2  [0-9a-f]{12} succeeded", lines[0])
    assert "measured (stage exhibit_evaluation): committed, " in done.stdout
    assert "  golden rewards: golden" in lines
    assert "  learned rewards: model – computed here from embedded, on a scale of its own" in lines
    assert re.search(
        r"^      response 0 \(golden [+-]\d\.\d{3}, learned [+-]\d\.\d{3}\): red <script>", done.stdout, re.M
    )
    assert re.search(r"^  loss  █[▁-█]{30}▁  1000 → 1  steps 0 to 999$", done.stdout, re.M)
    assert "      answer 2 (chosen): good" in lines
    assert "      verdict: answer 1, against the chosen one" in lines
    assert "      judgment: unread: too long: 900 tokens" in lines
    # What a stage wrote moves no terminal, and is no markup.
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", done.stdout)
    assert ":red[red]" in done.stdout


def test_one_entry_is_shown_in_full_and_as_json(folder: Path) -> None:
    done = sweep(folder, "show", "exhibits.yaml", "x=2", "--stage", "model")
    shown = json.loads(sweep(folder, "show", "exhibits.yaml", "x=2", "--stage", "model", "--json").stdout)
    (entry,) = shown["entries"]
    assert f"  {entry['steps'][0]['location']}" in done.stdout.splitlines()
    assert "learning_rate  ▁▁▁" in done.stdout
    assert re.search(r"files: history.parquet \([\d,]+ B\), linear.npz", done.stdout)
    done = sweep(folder, "show", "exhibits.yaml", "x=2", "--stage", "mode")
    assert done.returncode == 2
    assert "--stage: the cell has no entry 'mode'; did you mean 'model'?" in done.stderr


@pytest.mark.parametrize("width", [50, 80, 140])
@pytest.mark.parametrize("entry", [None, "answers", "odd", "judgments"])
def test_lines_fit_the_terminal_and_identifiers_are_whole(
    folder: Path, monkeypatch: pytest.MonkeyPatch, width: int, entry: str | None
) -> None:
    made = console.Console(width=width, soft_wrap=True, highlight=False)
    monkeypatch.setattr(console, "console", made)
    monkeypatch.setattr(show_cell, "console", made)
    shown = show(open_session(folder / "exhibits.yaml", outputs=str(folder / "outputs")), "x=2", entry)
    with made.capture() as captured:
        show_cell.show_cell(shown, whole=entry is not None)
    text = captured.get()
    # Places are to be copied, so they stay on one line.
    assert not [line for line in text.splitlines() if len(line) > width and str(folder) not in line]
    words = " ".join(text.split())
    for each in shown["entries"]:
        assert each["entry"] in words
        for name in each["metrics"]:
            assert f"{name}=" in words


@given(st.lists(st.floats(-1e300, 1e300), min_size=1, max_size=300), st.integers(1, 60))
def test_a_curve_has_a_block_per_point_up_to_the_width_and_its_extremes_where_all_are_drawn(
    values: list[float], width: int
) -> None:
    drawn = sparkline(values, width)
    assert len(drawn) == min(len(values), width)
    assert set(drawn) <= set("▁▂▃▄▅▆▇█")
    if len(values) <= width:
        assert drawn[values.index(min(values))] == "▁"
        assert min(values) == max(values) or drawn[values.index(max(values))] == "█"

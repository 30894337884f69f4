"""The report: self-contained, the same bytes for the same input, and nothing in it that the table does not say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest

from dashboards.report.figures import Axis, Figure, curves
from dashboards.report.section import Section, file_name
from dashboards.report.study import Study
from dashboards.report.write import sections, write_report
from orchestrator.drive import drive
from orchestrator.results.metrics import reported_metrics
from orchestrator.results.table import Results
from orchestrator.session import Session, open_session

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.usefixtures("quick_collector")

SWEEPS = Path(__file__).parents[2] / "sweeps"
EVIL = "<script>alert('x')</script> | a `b` <img src='http://evil.example/x.png'>"
#: The paper's axes in little: 48 cells.
FEW = [
    "axes.annotations=[5000, 40000]", "axes.seed=[0, 1]", "axes.beta=[0.5, 10]", "axes.sampling=[random]",
]  # fmt: skip
ONLY = ["policy=gemma-2b,gemma-2b-sft", "dataset=harmless"]


def opened(folder: Path, overrides: list[str] = FEW, only: list[str] = ONLY) -> Session:
    return open_session(SWEEPS / "full.yaml", overrides, only, outputs=str(folder))


def made_up(session: Session, failed: int = 0) -> pa.Table:
    """The results table of a sweep that was not run: known differences, and luck; the last cells have failed."""
    table = Results(session.plan, session.store, session.schedule).table().filter(session.cells)
    random = np.random.default_rng(0)
    gains = {"bt_mlp": 0.0, "clf_mlp": 0.2, "clf_lgb": 0.1}
    gain = np.array([gains[model] for model in table["reward_model"].to_pylist()])
    missing = np.arange(len(table)) >= len(table) - failed
    columns: dict[str, Any] = {
        "status": ["failed" if each else "succeeded" for each in missing],
        "error_class": ["ValueError" if each else None for each in missing],
        "error": [EVIL if each else None for each in missing],
    }
    for name in reported_metrics(table):
        values = np.full(len(table), 0.25) if name == "flip_rate" else 0.5 + gain
        columns[name] = pa.array(
            values + 0.01 * random.standard_normal(len(table)) * (name != "flip_rate"), mask=missing
        )
    for name, column in columns.items():
        place = table.column_names.index(name)
        table = table.set_column(place, table.schema.field(name), pa.array(column, table.schema.field(name).type))
    return table


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the paper's axes, with two failed cells."""
    folder = tmp_path_factory.mktemp("report")
    session = opened(folder / "out")
    return write_report(session, made_up(session, failed=2), folder / "first")


def test_the_same_table_gives_the_same_bytes(report: Path, tmp_path: Path) -> None:
    session = opened(report.parents[1] / "out")
    again = write_report(session, made_up(session, failed=2), tmp_path)
    first = {path.relative_to(report.parent): path.read_bytes() for path in report.parent.rglob("*.*")}
    second = {path.relative_to(again.parent): path.read_bytes() for path in again.parent.rglob("*.*")}
    assert first.keys() == second.keys()
    assert [path for path in first if first[path] != second[path]] == []
    assert {path.suffix for path in first} == {".html", ".png", ".pdf", ".md"}


def test_the_figures_of_the_paper_are_there_as_png_and_pdf(report: Path) -> None:
    names = {path.stem for path in (report.parent / "figures").glob("*.png")}
    assert names == {path.stem for path in (report.parent / "figures").glob("*.pdf")}
    assert {
        "best-of-n", "improvement-by-beta", "improvement-by-annotations", "pairwise_accuracy-by-beta", "winners",
        "published-improvement",
    } <= names  # fmt: skip
    page = report.read_text()
    assert all(f"figures/{name}.png" in page for name in names)
    assert page.count("<img ") == len(names)


def test_nothing_is_fetched_and_what_the_data_say_is_escaped(report: Path) -> None:
    page = report.read_text()
    assert not re.search(r"<(script|iframe|object|embed)\b", page)
    attributes = re.findall(r"""<[^>]*\b(?:src|href)=["']?([^"'>]*)""", page)
    assert len(attributes) > 10
    assert all(each.startswith(("data:", "#")) for each in attributes)
    assert "url(" not in page
    assert "&lt;script&gt;alert(" in page
    text = (report.parent / "tables" / "failures.md").read_text()
    assert "<" not in text
    assert "\\| a \\`b\\`" in text


def test_the_report_says_what_was_found_and_what_is_missing(report: Path) -> None:
    page = report.read_text()
    assert (
        "48 cells (2 policy × 3 reward_model × 2 annotations × 2 beta × 2 seeds): 46 succeeded, 2 have no result."
        in page
    )
    # Not "over everything else": two cells are filled in from the pairs of the others.
    best = "reward_model clf_mlp has the best mean over the same 8 combinations of everything else in each of 2 seeds"
    assert f"By improvement (golden reward), of which higher is better, {best}: 0.7" in page
    assert re.search(r"clf_mlp - bt_mlp: \+0\.(19|20|21)\d\d, 95 % interval", page)
    assert "Warning: 2 of 48 cells have no result (2 failed)." in page
    assert "Equal in every seed: flip_rate." in page
    # Shares of different cells would not add up.
    assert "each axis explains is not computed while cells have no result" in page
    assert "Together 100 %" not in page
    assert "No step of these cells is in the store." in page
    assert "sweep run" in page
    assert f"--only {ONLY[0]}" in page
    assert "sha256 of all cell keys" in page
    # The sweep file itself, to the last line.
    assert "memory: 12GiB" in page


def test_published_numbers_stand_beside_ours_only_where_the_sweep_has_their_cells(report: Path, tmp_path: Path) -> None:
    text = (report.parent / "tables" / "published-improvement.md").read_text()
    lines = [[cell.strip() for cell in line.strip("|\n ").split("|")] for line in text.splitlines()]
    assert len(lines) == 2 + 6
    (ours,) = (line for line in lines if line[:3] == ["harmless", "gemma-2b-sft", "bt\\_mlp"])
    assert ours[3] == "0.391"
    assert float(ours[4]) == pytest.approx(0.5, abs=0.02)
    assert float(ours[6]) == pytest.approx(float(ours[4]) - 0.391, abs=0.001)
    session = opened(tmp_path, [*FEW, "stages.evaluate.config.best_of=[2, 10]"])
    write_report(session, made_up(session), tmp_path / "report")
    assert not list((tmp_path / "report").rglob("published*"))


OTHER = """\
name: other
question: Does <b>anything</b> come out?
axes:
  x: [1, 2, 3]
  kind:
    good: {behaviour: work}
    bad: {behaviour: raise}
  seed: [0, 3, 4]
stages:
  source: {stage: toy_source, config: {value: $x}}
  total: {stage: toy_total, inputs: {numbers: source}, config: [$kind, {add: $seed}]}
tracking: false
uses: [toy]
namespace: toy
"""


def test_any_sweep_has_a_report_with_its_failures_and_its_cost(tmp_path: Path) -> None:
    sweep = tmp_path / "other.yaml"
    sweep.write_text(OTHER)
    session = open_session(sweep, outputs=str(tmp_path / "out"))
    drive(session, None, True, None)
    session = open_session(sweep, outputs=str(tmp_path / "out"))
    text = write_report(session, session.results().table(), tmp_path / "report").read_text()
    assert "Does &lt;b&gt;anything&lt;/b&gt; come out?" in text
    assert "the toy was told to raise" in text
    failures = (tmp_path / "report" / "tables" / "failures.md").read_text()
    assert "| failed | ValueError | 9 | the toy was told to raise | x=1,kind=bad,seed=0 |" in failures
    cost = (tmp_path / "report" / "tables" / "cost.md").read_text()
    assert re.search(r"\| source \| 3 \|", cost)
    assert re.search(r"\| total \| 9 \|", cost)
    versions = (tmp_path / "report" / "tables" / "versions.md").read_text()
    assert f"| numpy | {np.__version__} |" in versions


def test_a_sweep_of_which_nothing_was_run_has_a_report_that_says_so(tmp_path: Path) -> None:
    session = opened(tmp_path)
    table = Results(session.plan, session.store, session.schedule).table()
    text = write_report(session, table, tmp_path / "report").read_text()
    assert "There are no results to report yet." in text
    assert "not run yet" in text


def chapters(session: Session, table: pa.Table) -> dict[str, Section]:
    """What a report says, without its pictures."""
    return {each.name: each for each in sections(Study(session, table))}


def changed(table: pa.Table, **columns: Any) -> pa.Table:
    for name, column in columns.items():
        table = table.set_column(table.column_names.index(name), table.schema.field(name), pa.array(column))
    return table


def test_without_a_declared_direction_nothing_is_ranked_and_the_order_is_that_of_the_sweep_file(tmp_path: Path) -> None:
    session = opened(tmp_path, [*FEW, "analysis=null"])
    found = chapters(session, made_up(session))
    text = " ".join(found["verdict"].text)
    assert "Nothing is ranked: the sweep file does not declare" in text
    assert "best" not in text
    assert "winners" not in found
    assert [name for name in found if name.startswith("figures-")] == [
        "figures-flip_rate", "figures-pairwise_accuracy", "figures-improvement",
    ]  # fmt: skip


def test_a_metric_that_is_better_when_lower_has_the_lowest_as_its_best(tmp_path: Path) -> None:
    session = opened(tmp_path, [*FEW, "analysis={primary: {metric: train_loss, better: lower}}"])
    found = chapters(session, made_up(session))
    ranking = found["verdict"].text[1]
    assert re.search(
        r", of which lower is better, reward_model bt_mlp has the best mean over everything else: 0\.[45]", ranking
    )
    assert "bt_mlp: best in 8 of 8" in found["winners"].text[0]
    shares = next(each for each in found["verdict"].text if "Together 100 %" in each)
    named = [float(each) for each in re.findall(r"(\d+\.\d) %", shares)]
    # Up to rounding, and those below 0.1 %.
    assert sum(named) == pytest.approx(100, abs=0.1 * shares.count("%"))


def test_an_arm_whose_easier_cells_are_pending_is_ranked_by_what_all_arms_have(tmp_path: Path) -> None:
    session = opened(tmp_path, ["axes.annotations=[5000, 10000, 20000, 30000, 40000]", *FEW[1:]])
    table = made_up(session)
    # A fifth of the cells of the best arm are pending, those in which all arms do well.
    easy = np.array(table["annotations"].to_pylist()) == 40000
    pending = easy & (np.array(table["reward_model"].to_pylist()) == "clf_mlp")
    improvement = pa.array(table["improvement"].to_numpy() + 10 * easy, mask=pending)
    table = changed(table, status=["pending" if each else "succeeded" for each in pending], improvement=improvement)
    naive = table.to_pandas().groupby("reward_model").improvement.mean()
    assert naive.idxmin() == "clf_mlp"
    found = chapters(session, table)
    text = found["verdict"].text
    best = "reward_model clf_mlp has the best mean over the same 16 combinations of everything else in each of 2 seeds"
    assert text[1].startswith(f"By improvement (golden reward), of which higher is better, {best}: 0.")
    lead = r"clf_mlp - bt_mlp: \+0\.(19|20|21)\d\d, 95 % interval .* over 2 seeds, Holm p "
    assert any(re.match(lead, each) for each in text)
    (table,) = (each for each in found["means"].tables if each.name == "all-metrics")
    (means,) = (row for row in table.rows if row[0] == "improvement")
    assert max(float(each.split(" ± ")[0]) for each in means[1:]) < 1
    left = "Left out, as the arms have no pairs there: 4 of 20 combinations of policy × dataset × annotations × beta."
    gone = "8 of 120 cells have no number (8 pending), more in some arms than in others (0, 8, 0): what is missing"
    assert table.note == f"{gone} is not missing by chance. {left}"
    # No figure compares what is not there, and each says so.
    captions = [figure.caption for name in ("best-of-n", "figures-improvement") for figure in found[name].figures]
    means = [each for each in captions if not each.startswith("Paired differences")]
    assert all("as the arms have no pairs there" in each or "annotations" in each for each in means)
    assert (
        found["winners"].text[0] == "Of 20 tiles these have no winner: 4 without results of all 3 that can be compared."
    )


def test_an_arm_of_which_nothing_has_come_out_is_not_ranked_and_wins_nothing(tmp_path: Path) -> None:
    session = opened(tmp_path)
    table = made_up(session)
    failed = np.array(table["reward_model"].to_pylist()) == "clf_lgb"
    columns = {name: pa.array(table[name].to_numpy(), mask=failed) for name in reported_metrics(table)}
    table = changed(table, status=["failed" if each else "succeeded" for each in failed], **columns)
    found = chapters(session, table)
    assert "has the best mean over everything else: 0.7" in found["verdict"].text[1]
    assert "Not ranked, because there are no results: clf_lgb." in found["verdict"].text
    assert any("clf_mlp: best in 8 of 8" in each for each in found["winners"].text)


def test_numbers_that_are_equal_have_no_winner(tmp_path: Path) -> None:
    session = opened(tmp_path, [*FEW, "analysis={primary: {metric: flip_rate, better: lower}}"])
    found = chapters(session, made_up(session))
    level = "reward_model bt_mlp and clf_mlp and clf_lgb are level, with the best mean over everything else: 0.25."
    assert found["verdict"].text[1].endswith(level)
    assert found["winners"].text == ["Of 8 tiles these have no winner: 8 in which the best are level."]
    # Numbers that do not vary are explained by no axis.
    assert not any("Together 100 %" in each for each in found["verdict"].text)
    assert "shares" not in found


def test_where_no_block_is_complete_nothing_is_ranked_or_drawn(tmp_path: Path) -> None:
    session = opened(tmp_path)
    table = made_up(session)
    arms = dict(zip(("bt_mlp", "clf_mlp", "clf_lgb"), (0, 1, 2), strict=True))
    there = np.array([
        (arms[row["reward_model"]] + row["seed"] + (row["beta"] > 1) + (row["annotations"] > 5000)) % 3 == 0
        for row in table.to_pylist()
    ])  # fmt: skip
    columns = {name: pa.array(table[name].to_numpy(), mask=~there) for name in reported_metrics(table)}
    table = changed(table, status=["succeeded" if each else "pending" for each in there], **columns)
    found = chapters(session, table)
    assert "no two values of reward_model can be ranked" in found["verdict"].text[1]
    assert not found["figures-improvement"].figures
    assert "the arms have no pairs there" in found["best-of-n"].text[0].lower()
    assert not found["winners"].figures
    (means,) = (each for each in found["means"].tables if each.name == "all-metrics")
    assert "8 of 8 combinations of policy × dataset × annotations × beta and 2 of 2 draws" in means.note


@pytest.mark.parametrize(
    ("labels", "shown"),
    [
        ((400, 1600), ["400", "1600"]),
        ((400, 40000), ["400", "40000"]),
        ((5000, 40000), ["5k", "40k"]),
        ((0.5, 0.7, 10.0), ["0.5", "0.7", "10"]),
    ],
)
def test_the_values_of_an_axis_are_written_as_in_the_sweep(labels: tuple[float, ...], shown: list[str]) -> None:
    rows = [{"n": label, "mean": label / 7, "sd": None} for label in labels]
    svg = Figure("", "", "", curves(rows, Axis("n", labels), "improvement", None, None)).svg()
    assert [text for text in re.findall(r">([^<>]+)</text>", svg) if text in shown] == shown


def test_a_browser_without_network_shows_it_without_a_complaint(report: Path, chromium: Browser) -> None:
    said: list[str] = []
    asked: list[str] = []
    context = chromium.new_context(offline=True, viewport={"width": 1100, "height": 900})
    page = context.new_page()
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(report.as_uri())
    images = page.evaluate("[...document.images].map(i => [i.complete, i.naturalWidth, i.clientWidth])")
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 680, "height": 900})  # A4 between its margins
    ends = page.evaluate(
        "[...document.querySelectorAll('table, img, pre')].map(each => each.getBoundingClientRect().right)"
    )
    context.close()
    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert images
    assert all(complete and natural > 100 and shown > 100 for complete, natural, shown in images)
    assert max(ends) <= 681


def test_figures_of_labels_that_differ_in_odd_letters_only_have_files_of_their_own() -> None:
    assert file_name("best-of-n", {"dataset": "helpful"}) == "best-of-n-helpful"
    names = {file_name("x", {"dataset": label}) for label in ("a/b", "a b", "a_b", "../../b", "ü" * 300, "ü" * 301)}
    assert len(names) == 6
    assert all("/" not in name and len(f"{name}.png".encode()) < 256 for name in names)

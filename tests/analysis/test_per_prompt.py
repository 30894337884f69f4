"""Numbers of single prompts: those of the artifacts, whatever the cache holds, and a reason where there are none."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import prompt_toys
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import toy_runs
import toy_sweep
from prompt_toys import SWEEP, TableConfig, scores_of

from orchestrator.analysis.per_prompt import PerPrompt, PromptValues
from orchestrator.analysis.prompt_cache import PromptCache
from orchestrator.analysis.prompt_table import PromptTable
from orchestrator.cli.show_run import run_and_show
from orchestrator.session import Session, open_session
from orchestrator.store import list_files
from orchestrator.sweep.problems import SweepError
from orchestrator.types import Manifest

PLACE = [("evaluate", "prompts.parquet")]


def ran(folder: Path, text: str = SWEEP) -> Session:
    code, session = toy_runs.run_inline(folder, text=text)
    assert code in (0, 1)
    return dataclasses.replace(session)


def read(session: Session, metric: str = "score", places: list[tuple[str, str]] | None = None) -> PromptValues:
    return PerPrompt(session, places or PLACE).read(metric, range(len(session.plan.points)))


def by_cell(session: Session, found: PromptValues) -> dict[str, list[float]]:
    """Coordinates of a cell -> its numbers."""
    cells = {}
    for each in found.by_set:
        for position, values in zip(each.cells.tolist(), each.values, strict=True):
            cells[str(session.plan.cell_coords(position))] = values.tolist()
    return cells


def expected(session: Session) -> dict[str, list[float]]:
    rows = {"a": 5, "b": 7}
    coords = [session.plan.cell_coords(cell) for cell in range(len(session.plan.points))]
    return {
        str(each): scores_of(TableConfig(arm=each["arm"], rows=rows[each["corpus"]], seed=each["seed"])).tolist()
        for each in coords
    }


def cached_files(session: Session) -> list[Path]:
    return sorted(session.outputs.prompts.rglob("*.parquet"))


def progress_of(session: Session, metric: str = "score") -> list[tuple[int, int]]:
    told: list[tuple[int, int]] = []
    PerPrompt(session, PLACE).read(metric, range(12), lambda done, total: told.append((done, total)))
    return told


def test_numbers_are_those_of_the_artifacts_set_by_set_and_nan_where_a_table_has_null(tmp_path: Path) -> None:
    session = ran(tmp_path)
    reader = PerPrompt(session, PLACE)
    assert reader.metrics == ("score", "rank", "hit")
    scores = reader.read("score", range(12))
    assert scores.problems == []
    assert by_cell(session, scores) == expected(session)
    assert [each.values.shape for each in scores.by_set] == [(6, 5), (6, 7)]
    assert all((scores.sets[each.cells] == number).all() for number, each in enumerate(scores.by_set))
    ranks = reader.read("rank", range(12))
    for one, other in zip(scores.by_set, ranks.by_set, strict=True):
        for position, values, numbers in zip(one.cells.tolist(), one.values, other.values, strict=True):
            seed = session.plan.cell_coords(position)["seed"]
            assert np.flatnonzero(np.isnan(numbers)).tolist() == [seed]
            assert np.array_equal(np.delete(numbers, seed), np.delete(values, seed))
    table = session.results().table()
    for name in reader.metrics:
        for each in reader.read(name, range(12)).by_set:
            means = [table[name][position].as_py() for position in each.cells.tolist()]
            assert np.nanmean(each.values, axis=1) == pytest.approx(means, rel=0, abs=1e-12)


def test_some_cells_in_any_order_have_positions_among_those_that_were_asked_for(tmp_path: Path) -> None:
    session = ran(tmp_path)
    whole = read(session)
    found = PerPrompt(session, PLACE).read("score", [11, 0, 3, 0])
    assert found.sets.tolist() == [0, 1, 0, 1]
    assert found.by_set[1].cells.tolist() == [1, 3]
    assert found.by_set[1].values.tolist() == [whole.by_set[0].values[0].tolist()] * 2
    assert PerPrompt(session, PLACE).read("score", []).by_set == ()


def test_files_are_read_once_and_all_columns_are_known_then(tmp_path: Path) -> None:
    session = ran(tmp_path)
    assert progress_of(session) == [(done, 12) for done in range(13)]
    # Of five prompts and of seven.
    assert len(cached_files(session)) == 2
    for metric in ("score", "rank", "hit"):
        assert progress_of(session, metric) == [(12, 12)]
    assert by_cell(session, read(session)) == expected(session)


def test_a_cache_that_is_torn_altered_or_not_ours_is_made_again(tmp_path: Path) -> None:
    session = ran(tmp_path)
    sound = by_cell(session, read(session))
    for harm in ("torn", "empty", "garbage", "foreign", "folder"):
        for path in cached_files(session):
            content = path.read_bytes()
            damaged = {
                "torn": content[: len(content) // 2],
                "empty": b"",
                "garbage": b"x" * len(content),
                "foreign": session.outputs.results.read_bytes(),
            }
            path.unlink()
            if harm == "folder":
                path.mkdir()
            else:
                path.write_bytes(damaged[harm])
        assert progress_of(session)[0] == (0, 12), harm
        again = read(session)
        assert again.problems == []
        assert by_cell(session, again) == sound
        if harm != "folder":
            assert progress_of(session) == [(12, 12)]


def test_whatever_bit_of_a_cache_turns_no_other_number_is_read(tmp_path: Path) -> None:
    numbers = np.random.default_rng(0).normal(size=(6, 5))
    tables = {f"{row:064x}": PromptTable("ab", False, {"score": each}) for row, each in enumerate(numbers)}
    cache = PromptCache(tmp_path, ["score"])
    cache.add(tables)
    (path,) = tmp_path.rglob("*.parquet")
    content = path.read_bytes()
    whole = 0
    for place in range(0, len(content), 3):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :])
        found = cache.read("score", tables)
        assert all(
            each.columns["score"].tolist() == tables[file].columns["score"].tolist() for file, each in found.items()
        )
        whole += len(found) == 6
    # What says how a column was written, and by whom, does not matter.
    assert 0 < whole < len(content) / 6


def test_where_nothing_can_be_cached_everything_is_read_all_the_same(tmp_path: Path) -> None:
    session = ran(tmp_path)
    session.outputs.prompts.write_text("in the way")
    assert by_cell(session, read(session)) == expected(session)


def test_an_artifact_that_was_made_again_with_other_numbers_is_another_file(tmp_path: Path) -> None:
    session = ran(tmp_path)
    read(session)
    address = session.plan.address(0)
    (manifest,) = session.store.manifests([address]).values()
    assert isinstance(manifest, Manifest)
    session.store.remove([address])
    columns = prompt_toys.columns_of(TableConfig(arm=9))
    with session.store.lease(address, "another") as lease:
        pq.write_table(pa.table(columns), lease.folder / "prompts.parquet")
        metrics = {**manifest.metrics, "score": float(columns["score"].mean())}
        lease.commit(dataclasses.replace(manifest, files=list_files(lease.folder), metrics=metrics))
    found = read(dataclasses.replace(session))
    assert found.problems == []
    assert found.by_set[0].values[0].tolist() == columns["score"].tolist()


def test_what_is_odd_missing_or_failed_has_no_numbers_and_a_reason(tmp_path: Path) -> None:
    odd = SWEEP.replace("axes: {", ODD_AXIS).replace("seed: $seed}", "seed: $seed, odd: $odd}")
    session = ran(tmp_path, odd)
    found = read(session)
    reasons = {}
    for each in found.problems:
        count, _, rest = each.partition(" of 108 cells have no score by single prompts: ")
        reasons[rest] = int(count)
    (unreadable,) = {reason for reason in reasons if reason.startswith("prompts.parquet cannot be read (")}
    # Twelve have no rows, and twelve are no Parquet; one reason is told.
    assert reasons.pop(unreadable) == 24
    assert reasons == {
        "evaluate/prompts.parquet has no numbers in a column 'score'": 24,
        "it is not the mean of column 'score' of evaluate/prompts.parquet": 12,
        "the artifact of evaluate has no prompts.parquet": 12,
        "evaluate is not finished": 12,
    }
    assert not any("\x1b" in each for each in found.problems)
    # The others have theirs, and an undefined mean is one of no numbers.
    sound = [cell for cell in range(108) if session.plan.cell_coords(cell)["odd"] in ("sound", "undefined")]
    assert np.flatnonzero(found.sets >= 0).tolist() == sound
    ranks = read(session, "rank")
    for each in ranks.by_set:
        for position, values in zip(each.cells.tolist(), each.values, strict=True):
            assert np.isnan(values).all() == (session.plan.cell_coords(position)["odd"] == "undefined")


def test_bytes_and_records_that_were_altered_in_the_store_are_not_read(tmp_path: Path) -> None:
    session = ran(tmp_path)
    folder = Path(session.store.location, "artifacts", *session.plan.address(0))
    file = folder / "prompts.parquet"
    file.chmod(0o644)
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    manifest = Path(session.store.location, "artifacts", *session.plan.address(1)) / "manifest.json"
    manifest.chmod(0o644)
    manifest.write_text(manifest.read_text().replace("score", "scope"))
    found = read(session)
    assert (found.sets == -1).sum() == 2
    assert len(found.problems) == 2
    assert any("the bytes of prompts.parquet differ from its manifest" in each for each in found.problems)
    assert any("the artifact of evaluate is damaged or gone" in each for each in found.problems)


def test_before_anything_ran_nothing_is_at_hand(tmp_path: Path) -> None:
    session = toy_runs.open_toy(tmp_path, text=SWEEP)
    found = read(session)
    assert found.by_set == ()
    assert found.sets.tolist() == [-1] * 12
    assert found.problems == ["12 of 12 cells have no score by single prompts: evaluate is not finished"]
    assert read(session, "rows").problems == [
        "12 of 12 cells have no rows by single prompts: it is no mean over the rows of evaluate/prompts.parquet"
    ]
    with pytest.raises(SweepError, match="no entry 'evaluat'; did you mean 'evaluate'"):
        PerPrompt(session, [("evaluat", "prompts.parquet")])


def test_shards_stand_behind_each_other_and_lists_of_places_find_each_metric(tmp_path: Path) -> None:
    text = SWEEP.replace("  evaluate: {", "  evaluate: {shards: 3, ").replace(
        "results: [evaluate]",
        "  evaluate_reversed:\n"
        "    {stage: prompt_table, config: {arm: $arm, prefix: reversed_, names: texts, seed: $seed}}\n"
        "results: [evaluate, evaluate_reversed]",
    )
    session = ran(tmp_path, text)
    places = [*PLACE, ("evaluate_reversed", "prompts.parquet")]
    found = read(session, "score", places)
    assert [each.values.shape for each in found.by_set] == [(6, 15), (6, 21)]
    first = np.concatenate([scores_of(TableConfig(arm=1, shard=shard)) for shard in range(3)])
    assert found.by_set[0].values[0].tolist() == first.tolist()
    turned = read(session, "reversed_score", places)
    assert turned.problems == []
    # The cells of both data sets share these artifacts.
    assert [each.values.shape for each in turned.by_set] == [(12, 5)]
    assert turned.by_set[0].values[0].tolist() == scores_of(TableConfig(arm=1)).tolist()


WIRED = """\
name: wired
question: Which prompts are the same?
axes: {corpus: [0, 1], arm: [1, 2], trained_on: [0, 1]}
stages:
  source: {stage: prompt_source, config: {value: $corpus}}
  other: {stage: prompt_source, config: {value: $trained_on}}
  answers: {stage: prompt_answers, inputs: {prompts: source}}
  model: {stage: prompt_model, inputs: {prompts: other}, config: {value: $arm}}
  evaluate: {stage: prompt_measured, inputs: {model: model, answers: answers}, config: {arm: $arm, names: NAMES}}
results: [evaluate]
tracking: false
uses: [prompt_toys]
namespace: toy
"""


@pytest.mark.parametrize(("names", "sets"), [("numbers", 2), ("none", 2), ("texts", 1)])
def test_rows_that_are_only_numbered_are_those_of_the_prompts_that_they_were_made_from(
    tmp_path: Path, names: str, sets: int
) -> None:
    session = ran(tmp_path, WIRED.replace("NAMES", names))
    found = read(session)
    assert len(found.by_set) == sets
    of_corpus = [session.plan.cell_coords(cell)["corpus"] for cell in range(8)]
    assert found.sets.tolist() == (of_corpus if sets == 2 else [0] * 8)


def test_an_entry_that_stands_in_for_another_is_read_in_its_place(tmp_path: Path) -> None:
    text = SWEEP.replace(
        "  evaluate: {stage: prompt_table, config: {arm: $arm,",
        "  plain: {stage: prompt_table, config: {arm: 7, rows: 5}}\n"
        "  evaluate: {when: $arm.on, otherwise: plain, stage: prompt_table, config: {arm: $arm.number,",
    ).replace("arm: [1, 2]", "arm: {off: {on: false, number: 0}, on: {on: true, number: 1}}")
    session = ran(tmp_path, text)
    found = by_cell(session, read(session))
    for cell in range(12):
        coords = session.plan.cell_coords(cell)
        if coords["arm"] == "off":
            assert found[str(coords)] == scores_of(TableConfig(arm=7)).tolist()
        elif coords["corpus"] == "a":
            assert found[str(coords)] == scores_of(TableConfig(arm=1, seed=int(coords["seed"]))).tolist()


def test_cells_that_come_one_by_one_leave_few_files_also_where_several_read_at_once(tmp_path: Path) -> None:
    text = SWEEP.replace("seed: [0, 1, 2]", f"seed: {list(range(80))}")
    session = ran(tmp_path, text)
    cells = len(session.plan.points)
    for cell in range(0, cells, 16):
        PerPrompt(session, PLACE).read("score", [cell, cell + 1])
        assert len(cached_files(session)) <= 2
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: read(dataclasses.replace(session)), range(4)))
    assert all(by_cell(session, found) == expected(session) for found in results)
    told: list[tuple[int, int]] = []
    PerPrompt(session, PLACE).read("hit", range(cells), lambda done, total: told.append((done, total)))
    assert told == [(cells, cells)]


def test_an_object_store_is_read_like_a_folder(tmp_path: Path, s3: str) -> None:
    path = toy_sweep.write_sweep(tmp_path, SWEEP)
    session = open_session(path, outputs=str(tmp_path / "out"), store=s3)
    assert run_and_show(session, None, True, None) == 0
    session = dataclasses.replace(session)
    assert by_cell(session, read(session)) == expected(session)
    assert progress_of(session) == [(12, 12)]


#: All that may be wrong with a table.
ODD_AXIS = "axes: {odd: [sound, undefined, no column, texts, another mean, empty, no table, no file, raise], "

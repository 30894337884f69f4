from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reward_artifacts import write_embeddings, write_scores

from workers.reward_models import embeddings as module
from workers.reward_models.embeddings import Embeddings, open_embeddings, read_scores, require_aligned


def shards(tmp_path: Path, sizes: tuple[int, ...] = (3, 1, 4), dtype: str = "float32") -> tuple[list[Path], np.ndarray]:
    whole = np.random.default_rng(0).standard_normal((sum(sizes), 5, 7)).astype(dtype)
    parts = np.split(whole, np.cumsum(sizes)[:-1])
    return [write_embeddings(tmp_path / str(i), part) for i, part in enumerate(parts)], whole


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_rows_are_gathered_over_shards_in_the_order_asked_for_with_repetitions(tmp_path: Path, dtype: str) -> None:
    folders, whole = shards(tmp_path, dtype=dtype)
    source = open_embeddings(folders)
    assert (source.prompts, source.responses, source.dimension) == whole.shape
    rows = np.array([39, 0, 14, 15, 0, 19, 20, 39])
    gathered = source.gather(rows)
    assert gathered.dtype == np.float32
    assert np.array_equal(gathered, whole.reshape(-1, 7)[rows].astype(np.float32))


@given(rows=st.lists(st.integers(0, 39), max_size=60), piece=st.integers(1, 9))
def test_gathering_equals_indexing_the_whole(rows: list[int], piece: int) -> None:
    whole = np.arange(8 * 5 * 2, dtype=np.float32).reshape(8, 5, 2)
    source = Embeddings(tuple(np.split(whole, [3, 4])), (Path("a"), Path("b"), Path("c")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "GATHER_ROWS", piece)
        gathered = source.gather(np.array(rows, dtype=np.int64))
    assert np.array_equal(gathered, whole.reshape(-1, 2)[np.array(rows, dtype=np.int64)])


def test_embeddings_stay_on_disk_until_rows_are_asked_for(tmp_path: Path) -> None:
    source = open_embeddings(shards(tmp_path)[0])
    assert all(isinstance(shard, np.memmap) and not shard.flags.writeable for shard in source.shards)
    assert all(isinstance(block, np.memmap) for _, block in source.blocks(2))


@pytest.mark.parametrize("prompts", [1, 2, 3, 100])
def test_blocks_cover_all_prompts_in_order(tmp_path: Path, prompts: int) -> None:
    folders, whole = shards(tmp_path)
    blocks = list(open_embeddings(folders).blocks(prompts))
    assert all(1 <= len(block) <= prompts for _, block in blocks)
    assert all(np.array_equal(block, whole[first : first + len(block)]) for first, block in blocks)
    assert np.array_equal(np.concatenate([block for _, block in blocks]), whole)


@pytest.mark.parametrize("row", [-1, 40])
def test_a_row_outside_the_embeddings_is_refused(tmp_path: Path, row: int) -> None:
    with pytest.raises(ValueError, match=rf"row {row} is outside the 40 rows of .*embeddings\.npy"):
        open_embeddings(shards(tmp_path)[0]).gather(np.array([0, row]))


def test_an_embedding_that_is_not_finite_is_refused_with_its_file_and_row(tmp_path: Path) -> None:
    folders, whole = shards(tmp_path)
    broken = whole[4:].copy()
    broken[2, 3, 1] = np.inf
    write_embeddings(folders[2], broken)
    source = open_embeddings(folders)
    message = r"2/embeddings\.npy: row 13 is not finite"
    with pytest.raises(ValueError, match=message):
        source.gather(np.array([0, 20 + 13]))
    with pytest.raises(ValueError, match=message):
        list(source.blocks(2))
    assert len(source.gather(np.arange(20))) == 20


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 5, 7), dtype=np.float64), "expected float16 or float32"),
        (np.zeros((2, 5, 7), dtype=">f4"), "expected float16 or float32"),
        (np.zeros((2, 5), dtype=np.float32), r"expected \(prompts, responses, d\)"),
        (np.zeros((2, 0, 7), dtype=np.float32), "none of them 0"),
        (np.asfortranarray(np.ones((2, 5, 7), dtype=np.float32)), "Fortran order"),
        (np.zeros((2, 6, 7), dtype=np.float32), "does not continue"),
        (np.zeros((2, 5, 8), dtype=np.float32), "does not continue"),
    ],
)
def test_a_shard_of_another_kind_is_refused_by_name(tmp_path: Path, array: np.ndarray, message: str) -> None:
    folders, _ = shards(tmp_path)
    folders.append(write_embeddings(tmp_path / "odd", array))
    with pytest.raises(ValueError, match=rf"odd/embeddings\.npy: .*{message}"):
        open_embeddings(folders)


def test_a_damaged_or_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "torn").mkdir()
    whole = write_embeddings(tmp_path / "whole", np.zeros((2, 5, 7), dtype=np.float32)) / "embeddings.npy"
    for content in (b"", b"\x93NUM", b"not numpy at all", whole.read_bytes()[:-1]):
        (tmp_path / "torn" / "embeddings.npy").write_bytes(content)
        with pytest.raises(ValueError, match=r"torn/embeddings\.npy: not a readable"):
            open_embeddings([tmp_path / "torn"])
    with pytest.raises(FileNotFoundError, match=r"gone/embeddings\.npy"):
        open_embeddings([tmp_path / "gone"])
    with pytest.raises(ValueError, match="no shards"):
        open_embeddings([])


def test_scores_of_all_shards_are_one_array(tmp_path: Path) -> None:
    rewards = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    folders = [write_scores(tmp_path / "0", rewards[:2]), write_scores(tmp_path / "1", rewards[2:])]
    assert np.array_equal(read_scores(folders), rewards)
    assert read_scores(folders).dtype == np.float32


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_not_finite_is_refused_with_its_file_and_prompt(tmp_path: Path, value: float) -> None:
    rewards = np.zeros((4, 3))
    rewards[2, 1] = value
    with pytest.raises(ValueError, match=r"0/scores\.npy: row 2 is not finite"):
        read_scores([write_scores(tmp_path / "0", rewards)])


def test_scores_and_embeddings_of_different_responses_are_refused(tmp_path: Path) -> None:
    embedded = [write_embeddings(tmp_path / "e", np.zeros((4, 3, 2), dtype=np.float32))]
    require_aligned(embedded, [write_scores(tmp_path / "s", np.zeros((4, 3)))])
    for shape in ((3, 3), (4, 2), (2, 6)):
        with pytest.raises(ValueError, match=r"e/embeddings\.npy holds .*\(4, 3\), but .*s/scores\.npy holds"):
            require_aligned(embedded, [write_scores(tmp_path / "s", np.zeros(shape))])
    with pytest.raises(ValueError, match="1 shards of embeddings but 2 shards of scores"):
        require_aligned(embedded, [tmp_path / "s", tmp_path / "s"])

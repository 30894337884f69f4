"""Token ids in batches: what is cut and padded, and that batches shrink where memory runs out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from workers.language_models import models
from workers.language_models.batches import Passes, in_batches, pad, tokenise

pytestmark = pytest.mark.train


def test_long_texts_lose_their_beginning_but_not_the_bos_token(tiny_policy: Path) -> None:
    tokenizer = models.load_tokenizer(models.locate(tiny_policy))
    text = "\n\nHuman: paint the old boat with a brush\n\nAssistant: yes"
    (whole,) = tokenise(tokenizer, [text], 100)
    (cut,) = tokenise(tokenizer, [text], 6)
    assert cut == [tokenizer.bos_token_id, *whole[-5:]]


def test_padding_marks_what_is_real() -> None:
    left, left_mask = pad([[1, 2, 3], [4]], 9, "left")
    right, right_mask = pad([[1, 2, 3], [4]], 9, "right")
    assert left.tolist() == [[1, 2, 3], [9, 9, 4]]
    assert left_mask.tolist() == [[1, 1, 1], [0, 0, 1]]
    assert right.tolist() == [[1, 2, 3], [4, 9, 9]]
    assert right_mask.tolist() == [[1, 1, 1], [1, 0, 0]]


def test_a_pass_has_few_long_sequences_or_many_short_ones_and_never_more_tokens_than_it_has_room_for() -> None:
    lengths = [12, 10, 4, 4, 4, 3, 3, 3, 2, 11, 1]
    rows = [[1] * length for length in lengths]
    shapes: list[tuple[int, ...]] = []

    def forward(ids: torch.Tensor, mask: torch.Tensor) -> np.ndarray:
        shapes.append(tuple(ids.shape))
        return mask.sum(1).numpy()

    list(in_batches(rows, 0, Passes(12), forward))
    assert shapes == [(1, 12), (1, 11), (1, 10), (3, 4), (4, 3), (1, 1)]
    # One that has no room goes alone.
    shapes.clear()
    list(in_batches(rows, 0, Passes(11), forward))
    assert shapes == [(1, 12), (1, 11), (1, 10), (2, 4), (2, 4), (3, 3), (1, 1)]


def test_rows_pass_once_the_longest_first() -> None:
    rows = [[1] * length for length in (3, 9, 1, 9, 4)]
    passed = in_batches(rows, 0, Passes(18), lambda _, mask: mask.sum(1).numpy())
    seen = [(int(row), int(length)) for chosen, lengths in passed for row, length in zip(chosen, lengths, strict=True)]
    assert sorted(seen) == [(i, len(row)) for i, row in enumerate(rows)]
    assert [length for _, length in seen] == [9, 9, 4, 3, 1]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("CUDA error: out of memory"),
    ],
    ids=lambda error: f"{type(error).__name__}-{error}"[:40],
)
def test_a_batch_that_does_not_fit_is_halved_and_later_ones_with_it(
    error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    passes, tried = Passes(8 * 5), []

    def forward(batch: np.ndarray) -> list[int]:
        tried.append(len(batch))
        if len(batch) > 3:
            raise error
        return batch.tolist()  # type: ignore[no-any-return]

    passed = list(passes.apply(forward, np.arange(9), [5] * 9))
    assert tried == [8, 4, 2, 2, 2, 2, 1]
    assert [position for _, made in passed for position in made] == list(range(9))
    assert "8 sequences do not fit into memory: on with 4" in capsys.readouterr().out
    # Of the next window as well.
    assert [len(batch) for batch, _ in passes.apply(forward, np.arange(4), [5] * 4)] == [2, 2]


def test_one_sequence_that_does_not_fit_is_out_of_memory_and_other_errors_are_no_question_of_size() -> None:
    def fail(error: Exception) -> None:
        def forward(_: np.ndarray) -> None:
            raise error

        list(Passes(4).apply(forward, np.arange(4), [1] * 4))

    with pytest.raises(torch.OutOfMemoryError):
        fail(torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(RuntimeError, match="shapes do not match"):
        fail(RuntimeError("shapes do not match"))


def test_scores_texts_and_embeddings_are_the_same_where_batches_had_to_shrink(
    tiny_golden: Path, tiny_policy: Path, tiny_prompts: Path, tiny_responses: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    from workers.language_models.configs import EmbedConfig, GenerateConfig
    from workers.language_models.embed import embed
    from workers.language_models.generate import generate
    from workers.rewards.configs import ScoreConfig
    from workers.rewards.score import score

    def made(folder: Path) -> tuple[np.ndarray, np.ndarray, bytes]:
        for name in ("score", "embed", "generate"):
            (folder / name).mkdir(parents=True)
        score(ScoreConfig(), folder / "score", golden=tiny_golden, responses=tiny_responses)
        embed(EmbedConfig(), folder / "embed", responses=tiny_responses, policy=tiny_policy)
        config = GenerateConfig(split="train", responses=2, max_new_tokens=6)
        generate(config, folder / "generate", policy=tiny_policy, prompts=tiny_prompts)
        return (
            np.load(folder / "score" / "scores.npy"),
            np.load(folder / "embed" / "embeddings.npy"),
            (folder / "generate" / "responses.parquet").read_bytes(),
        )

    whole = made(tmp_path / "whole")
    forward = torch.nn.Embedding.forward

    def small(self: torch.nn.Embedding, ids: torch.Tensor) -> torch.Tensor:
        if len(ids) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, ids)

    monkeypatch.setattr(torch.nn.Embedding, "forward", small)
    halved = made(tmp_path / "halved")
    assert capsys.readouterr().out.count("do not fit into memory") >= 3
    assert np.allclose(whole[0], halved[0], atol=1e-5)
    assert np.allclose(whole[1], halved[1], atol=1e-5)
    assert whole[2] == halved[2]

"""Embeddings and golden rewards of several shards, read as one.

Prompts are counted over all shards in order; the *flat row* of a response is `prompt * responses + response`.
Embeddings stay memory-mapped (a test set as large as the paper's has 9.3 GB): only the rows that are needed are copied
and checked.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.reward_models.pairs import Rows

EMBEDDINGS_FILE = "embeddings.npy"
#: Written instead of `embeddings.npy` where the embeddings lie elsewhere: a published file is never copied.
REFERENCE_FILE = "reference.json"
SCORES_FILE = "scores.npy"

#: Rows copied at once: bounds the temporary of a gather to 32 MiB at d = 2,048.
GATHER_ROWS = 4096
#: Values of a block, whatever the shape of the embeddings: 64 MiB as float32.
BLOCK_VALUES = 2**24

Floats = NDArray[np.floating[Any]]


def write_scores(scores: NDArray[np.float32], out: Path) -> dict[str, float]:
    """Write golden rewards (prompts, responses) to `scores.npy`.

    Returns:
        `scored_responses`, their number; `mean_reward` and `sd_reward`, their mean and population standard deviation,
        in units of the golden reward.
    """
    np.save(out / SCORES_FILE, scores)
    wide = scores.astype(np.float64)
    return {"scored_responses": float(wide.size), "mean_reward": float(wide.mean()), "sd_reward": float(wide.std())}


@dataclass(frozen=True)
class Embeddings:
    """The embeddings of all responses, one memory map (prompts, responses, d) per shard.

    A map of a published file may be a transposed view, so no shard is ever reshaped as a whole.
    """

    shards: tuple[Floats, ...]
    files: tuple[Path, ...]

    @property
    def prompts(self) -> int:
        """Number of prompts in all shards."""
        return sum(shard.shape[0] for shard in self.shards)

    @property
    def responses(self) -> int:
        """Number of responses per prompt."""
        return int(self.shards[0].shape[1])

    @property
    def dimension(self) -> int:
        """Length d of one embedding."""
        return int(self.shards[0].shape[2])

    def gather(self, rows: Rows) -> NDArray[np.float32]:
        """Copy the embeddings of flat `rows` (n,), in that order and with repetitions, as float32 (n, d).

        Raises:
            ValueError: a row lies outside the embeddings, or an embedding is not finite; names the file.
        """
        total = self.prompts * self.responses
        if rows.size and (rows.min() < 0 or rows.max() >= total):
            bad = rows[(rows < 0) | (rows >= total)][0]
            raise ValueError(
                f"row {bad} is outside the {total} rows of {', '.join(map(str, self.files))}: the annotations were made"
                " on other responses than these embeddings"
            )
        gathered = np.empty((len(rows), self.dimension), dtype=np.float32)
        # In ascending order the memory map is read front to back, whatever the order of `rows`.
        order = np.argsort(rows, kind="stable")
        ascending = rows[order]
        first = 0
        for shard, file in zip(self.shards, self.files, strict=True):
            size = shard.shape[0] * self.responses
            begin, end = np.searchsorted(ascending, [first, first + size])
            for start in range(begin, end, GATHER_ROWS):
                piece = slice(start, min(start + GATHER_ROWS, end))
                local = ascending[piece] - first
                copied = shard[local // self.responses, local % self.responses]
                require_finite(copied, file, local)
                gathered[order[piece]] = copied
            first += size
        return gathered

    @property
    def block_prompts(self) -> int:
        """Number of prompts whose embeddings make a block of at most `BLOCK_VALUES` values; at least one."""
        return max(1, BLOCK_VALUES // (self.responses * self.dimension))

    def blocks(self, prompts: int | None = None) -> Iterator[tuple[int, Floats]]:
        """Yield (first prompt, view (<= `prompts`, responses, d)) over all prompts in order.

        Args:
            prompts: how many at once; `block_prompts` unless given.

        Raises:
            ValueError: an embedding of the block is not finite; names the file.
        """
        prompts = prompts or self.block_prompts
        first = 0
        for shard, file in zip(self.shards, self.files, strict=True):
            for start in range(0, len(shard), prompts):
                block = shard[start : start + prompts]
                flat = block.reshape(-1, self.dimension)
                require_finite(flat, file, range(start * self.responses, (start + len(block)) * self.responses))
                yield first + start, block
            first += len(shard)


def open_embeddings(folders: Sequence[Path]) -> Embeddings:
    """Memory-map `embeddings.npy` (prompts, responses, d), float16 or float32, of each shard, or the file it refers to.

    Raises:
        FileNotFoundError: a shard has no such file.
        ValueError: there is no shard, a file is damaged, has changed since it was referred to, or has another type or
            shape, or shards disagree; names the file.
    """
    opened = [_open_shard(folder) for folder in folders]
    shards, files = [shard for shard, _ in opened], [file for _, file in opened]
    return Embeddings(_alike(shards, files, 3, ("float16", "float32"), "(prompts, responses, d)"), tuple(files))


def write_reference(file: Path, transposed: bool, out: Path) -> None:
    """Make `out` an `embeddings` artifact that refers to a file, with its size and time of change.

    Args:
        file: `.npy` of shape (prompts, responses, d), or (responses, prompts, d) if transposed.
        transposed: which of the two shapes it has.
        out: folder of the artifact.
    """
    stat = file.stat()
    reference = {"path": str(file), "transposed": transposed, "bytes": stat.st_size, "changed": stat.st_mtime_ns}
    (out / REFERENCE_FILE).write_text(json.dumps(reference, indent=2) + "\n", encoding="utf-8")


def _open_shard(folder: Path) -> tuple[Floats, Path]:
    """Map a shard; return the map (prompts, responses, d) and the mapped file."""
    file, transposed = folder / EMBEDDINGS_FILE, False
    if (folder / REFERENCE_FILE).is_file():
        reference = json.loads((folder / REFERENCE_FILE).read_text(encoding="utf-8"))
        file, transposed = Path(reference["path"]), reference["transposed"]
        try:
            stat = file.stat()
        except FileNotFoundError as error:
            message = f"{file} is gone, to which {folder} refers; put it back, or delete that folder"
            raise FileNotFoundError(message) from error
        if (stat.st_size, stat.st_mtime_ns) != (reference["bytes"], reference["changed"]):
            raise ValueError(f"{file}: changed since {folder} referred to it; put it back, or delete that folder")
    array = open_npy(file)
    if not array.flags.c_contiguous:
        # The numbers of one embedding would lie all over the file.
        raise ValueError(f"{file}: stored in Fortran order, expected C order")
    return (array.transpose(1, 0, 2) if transposed else array), file


def read_scores(folders: Sequence[Path]) -> NDArray[np.float32]:
    """Read `scores.npy` of each shard folder into one float32 array (prompts, responses).

    Raises:
        FileNotFoundError: a shard has no such file.
        ValueError: there is no shard, a file is damaged or has another type or shape, shards disagree, or a reward is
            not finite; names the file.
    """
    files = tuple(folder / SCORES_FILE for folder in folders)
    shards = _alike([open_npy(file) for file in files], files, 2, ("float32",), "(prompts, responses)")
    for shard, file in zip(shards, files, strict=True):
        require_finite(shard, file, range(len(shard)))
    return np.concatenate(shards).astype(np.float32, copy=False)


def require_aligned(embeddings: Sequence[Path], scores: Sequence[Path]) -> None:
    """Check that the shards of `embeddings` and `scores` hold the same prompts and responses, shard by shard.

    Raises:
        ValueError: the numbers of shards, prompts or responses differ; names both files.
    """
    if len(embeddings) != len(scores):
        raise ValueError(f"{len(embeddings)} shards of embeddings but {len(scores)} shards of scores")
    for embedding_folder, score_folder in zip(embeddings, scores, strict=True):
        shard, embedding_file = _open_shard(embedding_folder)
        embedded, score_file = shard.shape[:2], score_folder / SCORES_FILE
        scored = open_npy(score_file).shape
        if embedded != scored:
            raise ValueError(
                f"{embedding_file} holds (prompts, responses) {embedded}, but {score_file} holds {scored}: they were"
                " made from different responses"
            )


def open_npy(file: Path) -> Floats:
    """Memory-map a `.npy` file, read-only.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no `.npy` file, or a truncated one; names the file.
    """
    try:
        array: Floats = np.lib.format.open_memmap(file, mode="r")
    except ValueError as error:
        raise ValueError(f"{file}: not a readable, non-empty .npy file ({error})") from error
    return array


def _alike(
    shards: Sequence[Floats], files: Sequence[Path], dimensions: int, dtypes: Sequence[str], shape: str
) -> tuple[Floats, ...]:
    """Check that the shards have the given type and shape and agree in all but their first axis; return them."""
    if not files:
        raise ValueError("no shards given")
    for shard, file in zip(shards, files, strict=True):
        if shard.dtype.name not in dtypes or not shard.dtype.isnative:
            raise ValueError(f"{file}: type {shard.dtype.str}, expected {' or '.join(dtypes)}")
        if shard.ndim != dimensions or 0 in shard.shape:
            raise ValueError(f"{file}: shape {shard.shape}, expected {shape} with none of them 0")
        if shard.shape[1:] != shards[0].shape[1:]:
            raise ValueError(f"{file}: shape {shard.shape} does not continue {files[0]} of shape {shards[0].shape}")
    return tuple(shards)


def require_finite(values: Floats, file: Path, rows: Rows | range) -> None:
    """Check that `values` (n, k) hold neither NaN nor infinity; `rows` (n,) are their rows in the file.

    Raises:
        ValueError: they do; names the file and the first such row.
    """
    finite = np.isfinite(values)
    if not finite.all():
        row = rows[int(np.argmin(finite.all(axis=1)))]
        raise ValueError(f"{file}: row {row} is not finite")

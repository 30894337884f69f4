"""Golden rewards and embeddings of several shards, read as one.

Prompts are counted over all shards in order; the *flat row* of a response is `prompt * responses + response`.
Embeddings stay memory-mapped (a paper-sized test set is 9.3 GB): only the rows that are asked for are copied and
checked.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers import tables

EMBEDDINGS_FILE = "embeddings.npy"
#: Stands in for `embeddings.npy` where the embeddings lie elsewhere: a paper-sized file is never copied.
REFERENCE_FILE = "reference.json"
SCORES_FILE = "scores.npy"
ANNOTATIONS_FILE = "annotations.parquet"

#: Rows copied at once: bounds the temporary of a gather to 32 MiB at d = 2,048.
GATHER_ROWS = 4096

Floats = NDArray[np.floating[Any]]
Rows = NDArray[np.int64]


def write_scores(scores: NDArray[np.float32], out: Path) -> dict[str, float]:
    """Write golden rewards (prompts, responses) to `scores.npy`.

    Returns:
        `scored_responses`: how many; `mean_reward` and `sd_reward` (population) over all of them.
    """
    np.save(out / SCORES_FILE, scores)
    wide = scores.astype(np.float64)
    return {"scored_responses": float(wide.size), "mean_reward": float(wide.mean()), "sd_reward": float(wide.std())}


@dataclass(frozen=True)
class Embeddings:
    """Embeddings of all responses, one memory map (prompts, responses, d) per shard.

    A map of a published file may be a transposed view, so no shard is ever reshaped as a whole.
    """

    shards: tuple[Floats, ...]
    files: tuple[Path, ...]

    @property
    def prompts(self) -> int:
        """Prompts over all shards."""
        return sum(shard.shape[0] for shard in self.shards)

    @property
    def responses(self) -> int:
        """Responses per prompt."""
        return int(self.shards[0].shape[1])

    @property
    def dimension(self) -> int:
        """Length d of one embedding."""
        return int(self.shards[0].shape[2])

    def gather(self, rows: Rows) -> NDArray[np.float32]:
        """Copy the embeddings of flat `rows` (n,), in that order and with repetitions, as float32 (n, d).

        Raises:
            ValueError: a row lies outside, or is not finite; the message names the file.
        """
        total = self.prompts * self.responses
        if rows.size and (rows.min() < 0 or rows.max() >= total):
            bad = rows[(rows < 0) | (rows >= total)][0]
            raise ValueError(
                f"row {bad} is outside the {total} rows of {', '.join(map(str, self.files))}: the annotations were made"
                " on other responses than these embeddings"
            )
        gathered = np.empty((len(rows), self.dimension), dtype=np.float32)
        # In ascending order the memory map is read front to back, whatever order was asked for.
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

    def blocks(self, prompts: int) -> Iterator[tuple[int, Floats]]:
        """Yield (first prompt, view (<= `prompts`, responses, d)) over all prompts in order.

        Raises:
            ValueError: an embedding of the block is not finite; the message names the file.
        """
        first = 0
        for shard, file in zip(self.shards, self.files, strict=True):
            for start in range(0, len(shard), prompts):
                block = shard[start : start + prompts]
                flat = block.reshape(-1, self.dimension)
                require_finite(flat, file, np.arange(len(flat)) + start * self.responses)
                yield first + start, block
            first += len(shard)


def open_embeddings(folders: Sequence[Path]) -> Embeddings:
    """Memory-map `embeddings.npy` (prompts, responses, d), float16 or float32, of each shard folder or what it names.

    Raises:
        FileNotFoundError: a shard has no such file.
        ValueError: no shard at all, a damaged file, one that changed since it was referred to, another type or shape,
            or shards that disagree; names the file.
    """
    opened = [_open_shard(folder) for folder in folders]
    shards, files = [shard for shard, _ in opened], [file for _, file in opened]
    return Embeddings(_alike(shards, files, 3, ("float16", "float32"), "(prompts, responses, d)"), tuple(files))


def write_reference(file: Path, transposed: bool, out: Path) -> None:
    """Make `out` an embeddings artifact that refers to a file.

    Args:
        file: (prompts, responses, d), or (responses, prompts, d) if it is transposed.
        transposed: whether it is.
        out: the folder.
    """
    stat = file.stat()
    reference = {"path": str(file), "transposed": transposed, "bytes": stat.st_size, "changed": stat.st_mtime_ns}
    (out / REFERENCE_FILE).write_text(json.dumps(reference, indent=2) + "\n", encoding="utf-8")


def _open_shard(folder: Path) -> tuple[Floats, Path]:
    """The map of a shard and the file that it is a map of."""
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
        ValueError: no shard at all, a damaged file, another type or shape, shards that disagree, or a reward that is
            not finite; names the file.
    """
    files = tuple(folder / SCORES_FILE for folder in folders)
    shards = _alike([open_npy(file) for file in files], files, 2, ("float32",), "(prompts, responses)")
    for shard, file in zip(shards, files, strict=True):
        require_finite(shard, file, np.arange(len(shard)))
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


def read_pairs(annotations: Path) -> tuple[Rows, Rows]:
    """Read the flat rows of winners (n,) and losers (n,) from an annotations folder.

    Raises:
        FileNotFoundError: the folder has no `annotations.parquet`.
        ValueError: the table has another shape, or no rows; names the file.
    """
    file = annotations / ANNOTATIONS_FILE
    table = tables.read_table(file, tables.ANNOTATIONS)
    if table.num_rows == 0:
        raise ValueError(f"{file}: no annotations")
    # to_numpy would import pandas, of which a fit needs nothing: 0.3 s and 27 MB of its process.
    winner, loser = (np.from_dlpack(table[name].combine_chunks()) for name in ("winner", "loser"))
    return np.asarray(winner, np.int64), np.asarray(loser, np.int64)


def open_npy(file: Path) -> Floats:
    """Memory-map a file.

    Raises:
        FileNotFoundError: there is none.
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
    """The shards, once it is sure that they fit together."""
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


def require_finite(values: Floats, file: Path, rows: Rows) -> None:
    """Refuse `values` (n, k) that hold NaN or infinity; `rows` (n,) says where in the file they come from.

    Raises:
        ValueError: with the file and the first such row.
    """
    finite = np.isfinite(values)
    if not finite.all():
        row = rows[~finite.all(axis=1)][0]
        raise ValueError(f"{file}: row {row} is not finite")

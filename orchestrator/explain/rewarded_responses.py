"""Responses beside the rewards that other artifacts of the same cell have for them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from orchestrator.explain.artifact_files import ArtifactFiles
from orchestrator.explain.cell_artifacts import CellArtifacts
from orchestrator.explain.file_views import UNREADABLE, open_parquet, read_records
from orchestrator.explain.views import Prompt, Response, ResponsesView, Reward, shortened
from orchestrator.run.schedule import State
from orchestrator.store import DamagedArtifactError
from orchestrator.types import Artifact, Step
from workers.device import gpu_promised, promise_gpu
from workers.reward_models.embeddings import SCORES_FILE, open_embeddings
from workers.reward_models.heads import load_reward_head
from workers.tables import RESPONSES

#: So many prompts are shown, and so many responses to each.
_PROMPTS, _RESPONSES = 3, 3

#: Rewards of the responses that are shown, (prompts, responses).
_Rewards = npt.NDArray[np.float64]


def responses_view(cell: CellArtifacts, artifact: Artifact, files: ArtifactFiles) -> ResponsesView | None:
    """Show the first responses to the first prompts, with golden and learned rewards; None if they are far away.

    Golden rewards are read from the scores of these responses. Learned ones are stored nowhere; they are computed for
    the few responses that are shown, on the CPU, where the cell has a reward model and these responses' embeddings.

    Raises:
        DamagedArtifactError: the responses are missing or altered.
        StoreError: the store cannot be read.
        OSError, ValueError or another of UNREADABLE: they are no responses.
    """
    source = files.open(RESPONSES.file)
    if source is None:
        return None
    with open_parquet(source) as file:
        each = _responses_each(file)
        total = file.metadata.num_rows // each if each else 0
        shape = min(total, _PROMPTS), min(each, _RESPONSES)
        rows = [read_records(file, prompt * each, shape[1]) for prompt in range(shape[0])]
    golden, from_scores = _golden(cell, artifact, (total, each), shape)
    learned, from_model = _learned(cell, artifact, shape)
    prompts = tuple(
        Prompt(
            row[0]["prompt_id"],
            shortened(row[0]["prompt"]),
            tuple(
                Response(
                    one["response_id"],
                    shortened(one["response"]),
                    None if golden is None else float(golden[at, place]),
                    None if learned is None else float(learned[at, place]),
                )
                for place, one in enumerate(row)
            ),
        )
        for at, row in enumerate(rows)
    )
    return ResponsesView(RESPONSES.file, prompts, total, each, from_scores, from_model)


def _responses_each(file: pq.ParquetFile) -> int:
    """Count the responses to the first prompt, which are as many as to every other one."""
    count, first = 0, None
    for batch in file.iter_batches(1024, columns=["prompt_id"], use_threads=False):
        for prompt in batch.column(0).to_pylist():
            first = prompt if first is None else first
            if prompt != first:
                return count
            count += 1
    return count


def _golden(
    cell: CellArtifacts, artifact: Artifact, whole: tuple[int, int], shape: tuple[int, int]
) -> tuple[_Rewards | None, Reward]:
    step = next(cell.readers(artifact, "scores"), None)
    if step is None or cell.of_kind(step, "responses") != (artifact,):
        return None, Reward(None, "no entry of this cell scores these responses")
    if cell.state(step.address) != State.COMMITTED:
        return None, Reward(step.entry, "not there yet")
    try:
        files = _there(cell, step)
        source = files.open(SCORES_FILE)
        if source is None:
            return None, Reward(step.entry, "the file is too large to be fetched for a look")
        scores = np.load(io.BytesIO(source)) if isinstance(source, bytes) else np.load(source, mmap_mode="r")
        if scores.shape != whole:
            return None, Reward(step.entry, f"its scores of shape {scores.shape} do not fit {whole} responses")
        return scores[: shape[0], : shape[1]].astype(np.float64), Reward(step.entry, None)
    except (DamagedArtifactError, *UNREADABLE) as error:
        return None, Reward(step.entry, f"cannot be read: {error}")


def _learned(cell: CellArtifacts, artifact: Artifact, shape: tuple[int, int]) -> tuple[_Rewards | None, Reward]:
    embedded = next(cell.readers(artifact, "embeddings"), None)
    reader = next(cell.readers(embedded.address, "evaluation"), None) if embedded else None
    model = cell.of_kind(reader, "reward_model") if reader else ()
    if embedded is None or not model:
        return None, Reward(None, "not stored, and no reward model of this cell is evaluated on these responses")
    entry, needed = cell.entry(model[0]), (embedded, cell.step(model[0]))
    if missing := [step.entry for step in needed if cell.state(step.address) != State.COMMITTED]:
        return None, Reward(entry, f"not stored, and {' and '.join(missing)} not there yet to compute them from")
    try:
        folders = [_there(cell, each).folder() for each in needed]
        if folders[0] is None or folders[1] is None:
            return None, Reward(entry, f"not stored, and {embedded.entry} is too large to be fetched for a look")
        note = f"computed here from {embedded.entry}, on a scale of its own"
        return _predict(folders[0], folders[1], shape), Reward(entry, note)
    except (DamagedArtifactError, *UNREADABLE) as error:
        return None, Reward(entry, f"not stored, and cannot be computed here: {error}")


def _predict(embeddings: Path, model: Path, shape: tuple[int, int]) -> _Rewards:
    """Compute the rewards of the first responses to the first prompts."""
    source = open_embeddings([embeddings])
    rows = (np.arange(shape[0])[:, None] * source.responses + np.arange(shape[1])).ravel()
    before = gpu_promised()
    # Whoever only looks takes no GPU from those who compute.
    promise_gpu(False)
    try:
        return load_reward_head(model).predict(source.gather(rows)).astype(np.float64).reshape(shape)
    finally:
        promise_gpu(before)


def _there(cell: CellArtifacts, step: Step) -> ArtifactFiles:
    """Return the files of the artifact that a step made. Raises DamagedArtifactError."""
    files = cell.files(step.address)
    if isinstance(files, DamagedArtifactError):
        raise files
    return files

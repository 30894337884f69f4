"""Stage `embed`: one vector for each prompt + response."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap
from transformers import AutoModel, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import cached_file

from workers import precision
from workers.checkpoints import NONE, Checkpoints, keep_rows, restore_rows
from workers.data.responses import read_responses
from workers.device import device
from workers.device_memory import require_room
from workers.language_models import batches, models
from workers.language_models.batches import Passes
from workers.language_models.configs import EmbedConfig
from workers.language_models.last_states import last_states
from workers.model_cache import cached_model
from workers.progress import Progress

#: A function from the prompts and the responses of one window to positions in it and the vectors of the texts, float32
#: of shape (positions, d).
Embedder = Callable[[list[str], list[str]], Iterator[tuple[np.ndarray, np.ndarray]]]


def embed(
    config: EmbedConfig,
    out: Path,
    *,
    responses: Path,
    policy: Path | None = None,
    batch_size: int = 64,
    checkpoints: Checkpoints = NONE,
) -> dict[str, float]:
    """Embed every response with its prompt.

    The vector is the last-layer hidden state (after the final norm, as transformers returns it) at the last real token
    of prompt + response, computed in `dtype` (float32: arXiv 2411.04991, section 4); a prompt is read once for all its
    responses. A sentence-transformers model instead pools and normalises as it was published. Texts longer than
    `max_tokens` lose their beginning.

    Args:
        config: which model; None means `policy`.
        out: receives `embeddings.npy`, `stored_dtype` of shape (prompts, responses, d), in the order of `responses`.
            It is written through a memory map, so that RAM holds only a few batches.
        responses: artifact of the responses.
        policy: artifact of the model that embeds when the config names none.
        batch_size: texts of `max_tokens` per forward pass, more if they are shorter, fewer where memory runs out.
        checkpoints: those of the step.

    Returns:
        `embedding_dimension`: d.

    Raises:
        ValueError: no model, tf32 where there is none, or an embedding that is not finite as stored (prompt and
            response named).
        FileNotFoundError: the model cannot be read.
        NoRoomError: it does not fit into the free memory of the GPU.
    """
    named = config.model or policy
    if named is None:
        raise ValueError("embed needs a model: give `model`, or a `policy` input")
    precision.require(config.dtype)
    source = models.locate(named)
    make = _sentence_embedder if _is_sentence_model(source) else _last_token
    embedder = make(source, config, batch_size)
    rows = read_responses([responses])
    total = rows.table.num_rows
    stored: np.memmap | None = None

    def of_dimension(dimension: int) -> np.ndarray:
        """Return the stored vectors (responses of all prompts, d), which are made when d is known."""
        nonlocal stored
        if stored is None:
            shape = (rows.prompts, rows.responses, dimension)
            stored = open_memmap(out / "embeddings.npy", mode="w+", dtype=config.stored_dtype, shape=shape)
        return stored.reshape(total, -1)

    done = kept = restore_rows(checkpoints, lambda vectors: of_dimension(vectors.shape[1]))
    progress = Progress("responses", total, done)
    for start, prompts, answers in rows.windows(batch_size * batches.WINDOW, done):
        for chosen, vectors in embedder(prompts, answers):
            flat = of_dimension(vectors.shape[1])
            with np.errstate(over="ignore"):  # an overflow is found, and named, in the next line
                vectors = vectors.astype(config.stored_dtype)
            bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
            if len(bad):
                name = rows.name(start + int(chosen[bad[0]]))
                raise ValueError(f"{name}: the embedding is not finite as {config.stored_dtype}")
            flat[start + chosen] = vectors
        done = start + len(prompts)
        progress.show(done)
        if done < total and checkpoints.due():
            kept = keep_rows(checkpoints, flat, kept, done)
    assert stored is not None, "read_responses refuses an empty table"
    stored.flush()
    return {"embedding_dimension": float(stored.shape[2])}


def _last_token(source: models.Source, config: EmbedConfig, batch_size: int) -> Embedder:
    def load() -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
        tokenizer = models.load_tokenizer(source)
        # Encoders have a pooler that nothing here reads, and that checkpoints may lack.
        model = models.load_model(source, AutoModel, tokenizer, dtype=config.dtype, new=("pooler.",))
        return tokenizer, model.to(device())

    tokenizer, model = cached_model(("embed", source.state(), models.weight_type(config.dtype)), load)
    limit = models.token_limit(model, tokenizer, config.max_tokens)
    passes = Passes(batch_size * limit, config.dtype)

    def vectors(prompts: list[str], answers: list[str]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        rows = batches.tokenise(tokenizer, _texts(prompts, answers), limit)
        for chosen, states in last_states(model, rows, prompts, tokenizer.pad_token_id, passes):
            yield chosen, np.asarray(states.float().cpu().numpy())

    return vectors


def _sentence_embedder(source: models.Source, config: EmbedConfig, batch_size: int) -> Embedder:
    # Here and not above: the import takes seconds, and most models do not need it.
    from sentence_transformers import SentenceTransformer

    def load() -> tuple[SentenceTransformer, int | None]:
        options = {"dtype": models.weight_type(config.dtype)}
        model = SentenceTransformer(source.name, revision=source.revision, device="cpu", model_kwargs=options)
        require_room(sum(weight.nbytes for weight in model.parameters()), source.name)
        return model.to(device()), model.max_seq_length

    model, published = cached_model(("sentences", source.state(), models.weight_type(config.dtype)), load)
    model.max_seq_length = limit = min(config.max_tokens, published or config.max_tokens)
    model.tokenizer.truncation_side = "left"
    passes = Passes(batch_size * limit, config.dtype)

    def vectors(prompts: list[str], answers: list[str]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        texts = _texts(prompts, answers)
        # In the order in which `encode` itself would make batches; one at a time, so that it can be cut.
        order = np.argsort([-len(text) for text in texts])
        yield from passes.apply(
            lambda chosen: model.encode([texts[i] for i in chosen], batch_size=len(chosen), show_progress_bar=False),
            order,
            [limit] * len(texts),  # how long they are is known only to `encode`
        )

    return vectors


def _texts(prompts: list[str], answers: list[str]) -> list[str]:
    return [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)]


def _is_sentence_model(source: models.Source) -> bool:
    if source.adapter:
        return False
    if source.local:
        return (Path(source.name) / "modules.json").is_file()
    found = cached_file(
        source.name,
        "modules.json",
        revision=source.revision,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return found is not None

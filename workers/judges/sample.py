"""Stage `judge_sample`: judgments of pairs of answers by a generative judge."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from workers.checkpoints import NONE, Checkpoints
from workers.judges.asks import Ask, ShownPair, draw_pairs
from workers.judges.backends import endpoint
from workers.judges.backends.configs import EndpointJudge, LocalJudge, RecordedJudge
from workers.judges.backends.recorded import chosen_judgments, read_recorded
from workers.judges.configs import JudgeSampleConfig
from workers.judges.requests import TOO_LONG, Written, format_judgment
from workers.tables import JUDGMENTS


def judge_sample(
    config: JudgeSampleConfig,
    out: Path,
    *,
    preferences: Path,
    judge: Path | None = None,
    batch_size: int = 64,
    checkpoints: Checkpoints = NONE,
) -> dict[str, float]:
    """Let a judge write `samples` judgments of each pair and order, and with `hints` two more.

    A pair is a prompt and two answers. Order and wording are drawn per pair (`asks.draw_pairs`), and each judgment has
    a random stream of its own, from the seed and the texts: rows, shards and labels around it change nothing, except
    through rounding in the forward pass.

    With `hints` one request gives the first answer as the better one, and another the second. The judge then writes
    only the rationale, and the verdict of the hint is added (Con-J, arXiv 2410.03742, section 3.1). Later stages decide
    which hint was true, and the use of the judgments.

    A text begins with one space, whatever its source, so that nothing but its words gives the source away.

    A request is never cut: one that is too long, like one that a server refuses, gets a row without text, and the
    reason in the column `unread`.

    Args:
        config: settings of the requests and of sampling.
        out: receives `judgments.parquet`; those of a pair and order lie together, repeated ones before hinted ones.
        preferences: artifact of the pairs.
        judge: artifact of the model that judges, needed by a local backend and not used by the others.
        batch_size: texts per forward pass of a local model with transformers.
        checkpoints: those of the step, for a local model; a server's answers are kept anyway.

    Returns:
        `judgments`: rows written. `mean_judgment_tokens`: mean new tokens of these, EOS not counted; the server's own
        count for an endpoint. `judge_too_long`: rows without text because the request is too long. `judge_refused`:
        rows without text for another reason. `judge_cost`: dollars for all the judgments, whenever they were paid.
        `judge_requests`: rows that were requested from the server.

    Raises:
        ValueError: the shard is empty, judgments are not recorded, or what `judgments_by_model`, `endpoint.ask` and
            `read_recorded` raise.
    """
    backend = config.backend
    recorded = read_recorded(backend, config.form, config.rationale) if isinstance(backend, RecordedJudge) else {}
    pairs = draw_pairs(config, preferences, recorded)
    asks = [Ask(pair, 0, number) for pair in pairs for number in range(config.samples)]
    if config.hints:
        asks += [Ask(pair, hint, 0) for pair in pairs for hint in (1, 2)]
    metrics: dict[str, float] = {}
    if isinstance(backend, RecordedJudge):
        written = chosen_judgments(backend, recorded, asks)
    else:
        if isinstance(backend, EndpointJudge):
            written, metrics = _by_endpoint(config, backend, asks)
        else:
            written, metrics = _by_model(config, backend, asks, judge, batch_size, checkpoints)
        written = [_with_hinted_verdict(config, ask, each) for ask, each in zip(asks, written, strict=True)]
        too_long = sum(each.unread.startswith(TOO_LONG) for each in written)
        metrics["judge_too_long"] = float(too_long)
        if isinstance(backend, EndpointJudge):
            metrics["judge_refused"] = float(sum(bool(each.unread) for each in written) - too_long)
    _write(config, out, pairs, asks, written)
    return {"judgments": float(len(written)), **metrics}


def _by_model(
    config: JudgeSampleConfig,
    backend: LocalJudge,
    asks: Sequence[Ask],
    judge: Path | None,
    batch_size: int,
    checkpoints: Checkpoints,
) -> tuple[list[Written], dict[str, float]]:
    # Judges behind a server, or in a file, need no torch.
    from workers.judges.backends.local import judgments_by_model

    written, tokens = judgments_by_model(config, backend, asks, judge, batch_size, checkpoints)
    return written, {"mean_judgment_tokens": tokens / len(written)}


def _by_endpoint(
    config: JudgeSampleConfig, backend: EndpointJudge, asks: Sequence[Ask]
) -> tuple[list[Written], dict[str, float]]:
    questions = [
        endpoint.Question(
            dialogue=ask.dialogue(config),
            label=ask.label,
            seed=config.seed,
            temperature=config.hint_temperature if ask.hint else config.temperature,
            top_p=config.hint_top_p if ask.hint else config.top_p,
            repetition_penalty=config.repetition_penalty,
            max_new_tokens=config.max_new_tokens,
        )
        for ask in asks
    ]
    answers = endpoint.ask(backend, questions)
    return [Written(answer.text, answer.unread) for answer in answers], {
        "mean_judgment_tokens": sum(answer.answer_tokens or 0 for answer in answers) / len(answers),
        "judge_cost": sum(endpoint.cost(backend, answer) for answer in answers),
        "judge_requests": float(len(answers)),
    }


def _with_hinted_verdict(config: JudgeSampleConfig, ask: Ask, written: Written) -> Written:
    """Make a whole judgment of the rationale that answers a request with a hint."""
    if not ask.hint or written.unread:
        return written
    return Written(format_judgment(written.text, ask.hint, config.form))


def _write(
    config: JudgeSampleConfig, out: Path, pairs: Sequence[ShownPair], asks: Sequence[Ask], written: Sequence[Written]
) -> None:
    place = {pair: i for i, pair in enumerate(pairs)}
    rows = sorted(zip(asks, written, strict=True), key=lambda row: (place[row[0].pair], row[0].hint, row[0].sample))
    requests = {pair: pair.request(config) for pair in pairs}
    JUDGMENTS.write(
        {
            "prompt": [ask.pair.prompt for ask, _ in rows],
            "first": [ask.pair.first for ask, _ in rows],
            "second": [ask.pair.second for ask, _ in rows],
            "drawn": [ask.pair.drawn for ask, _ in rows],
            "hint": [ask.hint for ask, _ in rows],
            "sample": [ask.sample for ask, _ in rows],
            "request": [requests[ask.pair] for ask, _ in rows],
            # As every answer. Without the space "Assistant:{" would be learned with a token that no prompt ends before.
            "text": [f" {each.text.strip()}" for _, each in rows],
            "unread": [each.unread for _, each in rows],
        },
        out,
    )

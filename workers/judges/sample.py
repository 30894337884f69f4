"""Stage `judge_sample`: what a generative judge writes about pairs of answers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from workers.judges.backends import endpoint
from workers.judges.backends.configs import EndpointJudge, LocalJudge, RecordedJudge
from workers.judges.backends.recorded import Shown, recorded_judgments
from workers.judges.configs import JudgeSampleConfig
from workers.judges.requests import TOO_LONG, Written, hinted_request, judgment, request
from workers.language_models import models
from workers.language_models.sampling import Sampling, sample, too_long_prompts
from workers.seeding import generator
from workers.tables import JUDGMENTS, PREFERENCES, read_table, write_table


@dataclass(frozen=True)
class _Pair:
    """A pair of answers in the order in which the judge sees it."""

    prompt: str
    first: str
    second: str
    drawn: bool
    wording: int


@dataclass(frozen=True)
class _Ask:
    """One judgment to be written."""

    pair: _Pair
    hint: int
    sample: int

    @property
    def shown(self) -> Shown:
        """The pair in its order, and the hint."""
        return (self.pair.prompt, self.pair.first, self.pair.second, self.hint)

    @property
    def label(self) -> str:
        """Names the random stream of the judgment by its texts, so nothing else matters to it."""
        return f"judge_sample/{_digest(*self.shown, self.sample)}"


def judge_sample(
    config: JudgeSampleConfig, out: Path, *, preferences: Path, judge: Path | None = None
) -> dict[str, float]:
    """Write `judgments.parquet`: for each pair and order `samples` judgments, and with `hints` two more.

    A pair is a prompt and two answers; which one is preferred matters only where `chosen_first` is not 0.5. A pair that
    several rows have is judged once. Order and wording are drawn per pair, and each judgment has a random stream of
    its own, from the seed and the texts: rows, shards and labels around it change nothing, except through rounding in
    the forward pass. A shard is a contiguous block of the pairs in the order of their first rows (`numpy.array_split`).

    With `hints` the judge is told once that the first answer is the better one, and once that the second is. It then
    writes only the rationale, and the verdict that was hinted at is added (Con-J, arXiv 2410.03742, section 3.1).
    Whichever hint was true, and what the judgments are good for, is for later stages to say.

    Whoever wrote it, a text begins with one space, so that nothing but its words tells where it is from.

    A request is asked whole or not at all: one that is longer than there is room for, like one that a server refuses,
    gets a row without text, whose column `unread` says why.

    Args:
        config: how to ask.
        out: receives `judgments.parquet`.
        preferences: artifact of the pairs.
        judge: artifact of the model that judges, needed by a local backend and not used by the others.

    Returns:
        judgments: rows written. mean_judgment_tokens: mean new tokens of these, EOS not counted; the server's own count
        for an endpoint. judge_too_long: rows without text because the request is too long. judge_refused: rows without
        text for another reason. judge_cost: dollars for all the judgments, whenever they were paid. judge_requests:
        rows that the server was asked for.

    Raises:
        ValueError: there is no `judge`, the shard is empty, judgments are not recorded, or what `sample`,
            `endpoint.ask` and `recorded_judgments` raise.
    """
    recorded = (
        recorded_judgments(config.backend, config.form, config.rationale)
        if isinstance(config.backend, RecordedJudge)
        else {}
    )
    pairs = _pairs(config, preferences, recorded)
    plain = [_Ask(pair, 0, number) for pair in pairs for number in range(config.samples)]
    hinted = [_Ask(pair, hint, 0) for pair in pairs for hint in (1, 2)] if config.hints else []
    metrics: dict[str, float] = {}
    if isinstance(config.backend, LocalJudge):
        written, metrics = _by_model(config, config.backend, plain, hinted, judge)
    elif isinstance(config.backend, EndpointJudge):
        written, metrics = _by_endpoint(config, config.backend, plain, hinted)
    else:
        written = _from_file(config.backend, recorded, [*plain, *hinted])
    if not isinstance(config.backend, RecordedJudge):
        for i, ask in enumerate(hinted, start=len(plain)):
            if not written[i].unread:
                written[i] = Written(judgment(written[i].text, ask.hint, config.form))
        too_long = sum(each.unread.startswith(TOO_LONG) for each in written)
        metrics["judge_too_long"] = float(too_long)
        if isinstance(config.backend, EndpointJudge):
            metrics["judge_refused"] = float(sum(bool(each.unread) for each in written) - too_long)
    _write(config, out, pairs, [*plain, *hinted], written)
    return {"judgments": float(len(written)), **metrics}


# --- what is asked ---------------------------------------------------------------------------------------------------


def _pairs(config: JudgeSampleConfig, preferences: Path, recorded: dict[Shown, list[Written]]) -> list[_Pair]:
    """The pairs of the shard, each in the drawn order, or in both with the drawn one first."""
    path = preferences / "preferences.parquet"
    table = read_table(path, PREFERENCES)
    chosen_of: dict[tuple[str, str, str], str] = {}
    for row in table.select(["prompt", "chosen", "rejected"]).to_pylist():
        low, high = sorted((row["chosen"], row["rejected"]))
        chosen_of.setdefault((row["prompt"], low, high), row["chosen"])
    distinct = list(chosen_of.items())[: config.limit]
    block = np.array_split(np.arange(len(distinct)), config.shards)[config.shard]
    if not len(block):
        raise ValueError(f"{path}: shard {config.shard} of {config.shards} is empty: {len(distinct)} pairs")
    pairs = []
    for (prompt, low, high), chosen in (distinct[i] for i in block):
        uniform, wording = _draws(config, prompt, low, high)
        first, second = low, high
        if config.chosen_first == 0.5:
            turned = uniform >= 0.5
            # Only one order was recorded: it was drawn back then.
            if _any(recorded, prompt, low, high) != _any(recorded, prompt, high, low):
                turned = _any(recorded, prompt, high, low)
        else:
            turned = (first == chosen) != (uniform < config.chosen_first)
        if turned:
            first, second = second, first
        pairs.append(_Pair(prompt, first, second, True, wording))
        if config.orders == "both":
            pairs.append(_Pair(prompt, second, first, False, wording))
    return pairs


def _draws(config: JudgeSampleConfig, prompt: str, low: str, high: str) -> tuple[float, int]:
    """A uniform for the order of a pair, and its wording."""
    drawn = generator(config.seed, f"judge_sample/order/{_digest(prompt, low, high)}")
    return float(drawn.random()), int(drawn.integers(config.wordings))


def _any(recorded: dict[Shown, list[Written]], prompt: str, first: str, second: str) -> bool:
    return any((prompt, first, second, hint) in recorded for hint in (0, 1, 2))


def _digest(*values: str | int) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def _said(config: JudgeSampleConfig, ask: _Ask) -> str:
    """The dialogue that the judge is given."""
    pair = ask.pair
    if ask.hint:
        return hinted_request(pair.prompt, pair.first, pair.second, config.form, pair.wording, ask.hint)
    return _request(config, pair)


def _request(config: JudgeSampleConfig, pair: _Pair) -> str:
    return request(pair.prompt, pair.first, pair.second, config.form, config.rationale, pair.wording)


# --- who answers -----------------------------------------------------------------------------------------------------


def _by_model(
    config: JudgeSampleConfig, backend: LocalJudge, plain: Sequence[_Ask], hinted: Sequence[_Ask], judge: Path | None
) -> tuple[list[Written], dict[str, float]]:
    if judge is None:
        raise ValueError(
            f"backend {{engine: {backend.engine}}} writes with the `judge` input, and there is none: wire a model to "
            "it, or name an endpoint or recorded judgments"
        )
    source = models.locate(judge)
    written: list[Written] = []
    tokens = 0
    for asks, temperature, top_p, what in (
        (plain, config.temperature, config.top_p, "judgments"),
        (hinted, config.hint_temperature, config.hint_top_p, "hinted judgments"),
    ):
        how = Sampling(
            temperature=temperature,
            top_p=top_p,
            repetition_penalty=config.repetition_penalty,
            max_new_tokens=config.max_new_tokens,
            max_prompt_tokens=config.max_request_tokens,
            seed=config.seed,
            chat=config.chat,
            engine=backend.engine,
            dtype=backend.dtype,
            batch_size=backend.batch_size,
        )
        if not asks:
            continue
        said = [_said(config, ask) for ask in asks]
        # Cut, it would lose what to do, the question and the first answer.
        too_long = too_long_prompts(source, said, how)
        short = [i for i, request in enumerate(said) if request not in too_long]
        labels = [asks[i].label for i in short]
        texts, new = sample(source, [said[i] for i in short], labels, how, what) if short else ([], 0)
        found = dict(zip(short, texts, strict=True))
        written += [
            Written(found[i]) if i in found else Written("", f"{TOO_LONG}: the request has {too_long[request]}")
            for i, request in enumerate(said)
        ]
        tokens += new
    if unread := sum(bool(each.unread) for each in written):
        print(f"{unread} of {len(written)} judgments are not asked for: their requests are too long", flush=True)
    return written, {"mean_judgment_tokens": tokens / len(written)}


def _by_endpoint(
    config: JudgeSampleConfig, backend: EndpointJudge, plain: Sequence[_Ask], hinted: Sequence[_Ask]
) -> tuple[list[Written], dict[str, float]]:
    questions = [
        endpoint.Question(
            dialogue=_said(config, ask),
            label=ask.label,
            seed=config.seed,
            temperature=config.hint_temperature if ask.hint else config.temperature,
            top_p=config.hint_top_p if ask.hint else config.top_p,
            repetition_penalty=config.repetition_penalty,
            max_new_tokens=config.max_new_tokens,
        )
        for ask in (*plain, *hinted)
    ]
    answers = endpoint.ask(backend, questions)
    return [Written(answer.text, answer.unread) for answer in answers], {
        "mean_judgment_tokens": sum(answer.answer_tokens or 0 for answer in answers) / len(answers),
        "judge_cost": sum(endpoint.cost(backend, answer) for answer in answers),
        "judge_requests": float(len(answers)),
    }


def _from_file(backend: RecordedJudge, recorded: dict[Shown, list[Written]], asks: Sequence[_Ask]) -> list[Written]:
    rows = [recorded.get(ask.shown, [])[ask.sample : ask.sample + 1] for ask in asks]
    missing = [ask for ask, found in zip(asks, rows, strict=True) if not found]
    if missing:
        ask = missing[0]
        told = f", hint {ask.hint}" if ask.hint else ""
        raise ValueError(
            f"{backend.recorded.path}: {len(missing)} of {len(asks)} judgments are not recorded. The first one: "
            f"judgment {ask.sample + 1}{told} of prompt {ask.pair.prompt[-200:]!r}, first {ask.pair.first[:100]!r}, "
            f"second {ask.pair.second[:100]!r}. Record them, or ask for fewer (samples, orders, hints, limit)"
        )
    return [written for found in rows for written in found]


# --- what is written -------------------------------------------------------------------------------------------------


def _write(config: JudgeSampleConfig, out: Path, pairs: list[_Pair], asks: list[_Ask], written: list[Written]) -> None:
    """Judgments of a pair and order together: repeated ones, then hinted ones."""
    place = {pair: i for i, pair in enumerate(pairs)}
    rows = sorted(zip(asks, written, strict=True), key=lambda row: (place[row[0].pair], row[0].hint, row[0].sample))
    requests = {pair: _request(config, pair) for pair in pairs}
    write_table(
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
        JUDGMENTS,
        out / "judgments.parquet",
    )

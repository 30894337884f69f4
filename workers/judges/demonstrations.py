"""Stage `judge_demonstrations`: a teacher's judgments that are good enough to learn from."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from workers.judges.configs import JudgeDemonstrationsConfig
from workers.judges.judged_pairs import JudgedPairs, Judgment
from workers.seeding import shuffle_key
from workers.tables import DEMONSTRATIONS


def judge_demonstrations(
    config: JudgeDemonstrationsConfig, out: Path, *, verdicts: Path, preferences: Path, general: Path | None = None
) -> dict[str, float]:
    """Admit the judgments of rows that the teacher judges rightly (RISE-Judge, arXiv 2502.11689).

    A row is lost for the first of these reasons that holds, so each counts once:

    1. unequal: one answer is more than `length_ratio` times as long as the other, in characters;
    2. unparsed: a judgment has no readable verdict;
    3. wrong: no judgment points to the chosen answer;
    4. inconsistent: some do, in one order of the answers or in some samples, and some do not.

    Every judgment without a hint counts, in both orders, or with `both_orders` false in the drawn order alone. Each of
    them becomes a demonstration of an admitted row: with both orders, the first and the second answer are the better
    one equally often. (The paper does not say which of the two judgments RISE trained on.)

    Args:
        config: the filter, and the number of general demonstrations.
        out: receives `demonstrations.parquet`, shuffled by seed and content: the request and the judgment.
        verdicts: artifact of the teacher's judgments with their verdicts.
        preferences: artifact of labelled pairs of answers, whose labels count.
        general: artifact of other demonstrations, `config.general` of which are mixed in.

    Returns:
        `demonstrations`: rows written, general ones included. `admitted_rows`, `wrong_rows`, `inconsistent_rows`,
        `unparsed_rows`, `unequal_rows`, `unjudged_rows`: rows of the preferences; they add up to all of them.

    Raises:
        ValueError: no row is admitted; a row was judged in one order only although both must be right; there are
            fewer general demonstrations than `config.general`; or no preference was judged.
    """
    judged = JudgedPairs(verdicts, repeats="once")
    table, judgments_of = judged.join(preferences)
    chosen, rejected = (table.column(name).to_pylist() for name in ("chosen", "rejected"))
    reasons = Counter[str]()
    rows: list[tuple[str, str]] = []
    for number, judgments in enumerate(judgments_of):
        counted = [each for each in judgments if not each.hint and (config.both_orders or each.drawn)]
        if config.both_orders and len({each.drawn for each in counted}) == 1:
            raise ValueError(
                f"{verdicts}: row {number} of {preferences} was judged in one order only: let judge_sample ask with"
                " orders: both, or set both_orders: false"
            )
        reason = _reason(config, chosen[number], rejected[number], counted)
        reasons[reason] += 1
        if reason == "admitted":
            rows += [(judged.request(each), judged.text(each)) for each in counted]
    lost = ", ".join(f"{count} {reason}" for reason, count in reasons.items() if reason != "admitted")
    if not rows:
        raise ValueError(
            f"{verdicts}: no judgment is admitted; rows lost: {lost}. A better teacher, or a laxer filter, is needed"
        )
    print(f"judge_demonstrations: {reasons['admitted']} rows admitted; lost: {lost or 'none'}", flush=True)
    rows += _general(config, general)
    rows.sort(key=lambda row: shuffle_key(config.seed, *row))
    columns = {"prompt": [row[0] for row in rows], "response": [row[1] for row in rows]}
    DEMONSTRATIONS.write(columns, out)
    counts = {f"{reason}_rows": float(reasons[reason]) for reason in ("admitted", "wrong", "inconsistent", "unparsed")}
    return {
        "demonstrations": float(len(rows)),
        **counts,
        "unequal_rows": float(reasons["unequal"]),
        "unjudged_rows": float(reasons["unjudged"]),
    }


def _reason(config: JudgeDemonstrationsConfig, chosen: str, rejected: str, judgments: list[Judgment]) -> str:
    if not judgments:
        return "unjudged"
    short, long = sorted((len(chosen), len(rejected)))
    if config.length_ratio is not None and long > config.length_ratio * short:
        return "unequal"
    verdicts = {each.right for each in judgments}
    if None in verdicts:
        return "unparsed"
    return "inconsistent" if len(verdicts) == 2 else "admitted" if True in verdicts else "wrong"


def _general(config: JudgeDemonstrationsConfig, general: Path | None) -> list[tuple[str, str]]:
    if general is None:
        if config.general is not None:
            raise ValueError(f"general: {config.general} asks for a `general` input of demonstrations")
        return []
    table = DEMONSTRATIONS.read(general)
    rows = list(zip(*(table.column(name).to_pylist() for name in ("prompt", "response")), strict=True))
    if config.general is not None and len(rows) < config.general:
        raise ValueError(f"{general}: {len(rows)} demonstrations, but general: {config.general} asks for more")
    rows.sort(key=lambda row: shuffle_key(config.seed, "general", *row))
    return rows[: config.general]

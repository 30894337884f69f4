"""Stage `judge_pairs`: contrastive pairs of judgments, for training a judge by DPO."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path

from workers.judges.configs import JudgePairsConfig
from workers.judges.judged_pairs import JudgedPairs, Judgment
from workers.progress import Progress
from workers.seeding import shuffle_key
from workers.tables import PREFERENCES


def judge_pairs(config: JudgePairsConfig, out: Path, *, verdicts: Path, preferences: Path) -> dict[str, float]:
    """Pair right with wrong judgments of the same request (Con-J, arXiv 2410.03742).

    For each request, that is for each labelled pair of answers in each order in which it was shown:

    - "repeated": right and wrong judgments without a hint, as many pairs as the fewer of the two, at most
      `config.repeated`; each judgment is in one such pair;
    - "unparsed": right ones and ones without a readable verdict, at most `config.unparsed`; these right ones may be in
      a repeated pair too. Judgments without text (column `unread`) are left out;
    - "hinted": right ones with a true hint and wrong ones with a false hint, at most `config.hinted`.

    This is how `construct_dpo_dataset_for_critic_model.py` of github.com/YeZiyi1998/Con-J pairs. Not taken over from
    it: hinted judgments longer than 400 tokens lose their end there, and hinted judgments without a readable verdict
    may form a pair, which cannot arise where the verdict is injected.

    Judgments are put in an order that depends on the seed and their own texts alone: the same ones are paired, chosen
    and rejected changed over, when a label is turned round, and more samples only add.

    Args:
        config: number of pairs of each type.
        out: receives `preferences.parquet`: the request without hint, the right judgment as `chosen`, the wrong one as
            `rejected`, the type of the pair as `subset`.
        verdicts: artifact of judgments with their verdicts.
        preferences: artifact of labelled pairs of answers, whose labels count.

    Returns:
        Counts. `pairs`, and of each type; `rows_with_pairs` and `rows_without_pairs` of the preferences. Among those
        without are `all_right_rows` (every readable judgment without a hint is right), `all_wrong_rows` (none is), and
        `unjudged_rows`.

    Raises:
        ValueError: no pair could be made, or no preference was judged.
    """
    judged = JudgedPairs(verdicts, repeats="once")
    _, judgments_of = judged.join(preferences)
    pairs: list[tuple[str, Judgment, Judgment]] = []
    rows = Counter[str]()
    progress = Progress("rows", len(judgments_of))
    for number, judgments in enumerate(judgments_of, start=1):
        made = _pairs(config, judged, judgments)
        pairs += made
        rows[_outcome(made, judgments)] += 1
        progress.show(number)
    verdict = Counter(each.right for judgments in judgments_of for each in judgments if not each.hint)
    hinted = sum(bool(each.hint) for judgments in judgments_of for each in judgments)
    seen = (
        f"{len(judgments_of)} rows ({rows['unjudged']} not judged) have {verdict[True]} right, {verdict[False]}"
        f" wrong and {verdict[None]} unreadable judgments without a hint, and {hinted} with one"
    )
    if not pairs:
        raise ValueError(
            f"{verdicts}: no pair of a right and a wrong judgment. {seen}. Sample more judgments at a higher"
            " temperature, or with hints: true; where nothing can be read, look at the texts and at `form`"
        )
    print(f"judge_pairs: {seen}", flush=True)
    types = Counter(kind for kind, _, _ in pairs)
    columns = {
        "prompt": [judged.request(right) for _, right, _ in pairs],
        "chosen": [judged.text(right) for _, right, _ in pairs],
        "rejected": [judged.text(wrong) for _, _, wrong in pairs],
        "subset": [kind for kind, _, _ in pairs],
    }
    PREFERENCES.write(columns, out)
    return {
        "pairs": float(len(pairs)),
        "repeated_pairs": float(types["repeated"]),
        "unparsed_pairs": float(types["unparsed"]),
        "hinted_pairs": float(types["hinted"]),
        "rows_with_pairs": float(rows["paired"]),
        "rows_without_pairs": float(len(judgments_of) - rows["paired"]),
        "all_right_rows": float(rows["all right"]),
        "all_wrong_rows": float(rows["all wrong"]),
        "unjudged_rows": float(rows["unjudged"]),
    }


def _pairs(
    config: JudgePairsConfig, judged: JudgedPairs, judgments: list[Judgment]
) -> list[tuple[str, Judgment, Judgment]]:
    """Pair the judgments of one preference: (type, right, wrong)."""
    requests: dict[str, list[Judgment]] = {}
    for each in judgments:
        requests.setdefault(judged.request(each), []).append(each)
    pairs = []
    for request, asked in requests.items():
        asked = [each for each in asked if not each.unread]
        asked.sort(key=lambda each: shuffle_key(config.seed, request, str(each.sample), judged.text(each)))
        of = {
            (hint, right): [each for each in asked if (each.true_hint, each.right) == (hint, right)]
            for hint in (None, True, False)
            for right in (None, True, False)
        }
        for kind, most, chosen, rejected in (
            ("repeated", config.repeated, of[None, True], of[None, False]),
            ("unparsed", config.unparsed, of[None, True], of[None, None]),
            ("hinted", config.hinted, of[True, True], of[False, False]),
        ):
            pairs += [(kind, a, b) for a, b in islice(zip(chosen, rejected, strict=False), most)]
    return pairs


def _outcome(pairs: list[tuple[str, Judgment, Judgment]], judgments: list[Judgment]) -> str:
    """Classify a preference by whether it gave pairs, or why not."""
    if pairs:
        return "paired"
    if not judgments:
        return "unjudged"
    read = {each.right for each in judgments if not each.hint} - {None}
    return "all right" if read == {True} else "all wrong" if read == {False} else "other"

"""RewardBench v1 against published rows: accuracies per subset in, section scores and their mean out."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from workers.judges.configs import RewardBench
from workers.judges.rewardbench import SECTIONS, overall, section_scores

#: Per cent by subset, in the order of `SECTIONS`, from Tables 10 to 13 of arXiv 2403.13787v2; sections and mean from
#: the README of Con-J (github.com/YeZiyi1998/Con-J), where they are those of "GPT-4o" and "Prometheus 2". Table 12 of
#: the paper has 87.2 and 78.7 for Safety: the two XSTest weights were exchanged then.
PUBLISHED = {
    "gpt-4-0125-preview": (
        {
            "chat": [98.0, 87.4, 96.8, 100.0, 100.0],
            "chat_hard": [83.8, 91.0, 56.7, 70.7, 87.2, 76.1],
            "safety": [83.0, 97.0, 93.5, 96.4, 61.0],
            "reasoning": [76.3, 97.3, 97.9, 97.9, 97.6, 98.2, 96.6],
        },
        {"chat": 95.3, "chat_hard": 74.3, "safety": 87.6, "reasoning": 86.9},
        86.0,
    ),
    "prometheus-7b-v2.0": (
        {
            "chat": [92.0, 81.1, 86.8, 73.2, 85.0],
            "chat_hard": [67.6, 77.5, 26.9, 36.4, 54.3, 57.6],
            "safety": [88.0, 90.0, 83.4, 71.2, 63.2],
            "reasoning": [86.2, 67.1, 62.2, 65.9, 68.3, 68.6, 68.3],
        },
        {"chat": 85.5, "chat_hard": 49.1, "safety": 77.1, "reasoning": 76.5},
        72.1,
    ),
}
SUBSETS = [subset for weights in SECTIONS.values() for subset in weights]
#: One decimal was published of what goes in and of what comes out.
ROUNDED = 0.0501 * 2


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_subset_accuracies_give_the_published_sections_and_mean(name: str) -> None:
    accuracies, sections, mean = PUBLISHED[name]
    accuracy = {
        subset: value
        for section, values in accuracies.items()
        for subset, value in zip(SECTIONS[section], values, strict=True)
    }
    scores = section_scores(accuracy)
    assert scores == pytest.approx(sections, abs=ROUNDED)
    assert overall(scores) == pytest.approx(mean, abs=ROUNDED)


@pytest.mark.parametrize(
    ("sections", "mean"),
    [
        ([91.3, 79.6, 88.0, 87.1], 86.5),  # Con-J
        ([91.3, 44.8, 73.6, 69.0], 69.7),  # Qwen2-7B, from which it starts
        ([96.6, 83.3, 91.9, 98.8], 92.7),  # RISE-Judge-Qwen2.5-32B
    ],
)
def test_the_overall_score_is_the_plain_mean_of_the_sections(sections: list[float], mean: float) -> None:
    assert overall(dict(zip(SECTIONS, sections, strict=True))) == pytest.approx(mean, abs=0.0501)


def test_sections_have_the_rows_of_the_benchmark_and_math_weighs_as_much_as_code() -> None:
    rows = {section: sum(weights.values()) for section, weights in SECTIONS.items()}
    assert rows == {"chat": 358, "chat_hard": 456, "safety": 740, "reasoning": 2 * 984}
    code = sum(weight for subset, weight in SECTIONS["reasoning"].items() if subset.startswith("hep-"))
    assert SECTIONS["reasoning"]["math-prm"] == code
    # 2,985 rows, of which 447 are math.
    assert sum(rows.values()) - 984 + 447 == 2985


def test_the_config_knows_exactly_these_sections() -> None:
    (literal, _) = get_args(RewardBench.model_fields["rewardbench"].annotation)
    assert set(get_args(literal)) == set(SECTIONS)
    assert RewardBench().rewardbench == tuple(SECTIONS)
    with pytest.raises(ValidationError, match="named twice"):
        RewardBench(rewardbench=("chat", "chat"))


@given(st.lists(st.floats(0, 1), min_size=len(SUBSETS), max_size=len(SUBSETS)), st.sets(st.sampled_from(SUBSETS)))
def test_a_section_is_the_mean_over_its_rows_each_subset_repeated_by_its_weight(
    values: list[float], absent: set[str]
) -> None:
    accuracy = {subset: value for subset, value in zip(SUBSETS, values, strict=True) if subset not in absent}
    for section, weights in SECTIONS.items():
        rows = [accuracy[subset] for subset in accuracy if subset in weights for _ in range(weights[subset])]
        mine = {subset: value for subset, value in accuracy.items() if subset in weights}
        if rows:
            assert section_scores(mine, [section], "skip")[section] == pytest.approx(sum(rows) / len(rows))
        else:
            with pytest.raises(ValueError, match=f"section '{section}' lacks"):
                section_scores(mine, [section], "skip")


def test_a_missing_or_foreign_subset_is_named() -> None:
    accuracy = dict.fromkeys(SECTIONS["chat_hard"], 0.5)
    del accuracy["mt-bench-hard"]
    with pytest.raises(ValueError, match=r"section 'chat_hard' lacks mt-bench-hard: .*missing_subsets: skip"):
        section_scores(accuracy, ["chat_hard"])
    with pytest.raises(ValueError, match=r"'llmbar-adver-gptinst': no subset of .*llmbar-adver-GPTInst"):
        section_scores({"llmbar-adver-gptinst": 1.0}, ["chat_hard"], "skip")
    with pytest.raises(ValueError, match="'math-prm': no subset of RewardBench's chat"):
        section_scores({"math-prm": 1.0}, ["chat"], "skip")

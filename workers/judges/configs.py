"""Configs of the stages of generative judges; see `workers.config`."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from workers.config import Config, Fraction, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Seed
from workers.judges.backends.configs import Backend, EndpointJudge, LocalJudge, RecordedJudge
from workers.metric import Metric

#: Form of a judgment. json: an object with the rationale first, then the verdict 1 or 2 (Con-J, arXiv 2410.03742).
#: brackets: reasoning that ends in [[A]] or [[B]] (RISE-Judge, arXiv 2502.11689, after MT-Bench, arXiv 2306.05685).
Form = Literal["json", "brackets"]


class JudgeSampleConfig(Config):
    """Config of `judge_sample`: judgments of pairs of answers by a generative judge.

    Defaults of sampling are Con-J's (arXiv 2410.03742): 8 repeated judgments, temperature 1.2, top_p 0.95, repetition
    penalty 1.2, at most 512 new tokens; hinted ones at temperature 1.0 and top_p 0.9.
    """

    backend: Backend = LocalJudge(engine="transformers")
    form: Form = "json"
    rationale: bool = True
    """Whether to request a rationale with the verdict."""
    wordings: Annotated[int, Field(ge=1, le=6)] = 1
    """Number of wordings of the request (`workers.judges.requests`), one of which each pair draws; 1 is Con-J's."""
    orders: Literal["drawn", "both"] = "drawn"
    """drawn: the answers of a pair are shown in one random order. both: in the other one as well."""
    chosen_first: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the pairs in which the preferred answer is drawn to stand first; 0.5 does not look at the label."""
    samples: NonNegativeInt = 8
    """Judgments without a hint per pair and order."""
    temperature: NonNegativeFloat = 1.2
    """0 takes the most likely token."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95
    repetition_penalty: PositiveFloat = 1.2
    """An endpoint gets it only where it is not 1, since not every server knows it."""
    hints: bool = False
    """Whether to request one more judgment per answer, order and pair, given this answer as the better one."""
    hint_temperature: NonNegativeFloat = 1.0
    hint_top_p: Annotated[float, Field(gt=0, le=1)] = 0.9
    max_new_tokens: PositiveInt = 512
    max_request_tokens: PositiveInt = 4096
    """Longest request. A longer one is never cut, because it would lose the task, the question and the first answer: it
    is not sent, and its judgment has no text and a reason (`unread`). An endpoint has limits of its own, with the same
    outcome."""
    chat: bool = False
    """Put requests into the chat template of the tokenizer, as messages; an endpoint always gets messages."""
    limit: PositiveInt | None = None
    """Number of pairs to judge, from the first; None judges all."""
    seed: Seed = 0
    shard: NonNegativeInt = 0
    shards: PositiveInt = 1

    @model_validator(mode="after")
    def _something_is_asked(self) -> JudgeSampleConfig:
        if self.shard >= self.shards:
            raise ValueError(f"shard {self.shard} of {self.shards}: shards count from 0")
        if self.samples == 0 and not self.hints:
            raise ValueError("samples is 0 and hints is false: the judge would not be asked anything")
        if self.hints and not self.rationale:
            raise ValueError("a hint asks for a rationale: with rationale: false there are none")
        return self

    def metrics(self) -> tuple[str | Metric, ...]:
        judgments = Metric("judgments", shards="sum")
        if isinstance(self.backend, RecordedJudge):
            return (judgments,)
        counts = ["judge_too_long"]
        if isinstance(self.backend, EndpointJudge):
            counts += ["judge_cost", "judge_requests", "judge_refused"]
        tokens = Metric("mean_judgment_tokens", shards="mean", weight="judgments")
        return (judgments, tokens, *(Metric(name, shards="sum") for name in counts))


class JudgeParseConfig(Config):
    """Config of `judge_parse`: verdicts read from judgments."""

    form: Form = "json"
    """The requested form."""
    strict: bool = False
    """True, to label training data: the text must have exactly the requested form, rationale first. False, to evaluate:
    the last verdict in it counts, in any form (see `workers.judges.parse`)."""
    rationale: bool = True
    """Whether a rationale was requested; only strict parsing reads it."""

    def metrics(self) -> tuple[str | Metric, ...]:
        return ("verdicts", Metric("unparsed_rate", better="lower"), "unread_judgments", "first_position_rate")


class JudgePairsConfig(Config):
    """Config of `judge_pairs`: contrastive pairs of judgments.

    The caps are Con-J's, per labelled pair of answers and order.
    """

    repeated: NonNegativeInt = 3
    """At most so many pairs of a right and a wrong repeated judgment."""
    unparsed: NonNegativeInt = 1
    """At most so many pairs of a right one and one that could not be read."""
    hinted: NonNegativeInt = 1
    """At most so many pairs of a judgment with a true hint and one with a false hint."""
    seed: Seed = 0
    """Seed of the choice of the judgments that are paired."""

    @model_validator(mode="after")
    def _some_type_is_wanted(self) -> JudgePairsConfig:
        if self.repeated == self.unparsed == self.hinted == 0:
            raise ValueError("repeated, unparsed and hinted are all 0: there would be no pairs")
        return self

    def metrics(self) -> tuple[str | Metric, ...]:
        pairs = ("pairs", "repeated_pairs", "unparsed_pairs", "hinted_pairs")
        return (
            *pairs,
            "rows_with_pairs",
            "rows_without_pairs",
            "all_right_rows",
            "all_wrong_rows",
            "unjudged_rows",
        )


class JudgeDemonstrationsConfig(Config):
    """Config of `judge_demonstrations`: admission of a teacher's judgments (RISE-Judge, arXiv 2502.11689)."""

    both_orders: bool = True
    """The verdict must be right in both orders of the answers."""
    length_ratio: Annotated[float, Field(ge=1, allow_inf_nan=False)] | None = None
    """Greatest ratio of the lengths of the two answers, in characters; not published for RISE."""
    general: PositiveInt | None = None
    """Number of rows of the `general` demonstrations that are mixed in; None takes all."""
    seed: Seed = 0

    def metrics(self) -> tuple[str | Metric, ...]:
        return (
            "demonstrations",
            "admitted_rows",
            "wrong_rows",
            "inconsistent_rows",
            "unparsed_rows",
            "unequal_rows",
            "unjudged_rows",
        )


class HardCasesConfig(Config):
    """Config of `hard_cases`: pairs that a judge got wrong, or left undecided, in one judgment at least."""

    def metrics(self) -> tuple[str | Metric, ...]:
        return ("preferences", "judged_rows")


class SurvivingRowsConfig(Config):
    """Config of `surviving_rows`: labelled pairs of answers that contrastive pairs were made of."""

    def metrics(self) -> tuple[str | Metric, ...]:
        return ("preferences", "lost_rows")


class RewardBench(Config):
    """A test set that is scored as RewardBench v1 (arXiv 2403.13787): weighted subsets, sections, mean of sections."""

    rewardbench: Annotated[tuple[Literal["chat", "chat_hard", "safety", "reasoning"], ...], Field(min_length=1)] = (
        "chat",
        "chat_hard",
        "safety",
        "reasoning",
    )
    """The sections that the set has."""
    missing_subsets: Literal["error", "skip"] = "error"
    """Treatment of subsets of these sections without rows. skip: the section is the mean of the others."""

    @model_validator(mode="after")
    def _each_section_once(self) -> RewardBench:
        if len(set(self.rewardbench)) < len(self.rewardbench):
            raise ValueError(f"a section is named twice: {list(self.rewardbench)}")
        return self


def _rewardbench(value: object) -> object:
    return {} if value == "rewardbench" else value


class JudgeEvaluateConfig(Config):
    """Config of `judge_evaluate`: accuracy on test sets, and biases of position and length."""

    sets: Annotated[
        dict[
            str,
            Annotated[
                Literal["pairs"] | RewardBench,
                BeforeValidator(_rewardbench, json_schema_input_type=Literal["pairs", "rewardbench"] | RewardBench),
            ],
        ],
        Field(min_length=1),
    ]
    """Name of a test set -> its scoring: `pairs` (mean credit), `rewardbench`, or `{rewardbench: [sections]}`.
    Every set of the table must be named; rows without a subset belong to the only set that is."""
    both_orders: bool = False
    """Add both-order accuracy and consistency; the judge must have seen both orders."""
    prefix: str = ""
    """Put before the metrics' names where several evaluations are columns of one table: `reversed_`."""

    def metrics(self) -> tuple[str | Metric, ...]:
        metrics = [Metric("accuracy", better="higher", column="credit")]
        for name, how in self.sets.items():
            if isinstance(how, RewardBench):
                scores = (f"{name}_{section}" for section in (*how.rewardbench, "overall"))
                metrics += (Metric(score, better="higher") for score in scores)
            else:
                # Of several sets, it is the mean over a part of the rows.
                column = "credit" if len(self.sets) == 1 else ""
                metrics.append(Metric(f"{name}_accuracy", better="higher", column=column))
        metrics += (Metric("first_position_share"), Metric("parse_failure_rate", better="lower"))
        metrics.append(Metric("length_agreement"))
        if self.both_orders:
            metrics += (Metric(name, better="higher") for name in ("both_order_accuracy", "consistency"))
        return tuple(replace(each, name=f"{self.prefix}{each.name}") for each in metrics)


class JudgeCompareConfig(Config):
    """Config of `judge_compare`: difference in accuracy of two judges on the same rows."""

    level: Fraction = 0.95
    """Coverage of the interval."""
    resamples: PositiveInt = 10_000
    """Bootstrap resamples of the rows."""
    prefix: str = ""
    """Put before the metrics' names, as in `judge_evaluate`."""
    seed: Seed = 0

    def metrics(self) -> tuple[str | Metric, ...]:
        ends = ("difference_low", "difference_high", "mcnemar_p")
        return (
            f"{self.prefix}accuracy_difference",
            *(Metric(f"{self.prefix}{name}", averaged=False) for name in ends),
        )


class ResponsePairsConfig(Config):
    """Config of `response_pairs`: pairs of a policy's responses to the same prompt, not labelled yet."""

    pairs: PositiveInt = 1
    """Pairs per prompt: responses 0 and 1, 2 and 3, …"""
    cut_at: str | None = "\n\nHuman"
    """A response ends where this text begins, as `score` reads it."""

    def metrics(self) -> tuple[str | Metric, ...]:
        return ("preferences", "equal_pairs")


class RelabelConfig(Config):
    """Config of `relabel`: preferences with the labels of a judge."""

    def metrics(self) -> tuple[str | Metric, ...]:
        return ("preferences", "turned_rate", "undecided_rows")


class PolicyCompareConfig(Config):
    """Config of `policy_compare`: a policy against the one that it started from, on the same prompts."""

    cut_at: str | None = "\n\nHuman"
    """A response ends where this text begins, as `score` reads it."""

    def metrics(self) -> tuple[str | Metric, ...]:
        return (
            Metric("golden_reward", better="higher", column="golden_reward"),
            Metric("start_golden_reward", column="start_golden_reward"),
            Metric("win_rate", better="higher", column="win_rate"),
            Metric("length_controlled_win_rate", better="higher"),
            Metric("mean_length", column="mean_length"),
            Metric("start_mean_length", column="start_mean_length"),
        )


class AnnotationPairsConfig(Config):
    """Config of `annotation_pairs`: the texts of annotated pairs, for a judge."""

    cut_at: str | None = "\n\nHuman"
    """A response ends where this text begins, as `score` reads it."""

    def metrics(self) -> tuple[str | Metric, ...]:
        return ("preferences", "equal_pairs")


class AnnotateByJudgeConfig(Config):
    """Config of `annotate_by_judge`: annotations by a judge in place of the simulated annotator."""

    cut_at: str | None = "\n\nHuman"
    """The same as in `annotation_pairs`."""
    seed: Seed = 0
    """Seed of the coin."""

    def metrics(self) -> tuple[str | Metric, ...]:
        return ("flip_rate", "mean_reward_gap", "undecided_rate")

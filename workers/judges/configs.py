"""What the stages of generative judges can be told; see `workers.config`."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    BeforeValidator,
    Discriminator,
    Field,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    Tag,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from workers.config import (
    Config,
    Dtype,
    Fraction,
    LocalPath,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Seed,
)
from workers.metric import Metric


class LocalJudge(Config):
    """`{engine: transformers}` or `{engine: vllm}`: the `judge` input writes the judgments on this machine."""

    engine: Literal["transformers", "vllm"]
    batch_size: PositiveInt = 64
    """Sequences per forward pass of transformers; it can change a text only through rounding."""
    dtype: Dtype = "float32"


class EndpointJudge(Config):
    """`{endpoint: https://…/v1, model: …}`: an OpenAI-compatible server writes the judgments.

    How it is asked (key, rate, patience, cap) is no part of the key: raising a cap asks nothing again. Every answer is
    kept in `$SWEEP_ANSWERS` (`workers.judges.backends.endpoint`), so a step that is tried again pays for none twice.
    """

    endpoint: str
    """Base URL, without a user name, password or query: it is stored with the results."""
    model: str
    key_env: str | None = "OPENAI_API_KEY"
    """Environment variable on the worker that holds the key. The key itself is never stored or printed. None: the
    server wants none."""
    requests_per_minute: PositiveFloat | None = None
    """Of all steps together that ask this model with this key and share `$SWEEP_ANSWERS`. None asks as fast as answers
    come."""
    parallel: PositiveInt = 8
    """Requests of a step that are under way at once."""
    timeout: PositiveFloat = 120.0
    """Seconds after which a request without an answer is given up and sent again."""
    price_in: NonNegativeFloat = 0.0
    """Dollars per million tokens of prompts."""
    price_out: NonNegativeFloat = 0.0
    """Likewise of answers."""
    max_cost: PositiveFloat | None = None
    """Dollars for all steps of this entry of the sweep together, shards and variants, after which they fail instead of
    asking on. It counts what their answers have cost, in this run or an earlier one. What is under way then is still
    paid for: up to `parallel` requests of each step that runs."""
    limit_name: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """How the server calls the greatest number of new tokens; newer models of OpenAI want the second."""

    @field_validator("endpoint")
    @classmethod
    def _nothing_secret_in_it(cls, endpoint: str) -> str:
        parts = urlsplit(endpoint)
        if "@" in parts.netloc or parts.query:
            # Not a ValueError: those are shown with what was found.
            raise PydanticCustomError(
                "secret",
                "an endpoint has no user name, password or query: it is stored and shown with the results. Name an "
                "environment variable that holds the key, with key_env",
            )
        return endpoint

    @model_validator(mode="after")
    def _cost_can_be_counted(self) -> EndpointJudge:
        if self.max_cost is not None and self.price_in == self.price_out == 0:
            raise ValueError("max_cost needs price_in and price_out: at a price of 0 it would never be reached")
        return self

    @model_serializer(mode="wrap")
    def _only_what_is_asked_in_identity(
        self, handler: SerializerFunctionWrapHandler, info: SerializationInfo
    ) -> dict[str, Any]:
        fields = dict(handler(self))
        if info.context and info.context.get("identity"):
            for name in ("key_env", "requests_per_minute", "parallel", "timeout", "max_cost"):
                fields.pop(name)
        return fields


class RecordedColumns(Config):
    """Where a file of recorded judgments keeps what."""

    prompt: str = "prompt"
    first: str = "first"
    second: str = "second"
    text: str = "text"
    """The whole judgment. Rows without this column are made of the next two."""
    rationale: str = "rationale"
    verdict: str = "verdict"
    """1 or 2; anything else is kept, and will not be read as a verdict."""
    hint: str = "hint"
    """The answer that the judge was told to be better; rows without it, or with 0, had no hint."""


class RecordedJudge(Config):
    """`{recorded: {path: …}}`: judgments that were written before, in a JSONL(.gz), JSON or Parquet file.

    Several rows of one pair are several samples, in the order of the file. Where a file has only one order of a pair,
    that is the drawn one, unless `chosen_first` asks for a certain order. `judgments.parquet` of another sweep will do.
    Settings of sampling do not apply.
    """

    recorded: LocalPath
    columns: RecordedColumns = RecordedColumns()


def _kind_of_backend(value: Any) -> str:
    """Which backend is meant, so that only its own mistakes are told."""
    if isinstance(value, BaseModel):
        return type(value).__name__
    told = value if isinstance(value, dict) else {}
    return "EndpointJudge" if "endpoint" in told else "RecordedJudge" if "recorded" in told else "LocalJudge"


Backend = Annotated[
    Annotated[LocalJudge, Tag("LocalJudge")]
    | Annotated[EndpointJudge, Tag("EndpointJudge")]
    | Annotated[RecordedJudge, Tag("RecordedJudge")],
    Discriminator(_kind_of_backend),
]


class JudgeSampleConfig(Config):
    """Judgments of pairs of answers by a generative judge.

    Defaults of sampling are Con-J's (arXiv 2410.03742): 8 repeated judgments, temperature 1.2, top_p 0.95, repetition
    penalty 1.2, at most 512 new tokens; hinted ones at temperature 1.0 and top_p 0.9.
    """

    backend: Backend = LocalJudge(engine="transformers")
    form: Literal["json", "brackets"] = "json"
    """json: an object with the rationale first, then the verdict 1 or 2 (Con-J). brackets: reasoning that ends in
    [[A]] or [[B]] (RISE)."""
    rationale: bool = True
    """False asks for the bare verdict."""
    wordings: Annotated[int, Field(ge=1, le=6)] = 1
    """From how many wordings of the request (`workers.judges.requests`) one is drawn for each pair; 1 is Con-J's."""
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
    """An endpoint is told only what is not 1, since not every server knows it."""
    hints: bool = False
    """Also one judgment per answer, order and pair that starts from being told that this is the better one."""
    hint_temperature: NonNegativeFloat = 1.0
    hint_top_p: Annotated[float, Field(gt=0, le=1)] = 0.9
    max_new_tokens: PositiveInt = 512
    max_request_tokens: PositiveInt = 4096
    """A longer request is never cut, because it would lose what to do, the question and the first answer: it is not
    asked, and its judgment has no text and a reason (`unread`). An endpoint has limits of its own; the outcome is the
    same."""
    chat: bool = False
    """Put requests into the chat template of the tokenizer, as messages; an endpoint always gets messages."""
    limit: PositiveInt | None = None
    """Only so many pairs, from the first."""
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
    """Verdicts read from judgments."""

    form: Literal["json", "brackets"] = "json"
    strict: bool = False
    """True, to label training data: the text is exactly what was asked for, rationale first. False, to evaluate: the
    last verdict in it counts, however it is spelled (see `workers.judges.parse`)."""
    rationale: bool = True
    """Whether one was asked for; only a strict reading looks at it."""

    def metrics(self) -> tuple[str | Metric, ...]:
        return ("verdicts", "unparsed_rate", "unread_judgments", "first_position_rate")


class JudgePairsConfig(Config):
    """Contrastive pairs of judgments per labelled pair of answers and order; the caps are Con-J's."""

    repeated: NonNegativeInt = 3
    """At most so many pairs of a right and a wrong repeated judgment."""
    unparsed: NonNegativeInt = 1
    """At most so many pairs of a right one and one that could not be read."""
    hinted: NonNegativeInt = 1
    """At most so many pairs of a judgment with a true hint and one with a false hint."""
    seed: Seed = 0
    """Chooses which judgments are paired."""

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
    """A teacher's judgments that are admitted as demonstrations (RISE-Judge, arXiv 2502.11689)."""

    both_orders: bool = True
    """The verdict must be right in both orders of the answers."""
    length_ratio: Annotated[float, Field(ge=1, allow_inf_nan=False)] | None = None
    """How many times as long as the other answer an answer may be, in characters; not published for RISE."""
    general: PositiveInt | None = None
    """How many rows of the `general` demonstrations are mixed in; None takes all."""
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
    """The labelled pairs of answers that a judge got wrong, or left undecided, in one judgment at least."""

    def metrics(self) -> tuple[str | Metric, ...]:
        return ("preferences", "judged_rows")


class SurvivingRowsConfig(Config):
    """The labelled pairs of answers that contrastive pairs were made of, so that scalar models see the same rows."""

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
    """A subset of these sections without rows stops the step, or the section is the mean of the others."""

    @model_validator(mode="after")
    def _each_section_once(self) -> RewardBench:
        if len(set(self.rewardbench)) < len(self.rewardbench):
            raise ValueError(f"a section is named twice: {list(self.rewardbench)}")
        return self


def _rewardbench(value: object) -> object:
    return {} if value == "rewardbench" else value


class JudgeEvaluateConfig(Config):
    """Accuracy on test sets, and how far position and length decide."""

    sets: Annotated[
        dict[str, Annotated[Literal["pairs"] | RewardBench, BeforeValidator(_rewardbench)]], Field(min_length=1)
    ]
    """Name of a test set -> how it is scored: `pairs` (mean credit), `rewardbench`, or `{rewardbench: [sections]}`.
    All sets of the table are named; rows without a subset are the one set that is."""
    both_orders: bool = False
    """The judge saw both orders: adds both-order accuracy and consistency."""
    prefix: str = ""
    """Of the metrics' names, where several evaluations are columns of one table: `reversed_`."""

    def metrics(self) -> tuple[str | Metric, ...]:
        names: list[str] = ["accuracy"]
        for name, how in self.sets.items():
            if isinstance(how, RewardBench):
                names += [f"{name}_{section}" for section in (*how.rewardbench, "overall")]
            else:
                names.append(f"{name}_accuracy")
        names += ["first_position_share", "parse_failure_rate", "length_agreement"]
        names += ["both_order_accuracy", "consistency"] if self.both_orders else []
        return tuple(f"{self.prefix}{name}" for name in names)


class JudgeCompareConfig(Config):
    """Difference in accuracy of two judges on the same rows."""

    level: Fraction = 0.95
    resamples: PositiveInt = 10_000
    """Bootstrap resamples of the rows."""
    prefix: str = ""
    """Of the metrics' names, as in `judge_evaluate`."""
    seed: Seed = 0

    def metrics(self) -> tuple[str | Metric, ...]:
        ends = ("difference_low", "difference_high", "mcnemar_p")
        return (
            f"{self.prefix}accuracy_difference",
            *(Metric(f"{self.prefix}{name}", averaged=False) for name in ends),
        )


class ResponsePairsConfig(Config):
    """Pairs of a policy's responses to the same prompt, not labelled yet: `chosen` is just the first of the two."""

    pairs: PositiveInt = 1
    """Pairs per prompt: responses 0 and 1, 2 and 3, …"""
    cut_at: str | None = "\n\nHuman"
    """A response ends where this text begins, as `score` reads it."""

    def metrics(self) -> tuple[str | Metric, ...]:
        return ("preferences", "equal_pairs")


class RelabelConfig(Config):
    """Preferences as a judge sees them; pairs without a verdict, or with another one in the other order, are lost."""

    def metrics(self) -> tuple[str | Metric, ...]:
        return ("preferences", "turned_rate", "undecided_rows")


class PolicyCompareConfig(Config):
    """A policy against the one that it started from, on the same prompts."""

    cut_at: str | None = "\n\nHuman"
    """A response ends where this text begins, as `score` reads it."""

    def metrics(self) -> tuple[str | Metric, ...]:
        return (
            "golden_reward",
            "start_golden_reward",
            "win_rate",
            "length_controlled_win_rate",
            "mean_length",
            "start_mean_length",
        )


class AnnotationPairsConfig(Config):
    """The texts of annotated pairs, for a judge: `chosen` is the winner."""

    cut_at: str | None = "\n\nHuman"
    """A response ends where this text begins, as `score` reads it."""

    def metrics(self) -> tuple[str | Metric, ...]:
        return ("preferences", "equal_pairs")


class AnnotateByJudgeConfig(Config):
    """Annotations with the judge's verdict in place of the simulated one; a coin decides where it has none."""

    cut_at: str | None = "\n\nHuman"
    """As `annotation_pairs` was told."""
    seed: Seed = 0
    """Of the coin."""

    def metrics(self) -> tuple[str | Metric, ...]:
        return ("flip_rate", "mean_reward_gap", "undecided_rate")

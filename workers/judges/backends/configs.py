"""Configs of the sources of judgments: a model on this machine, a server, or a file; see `workers.config`."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, Discriminator, Tag, field_validator, model_validator
from pydantic_core import PydanticCustomError

from workers.config import Config, Dtype, Execution, LocalPath, NonNegativeFloat, PositiveFloat, PositiveInt


class LocalJudge(Config):
    """`{engine: transformers}` or `{engine: vllm}`: the `judge` input writes the judgments on this machine."""

    engine: Literal["transformers", "vllm"]
    dtype: Dtype = "float32"


class Access(Execution):
    """Access to a server: its key, and limits of rate, time and cost.

    None of it is part of a step's key, so raising a cap repeats no request.
    """

    key_env: str | None = "OPENAI_API_KEY"
    """Environment variable on the worker that holds the key. The key itself is never stored or printed. None: the
    server needs none."""
    requests_per_minute: PositiveFloat | None = None
    """Rate of requests of all steps together that use this model and key and share `$SWEEP_ANSWERS`. None sets no
    limit."""
    parallel: PositiveInt = 8
    """Greatest number of requests of a step in flight."""
    timeout: PositiveFloat = 120.0
    """Seconds after which a request without an answer is given up and sent again."""
    max_cost: PositiveFloat | None = None
    """Dollars for all steps of this entry of the sweep together, shards and variants, after which they fail instead of
    sending more requests. It counts the cost of their answers, in this run or an earlier one. Requests in flight are
    still paid for: up to `parallel` of each running step."""


class EndpointJudge(Config):
    """`{endpoint: https://…/v1, model: …}`: an OpenAI-compatible server writes the judgments.

    Every answer is kept in `$SWEEP_ANSWERS` (`workers.judges.backends.endpoint`), so a step that is tried again pays
    for none twice.
    """

    endpoint: str
    """Base URL, without a user name, password or query: it is stored with the results."""
    model: str
    price_in: NonNegativeFloat = 0.0
    """Dollars per million tokens of prompts."""
    price_out: NonNegativeFloat = 0.0
    """Dollars per million tokens of answers."""
    limit_name: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """The server's name for the greatest number of new tokens; newer models of OpenAI require the second."""
    access: Access = Access()

    @field_validator("endpoint")
    @classmethod
    def _nothing_secret_in_it(cls, endpoint: str) -> str:
        parts = urlsplit(endpoint)
        if "@" in parts.netloc or parts.query:
            # Not a ValueError: those are shown with what was found.
            raise PydanticCustomError(
                "secret",
                "an endpoint has no user name, password or query: it is stored and shown with the results. Name an "
                "environment variable that holds the key, with access.key_env",
            )
        return endpoint

    @model_validator(mode="after")
    def _cost_can_be_counted(self) -> EndpointJudge:
        if self.access.max_cost is not None and self.price_in == self.price_out == 0:
            raise ValueError("access.max_cost needs price_in and price_out: at a price of 0 it would never be reached")
        return self


class RecordedColumns(Config):
    """The columns of a file of recorded judgments."""

    prompt: str = "prompt"
    first: str = "first"
    second: str = "second"
    text: str = "text"
    """The whole judgment. Rows without this column are made of the next two."""
    rationale: str = "rationale"
    verdict: str = "verdict"
    """1 or 2; anything else is kept, and will not be read as a verdict."""
    hint: str = "hint"
    """The answer (1 or 2, by place) that the request gave as the better one; none in rows without it, or with 0."""


class RecordedJudge(Config):
    """`{recorded: {path: …}}`: judgments that were recorded earlier, in a JSONL(.gz), JSON or Parquet file.

    Several rows of one pair are several samples, in the order of the file. Where a file has only one order of a pair,
    that is the drawn one, unless `chosen_first` asks for a certain order. `judgments.parquet` of another sweep will do.
    Settings of sampling do not apply.
    """

    recorded: LocalPath
    columns: RecordedColumns = RecordedColumns()


def _kind_of_backend(value: Any) -> str:
    """Return the name of the backend that a value describes, so that only its own mistakes are reported."""
    if isinstance(value, BaseModel):
        return type(value).__name__
    fields = value if isinstance(value, dict) else {}
    return "EndpointJudge" if "endpoint" in fields else "RecordedJudge" if "recorded" in fields else "LocalJudge"


Backend = Annotated[
    Annotated[LocalJudge, Tag("LocalJudge")]
    | Annotated[EndpointJudge, Tag("EndpointJudge")]
    | Annotated[RecordedJudge, Tag("RecordedJudge")],
    Discriminator(_kind_of_backend),
]

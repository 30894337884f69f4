"""A function is a stage: its fields, inputs and metrics are read from its signature, mostly without importing it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.study import StageError
from orchestrator.study.function_stage import function_stage
from orchestrator.study.modules import study_at
from orchestrator.study.signature import read_signature
from workers.config import LocalPath
from workers.metric import Metric, Undefined

#: Importing it fails, so whatever reads it did not import it.
UNIMPORTABLE = (
    "import nothing_of_the_kind_is_installed\nfrom pathlib import Path\nfrom typing import Literal, TypedDict\n"
)


def write(folder: Path, text: str, name: str = "mine") -> str:
    (folder / f"{name}.py").write_text(text)
    study_at(folder).refresh()
    return name


def stage(folder: Path, text: str, **given: Any) -> Any:
    return function_stage(study_at(folder), f"{write(folder, text)}:train", **given)


@pytest.fixture(autouse=True)
def _no_module_is_left(tmp_path: Path) -> Iterator[None]:
    yield
    study_at(tmp_path.parent).activate()
    assert "mine" not in sys.modules


def test_fields_types_and_defaults_are_those_of_the_signature_and_nothing_is_imported(tmp_path: Path) -> None:
    text = UNIMPORTABLE + (
        "def train(lr: float, *, wd: float = 1e-4, sizes: list[int] = [1, 2], kind: Literal['a', 'b'] = 'a',\n"
        "          names: dict[str, float] | None = None, out: Path): ...\n"
    )
    config = stage(tmp_path, text).config
    made = config.model_validate({"lr": 1})
    assert made.identity() == {"lr": 1.0, "wd": 1e-4, "sizes": [1, 2], "kind": "a", "names": None}
    for wrong in ({}, {"lr": "much"}, {"lr": 1, "kind": "c"}, {"lr": 1, "epochs": 3}, {"lr": 1, "out": "x"}):
        with pytest.raises(ValueError, match="validation error"):
            config.model_validate(wrong)


def test_a_typed_dict_declares_the_metrics_and_one_that_may_be_none_is_nullable(tmp_path: Path) -> None:
    text = UNIMPORTABLE + (
        "class Metrics(TypedDict):\n    '''What is measured.'''\n    loss: float\n    best: float | None\n"
        "def train(lr: float) -> Metrics: ...\n"
    )
    made = stage(tmp_path, text).config.model_validate({"lr": 1})
    assert list(made.declared().values()) == [Metric("loss"), Metric("best", nullable=True)]


@pytest.mark.parametrize(("returns", "declared"), [("", None), (" -> dict[str, float]", None), (" -> None", {})])
def test_a_function_that_does_not_say_what_it_returns_declares_nothing(
    tmp_path: Path, returns: str, declared: dict[str, Metric] | None
) -> None:
    made = stage(tmp_path, UNIMPORTABLE + f"def train(lr: float){returns}: ...\n")
    assert made.config.model_validate({"lr": 1}).declared() == declared


def test_a_path_is_an_input_where_the_sweep_feeds_it_and_else_a_local_file(tmp_path: Path) -> None:
    text = UNIMPORTABLE + "def train(data: Path, shards: list[Path], words: Path | None = None): ...\n"
    fed = stage(tmp_path, text, inputs=("data", "shards"))
    assert {name: (each.optional, each.many) for name, each in fed.inputs.items()} == {
        "data": (False, False),
        "shards": (False, True),
    }
    assert fed.config.model_fields.keys() == {"words"}
    file = LocalPath(path="/x/words.txt", sha256="0" * 64)
    assert fed.config.model_validate({"words": file}).identity() == {"words": {"sha256": "0" * 64}}
    assert stage(tmp_path, text, inputs=("shards",)).config.model_fields.keys() == {"data", "words"}


CALLED = """\
from pathlib import Path
def train(lr: float, out: Path, data: Path, words: Path | None = None, steps: int = 3):
    (out / "done").touch()
    return {"loss": lr * steps, "words": len(words.read_text()) if words else None, "data": len(data.name)}
"""


def test_a_function_gets_its_fields_its_inputs_and_the_folder_that_it_writes_into(tmp_path: Path) -> None:
    made = stage(tmp_path, CALLED, inputs=("data",))
    (tmp_path / "words.txt").write_text("four")
    config = made.config.model_validate({"lr": 2, "words": {"path": str(tmp_path / "words.txt"), "sha256": "0"}})
    train = study_at(tmp_path).load("mine").train
    assert made.call(train, config, tmp_path, {"data": Path("abc")}) == {"loss": 6.0, "words": 4, "data": 3}
    assert (tmp_path / "done").exists()


def test_none_stands_for_a_metric_that_may_be_undefined_and_for_no_metrics_at_all(tmp_path: Path) -> None:
    text = "from typing import TypedDict\nclass M(TypedDict):\n    a: float | None\ndef train(lr: float) -> M: ...\n"
    made = stage(tmp_path, text)
    config = made.config.model_validate({"lr": 1})
    assert made.call(lambda lr: {"a": None}, config, tmp_path, {}) == {"a": Undefined("the stage returned None")}
    # A metric that is declared is not left out by returning nothing.
    assert made.call(lambda lr: None, config, tmp_path, {}) is None
    silent = stage(tmp_path, "def train(lr: float): ...\n")
    assert silent.call(lambda lr: None, silent.config.model_validate({"lr": 1}), tmp_path, {}) == {}


DATACLASS = """\
from dataclasses import dataclass, field
from pathlib import Path
@dataclass
class Optimizer:
    lr: float
    betas: tuple[float, float] = (0.9, 0.99)
@dataclass
class Config:
    optimizer: Optimizer
    layers: list[int] = field(default_factory=list)
    steps: int = 10
    def __post_init__(self):
        if self.steps < 1:
            raise ValueError("at least one step")
def train(config: Config, out: Path, seed: int = 0):
    return {"loss": config.optimizer.lr, "seed": seed}
"""
MODEL = """\
from pydantic import BaseModel, Field
class Config(BaseModel):
    lr: float = Field(gt=0)
    steps: int = 10
def train(config: Config):
    return {"loss": config.lr}
"""


def test_the_fields_of_a_dataclass_are_those_of_the_config_and_its_own_checks_count(tmp_path: Path) -> None:
    made = stage(tmp_path, DATACLASS)
    config = made.config.model_validate({"optimizer": {"lr": 0.1}, "seed": 3})
    assert config.identity() == {
        "optimizer": {"lr": 0.1, "betas": [0.9, 0.99]},
        "layers": [],
        "steps": 10,
        "seed": 3,
    }
    assert made.call(study_at(tmp_path).load("mine").train, config, tmp_path, {}) == {"loss": 0.1, "seed": 3}
    with pytest.raises(ValueError, match="at least one step"):
        made.config.model_validate({"optimizer": {"lr": 0.1}, "steps": 0})


def test_the_fields_of_a_pydantic_model_are_those_of_the_config(tmp_path: Path) -> None:
    made = stage(tmp_path, MODEL)
    config = made.config.model_validate({"lr": 0.5})
    assert made.call(study_at(tmp_path).load("mine").train, config, tmp_path, {}) == {"loss": 0.5}
    with pytest.raises(ValueError, match="greater than 0"):
        made.config.model_validate({"lr": 0})


IMPORTED = [
    "RATE = 0.5\ndef train(lr: float = RATE): ...\n",
    "from enum import Enum\nclass Kind(str, Enum):\n    a = 'a'\ndef train(lr: Kind = Kind.a): ...\n",
    "from functools import wraps\ndef same(f):\n    return wraps(f)(lambda **k: f(**k))\n"
    "@same\ndef train(lr: float = 0.5): ...\n",
    "def made(f):\n    return f\ndef _train(lr: float = 0.5): ...\ntrain = made(_train)\n",
    "from __future__ import annotations\nimport typing as t\ndef train(lr: t.Annotated[float, 'unit'] = 0.5): ...\n",
    "Rate = float\ndef train(lr: 'Rate' = 0.5): ...\n",
]


@pytest.mark.parametrize("text", IMPORTED, ids=["default", "enum", "decorated", "assigned", "annotated", "alias"])
def test_a_module_is_imported_where_its_text_does_not_tell_what_a_parameter_is(tmp_path: Path, text: str) -> None:
    assert stage(tmp_path, text).config.model_fields.keys() == {"lr"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def trian(lr: float): ...", "has no function 'train'; did you mean 'trian'?"),
        ("def train(lr): ...", "parameter 'lr' of mine:train has no type; write e.g. lr: float"),
        ("def train(out): ...", "parameter 'out' of mine:train has no type; write e.g. out: Path"),
        ("def train(out: str): ...", "parameter 'out' of mine:train is the folder"),
        ("def train(**rest: float): ...", r"takes \*\*rest, whose fields nobody can know"),
        ("def train(*rest: float): ...", r"takes \*rest, whose fields nobody can know"),
        ("def train(lr: float, /): ...", "takes lr, whose fields"),
        ("async def train(lr: float): ...", "is an async function, not a function"),
        ("class train: ...", "is a class, not a function"),
        ("train = 3", "is of type int, not a function"),
        ("def train(lr: set[int]): ...", r"parameter 'lr' of mine:train has the type set\[int\], which cannot be"),
        ("import collections\ndef train(lr: collections.Counter): ...", "has the type collections.Counter, which"),
        ("def train(lr: list[bytes]): ...", "has the type bytes, which cannot be written in a sweep"),
        ("def train(lr: Nonsense): ...", "module 'mine' cannot be imported: NameError"),
        (
            "from __future__ import annotations\ndef train(lr: Nonsense): ...",
            "signature of mine:train cannot be read: name",
        ),
        ("def train(lr: float) -> float: ...", "mine:train returns float, but a stage returns a dict of metrics"),
        ("def train(lr: float) -> dict[str, float: ...", "module 'mine' is no Python: .*mine.py:1: "),
        (
            "from typing import TypedDict\nclass M(TypedDict):\n    a: str\ndef train(lr: float) -> M: ...",
            "metric 'a' of mine:train is declared as str; write float, or float | None",
        ),
        ("def train(metrics: float): ...", "parameter 'metrics' of mine:train has a name that is taken"),
        ("from pathlib import Path\ndef train(lr: Path = Path('x')): ...", "has a path as its default"),
        ("raise SystemExit(0)\ndef train(lr: float = RATE): ...", "cannot be imported: SystemExit: 0"),
    ],
)
def test_what_cannot_be_a_stage_is_named_with_the_remedy(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(StageError, match=message):
        stage(tmp_path, text)


def test_metrics_that_the_sweep_declares_are_those_that_the_function_returns(tmp_path: Path) -> None:
    text = "from typing import TypedDict\nclass M(TypedDict):\n    a: float\ndef train(lr: float) -> M: ...\n"
    assert stage(tmp_path, text, declared=("a",)).config.model_validate({"lr": 1}).declared() == {"a": Metric("a")}
    with pytest.raises(StageError, match="says that it returns the metrics a; leave out `metrics:`"):
        stage(tmp_path, text, declared=("b",))


def test_a_module_that_is_nowhere_is_said_with_those_that_are_there(tmp_path: Path) -> None:
    write(tmp_path, "", "my_study")
    with pytest.raises(StageError, match=r"no module 'my_studdy', neither .*; did you mean 'my_study'"):
        read_signature(study_at(tmp_path), "my_studdy:train")
    with pytest.raises(StageError, match="is no stage; write the name of one, or module:function"):
        read_signature(study_at(tmp_path), "my_study:train it")

"""What is part of a step's identity, and what only says how the step is run."""

from __future__ import annotations

from pathlib import Path

from workers.config import Config, Execution


class Speed(Execution):
    batch_size: int = 8


class Part(Config):
    name: str = "a"
    speed: Speed = Speed()


class Whole(Config):
    seed: int = 0
    part: Part = Part()
    several: tuple[Part, ...] = (Part(), Part(name="b"))
    where: Path = Path("x")
    named: dict[str, Part | Speed] = {"one": Part(), "two": Speed()}  # noqa: RUF012 (pydantic copies it)


def test_how_a_step_is_run_is_left_out_of_its_identity_wherever_it_stands() -> None:
    slow = Speed(batch_size=1)
    other = Whole(
        part=Part(speed=slow),
        several=(Part(speed=slow), Part(name="b", speed=slow)),
        named={"one": Part(speed=slow), "two": slow},
    )
    assert other.identity() == {
        "seed": 0,
        "part": {"name": "a"},
        "several": [{"name": "a"}, {"name": "b"}],
        "where": "x",
        "named": {"one": {"name": "a"}},
    }
    assert other.identity() == Whole().identity()


def test_a_worker_is_told_how_a_step_is_run() -> None:
    config = Whole(part=Part(speed=Speed(batch_size=2)))
    assert Whole.model_validate(config.model_dump(mode="json")) == config

"""What searches cost beside bare Optuna and Ray Tune, and what a sampler is worth. On an otherwise idle machine.

python tests/benchmarks/bench_search.py [overhead] [tune] [samplers] [memory]
"""

from __future__ import annotations

import math
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import optuna
import psutil

from orchestrator.drive import drive
from orchestrator.search.growth import Growth
from orchestrator.search.records import Told
from orchestrator.search.sampling import Sampling
from orchestrator.session import open_session
from orchestrator.sweep.search import Search

STAGE = """
from pathlib import Path

def nothing(out: Path, *, x: float, y: float, z: float, n: int, seed: int, arm: int) -> dict[str, float]:
    return {"value": x}
"""

SWEEP = """\
name: nothing
question: What does a trial cost?
axes: {{arm: {studies}}}
search:
  tuning:
    space: {{x: {{float: [0, 1]}}, y: {{float: [0.001, 1], log: true}}, z: {{float: [0, 1]}}, n: {{int: [1, 9]}}}}
    objective: {{metric: value, better: lower, over: {{seed: [0]}}}}
    sampler: {{name: {sampler}}}
    trials: {trials}
    concurrency: {concurrency}
stages:
  nothing: {{stage: "nothing:nothing", metrics: [value], config: [$tuning, {{seed: $seed, arm: $arm}}]}}
tracking: false
"""


def bare(sampler: str, trials: int, concurrency: int) -> float:
    """Milliseconds of a trial of Optuna alone: so many asked for, then one told and one asked for."""
    study = optuna.create_study(sampler=getattr(optuna.samplers, sampler)(seed=0))

    def ask() -> optuna.Trial:
        trial = study.ask()
        trial.suggest_float("x", 0, 1)
        trial.suggest_float("y", 0.001, 1, log=True)
        trial.suggest_float("z", 0, 1)
        trial.suggest_int("n", 1, 9)
        return trial

    started = time.perf_counter()
    open_trials = [ask() for _ in range(concurrency)]
    for _ in range(trials - concurrency):
        done = open_trials.pop(0)
        study.tell(done, done.params["x"])
        open_trials.append(ask())
    for done in open_trials:
        study.tell(done, done.params["x"])
    return 1000 * (time.perf_counter() - started) / trials


def ours(sampler: str, trials: int, concurrency: int, inline: bool, studies: int = 1) -> float:
    """Milliseconds of a trial of a search, from the first suggestion on."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "nothing.py").write_text(STAGE)
        path = Path(folder, "nothing.yaml")
        path.write_text(
            SWEEP.format(sampler=sampler, trials=trials, concurrency=concurrency, studies=list(range(studies)))
        )
        session = open_session(path, outputs=f"{folder}/out")
        begun: list[float] = []
        advance = Growth.advance

        def timed(self: Growth) -> list[int]:
            begun.append(time.perf_counter())
            return advance(self)

        Growth.advance = timed  # type: ignore[method-assign]
        try:
            assert drive(session, inline=inline) == 0
        finally:
            Growth.advance = advance  # type: ignore[method-assign]
        # The last call finds nothing due: all trials have ended.
        return 1000 * (begun[-1] - begun[0]) / trials / studies


def tune(trials: int, concurrency: int) -> float:
    """Milliseconds of a trial of Ray Tune with OptunaSearch, with actors that are used again, start-up included."""
    import ray
    from ray import tune as ray_tune
    from ray.tune.search import ConcurrencyLimiter
    from ray.tune.search.optuna import OptunaSearch

    class Nothing(ray_tune.Trainable):
        def setup(self, config: dict[str, float]) -> None:
            self.x = config["x"]

        def step(self) -> dict[str, float | bool]:
            return {"value": self.x, "done": True}

        def save_checkpoint(self, checkpoint_dir: str) -> None:
            pass

        def load_checkpoint(self, checkpoint: str) -> None:
            pass

        def reset_config(self, new_config: dict[str, float]) -> bool:
            self.x = new_config["x"]
            return True

    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    if not ray.is_initialized():
        ray.init(num_cpus=2, log_to_driver=False, include_dashboard=False)
    space = {"x": ray_tune.uniform(0, 1), "y": ray_tune.loguniform(0.001, 1), "z": ray_tune.uniform(0, 1)}
    searcher = OptunaSearch(metric="value", mode="min", sampler=optuna.samplers.TPESampler(seed=0))
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        ray_tune.Tuner(
            ray_tune.with_resources(Nothing, {"cpu": 0.2}),
            param_space=space,
            tune_config=ray_tune.TuneConfig(
                search_alg=ConcurrencyLimiter(searcher, concurrency), num_samples=trials, metric="value", mode="min",
                reuse_actors=True,
            ),
            run_config=ray_tune.RunConfig(storage_path=folder, verbose=0),
        ).fit()  # fmt: skip
    return 1000 * (time.perf_counter() - started) / trials


def samplers(repetitions: int, trials: int) -> None:
    """Compare the best of so many trials of two samplers on a function with a known bottom, over repetitions."""

    def loss(values: dict[str, float], noise: np.random.Generator) -> float:
        deep = values["net"] == "deep"
        rate = math.log10(float(values["lr"])) + (2.5 if deep else 2.0)
        return rate**2 + (0.0 if deep else 0.2) + 2 * (float(values["drop"]) - 0.3) ** 2 + 0.05 * noise.normal()

    found: dict[str, list[float]] = {}
    for name in ("TPESampler", "RandomSampler"):
        for repetition in range(repetitions):
            search = Search.model_validate(
                {
                    "space": {
                        "lr": {"float": [1e-6, 1], "log": True},
                        "drop": {"float": [0, 1]},
                        "net": {"choice": ["shallow", "deep"]},
                    },
                    "objective": {"metric": "loss", "better": "lower"},
                    "sampler": {"name": name}, "trials": trials, "seed": repetition,
                }
            )  # fmt: skip
            noise = np.random.default_rng(repetition)
            sampling = Sampling(search, {}, f"{name} {repetition}")
            best, value = math.inf, math.nan
            for number in range(trials):
                values, _ = sampling.suggest(number)
                measured = loss(values, noise)  # type: ignore[arg-type]
                if measured < best:
                    # What is compared is the loss without the noise that the choice was made by.
                    best, value = measured, loss(values, _Calm())  # type: ignore[arg-type]
                sampling.tell(Told(number, "complete", (measured,)))
            found.setdefault(name, []).append(value)
    for name, values in found.items():
        print(f"  {name}: {statistics.fmean(values):.4f} ± {statistics.stdev(values):.4f} (mean ± sd, n={repetitions})")
    differences = np.array(found["RandomSampler"]) - np.array(found["TPESampler"])
    from scipy import stats

    low, high = stats.t.interval(
        0.95, repetitions - 1, differences.mean(), differences.std(ddof=1) / math.sqrt(repetitions)
    )
    print(f"  random − TPE: {differences.mean():.4f}, 95 % [{low:.4f}, {high:.4f}], TPE better in "
          f"{int((differences > 0).sum())} of {repetitions}")  # fmt: skip


class _Calm:
    def normal(self) -> float:
        return 0.0


def memory(studies: int, trials: int) -> None:
    """Run many small studies, and print the memory of the process as they go."""
    process = psutil.Process()
    seen: list[tuple[float, int]] = []
    advance, total, count = Growth.advance, studies * trials, [0]

    def counted(self: Growth) -> list[int]:
        steps = advance(self)
        count[0] += 1
        if count[0] % 1000 == 1:
            seen.append((process.memory_info().rss / 1e6, sum(len(s.history.suggestions) for s in self._studies.all)))
        return steps

    Growth.advance = counted  # type: ignore[method-assign]
    started = time.perf_counter()
    took = ours("RandomSampler", trials, 1, True, studies)
    Growth.advance = advance  # type: ignore[method-assign]
    print(f"  {total:,} trials in {time.perf_counter() - started:.0f} s, {took:.2f} ms a trial")
    for megabytes, suggested in seen[:: max(1, len(seen) // 10)]:
        print(f"  {suggested:6,} trials suggested: {megabytes:.0f} MB")


def main(parts: list[str]) -> None:
    """Run the parts that are named, or all."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    chosen = parts or ["overhead", "tune", "samplers", "memory"]
    if "overhead" in chosen:
        ours("RandomSampler", 8, 8, True)
        for sampler in ("RandomSampler", "TPESampler"):
            for trials in (100, 300):
                pairs = [(bare(sampler, trials, 8), ours(sampler, trials, 8, True)) for _ in range(3)]
                alone, with_us = (statistics.median(each) for each in zip(*pairs, strict=True))
                print(f"  {sampler}, {trials} trials, 8 at a time, inline: Optuna alone {alone:.1f} ms a trial, "
                      f"here {with_us:.1f}, more by {with_us - alone:.1f}")  # fmt: skip
    if "tune" in chosen:
        print(f"  on Ray, TPE, 150 trials, 8 at a time: here {ours('TPESampler', 150, 8, False):.0f} ms a trial, "
              f"Ray Tune with OptunaSearch {tune(150, 8):.0f} (with start-up, actors used again)")  # fmt: skip
    if "samplers" in chosen:
        samplers(30, 60)
    if "memory" in chosen:
        memory(1000, 20)


if __name__ == "__main__":
    main(sys.argv[1:])

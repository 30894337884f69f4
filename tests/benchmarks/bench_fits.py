"""`make bench-fits`: what fits and evaluations cost, beside the released scripts and the limits of the machine.

Runs wherever torch is, on a GPU if there is one; LightGBM only where it is installed. Prints a table and writes it as
JSON too (`outputs/bench-fits.json`, or the file named as argument). Every figure is of one run on one machine.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

REPOSITORY = Path(__file__).parents[2]
sys.path.insert(0, str(REPOSITORY))

from released_scripts import DIMENSION, HIDDEN, literal_best_of, literal_evaluation, literal_fit  # noqa: E402

from workers import tables  # noqa: E402
from workers.annotator import reward_scale, second_wins  # noqa: E402
from workers.device import device  # noqa: E402
from workers.precision import factor_type  # noqa: E402
from workers.reward_models import metrics, mlp  # noqa: E402
from workers.reward_models.annotate import candidate_rows, draw_pairs  # noqa: E402
from workers.reward_models.configs import AnnotateConfig, EvaluateConfig, FitMlpConfig  # noqa: E402
from workers.reward_models.evaluate import evaluate, evaluate_all, permutations  # noqa: E402
from workers.reward_models.fit_mlp import fit_mlp, fit_mlps  # noqa: E402
from workers.reward_models.heads import build_mlp, save_mlp  # noqa: E402
from workers.stage import Call  # noqa: E402

#: Multiplications of one response in a forward pass: weights without biases.
WEIGHTS = DIMENSION * HIDDEN[0] + HIDDEN[0] * HIDDEN[1] + HIDDEN[1]
#: Floating-point operations per response: forward; and forward with gradients of all weights and of the hidden outputs.
FORWARD = 2 * WEIGHTS
STEP = 2 * WEIGHTS + 2 * WEIGHTS + 2 * (WEIGHTS - DIMENSION * HIDDEN[0])
CUDA = torch.cuda.is_available()
PRECISIONS = ("float32", "bfloat16") if factor_type("bfloat16") == torch.bfloat16 else ("float32",)
#: Reward models of a bundle of evaluations.
MODELS = 18


def main() -> None:
    """Measure, print, write."""
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else REPOSITORY / "outputs" / "bench-fits.json"
    bench = Bench()
    with tempfile.TemporaryDirectory() as folder:
        bench.peaks()
        for annotations, epochs in ((5_000, 6), (40_000, 2)):
            bench.fits(Path(folder), annotations, epochs)
        bench.evaluations(Path(folder))
        bench.annotation()
        if importlib.util.find_spec("lightgbm"):
            bench.trees(Path(folder))
    hardware = torch.cuda.get_device_name() if CUDA else f"{os.cpu_count()} cores of {processor()}"
    about = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M"), "hardware": hardware, "torch": torch.__version__,
        "python": platform.python_version(), "threads": torch.get_num_threads(),
    }  # fmt: skip
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({**about, "rows": bench.rows}, indent=1) + "\n")
    print(f"\n{about}\nwritten: {out}")


class Bench:
    """The table as it grows."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.peak: dict[str, float] = {}
        """Precision -> FLOP/s of a matrix product of the first layer's shape."""

    def note(self, what: str, value: float, unit: str, goal: str = "", arithmetic: str = "") -> None:
        """A line of the table."""
        self.rows.append({"what": what, "value": value, "unit": unit, "goal": goal, "arithmetic": arithmetic})
        print(f"{what:<72} {value:>10.4g} {unit:<8} {goal:<8} {arithmetic}", flush=True)

    def peaks(self) -> None:
        """What the machine does at best."""
        for name in PRECISIONS:
            self.peak[name] = peak(name)
            self.note(f"matrix product, {name}", self.peak[name] / 1e9, "GFLOP/s", "", "10,240 x 2,048 x 1,024")
        if len(PRECISIONS) == 1:
            print("bfloat16: this processor has none, so it is not measured here")
        source = torch.empty(2**26, device=device())
        target = torch.empty_like(source)
        self.note("copy", 2 * 2**28 / best(lambda: target.copy_(source), 5) / 1e9, "GB/s", "", "read and written")

    def fits(self, folder: Path, annotations: int, epochs: int) -> None:
        """One fit by itself, and a bundle, against the released procedure taken literally."""
        embeddings, pairs = training_data(folder / f"train{annotations}", annotations)
        fit_mlp(
            FitMlpConfig(loss="clf", hidden=(8,), epochs=1, seed=0),
            fresh(folder),
            annotations=pairs,
            embeddings=[embeddings],
        )
        for loss in ("bt", "clf"):
            setting = FitMlpConfig(loss=loss, epochs=epochs, patience=epochs, seed=0)
            what = f"{loss}, n = {annotations:,}"
            before = peak("float32")
            counted = Flops()
            ours = timed(lambda s=setting: fit_mlp(s, fresh(folder), annotations=pairs, embeddings=[embeddings]))  # type: ignore[misc]
            flops = counted.stop()
            # Measured on both sides of the fit: machines that are shared change their speed.
            self.peak["float32"] = (before + peak("float32")) / 2
            limit = flops / self.peak["float32"]
            arithmetic = f"{flops / 1e12:.2f} TFLOP in {epochs} epochs; at the peak {limit:.2f} s"
            self.note(f"one fit, {what}", ours, "s", "", arithmetic)
            goal = f"{self.peak['float32'] / 1e9:.0f} GFLOP/s just before and after"
            self.note(f"... share of the float32 peak, {what}", 100 * limit / ours, "%", ">=85", goal)
            if "bfloat16" in PRECISIONS:
                half = setting.model_copy(update={"precision": "bfloat16"})
                rounded = timed(lambda s=half: fit_mlp(s, fresh(folder), annotations=pairs, embeddings=[embeddings]))  # type: ignore[misc]
                ratio = self.peak["bfloat16"] / self.peak["float32"]
                self.note(f"... bfloat16 / float32, {what}", ours / rounded, "x", ">=1.8", f"products {ratio:.2f} x")
            plain = timed(lambda s=setting: literal_fit(embeddings, pairs, s))  # type: ignore[misc]
            self.note(f"... the released scripts' loop / one fit, {what}", plain / ours, "x", "", f"{plain:.1f} s")
            if CUDA:
                count = 16
                calls = [
                    Call(
                        setting.model_copy(update={"seed": seed}),
                        fresh(folder),
                        {"annotations": pairs, "embeddings": [embeddings]},
                    )
                    for seed in range(count)
                ]
                each = timed(lambda c=calls: list(fit_mlps(c))) / count  # type: ignore[misc]
                self.note(
                    f"... the released scripts' loop / a fit in a bundle of {count}, {what}", plain / each, "x", ">=10"
                )
        inputs = [str(embeddings), str(pairs)]
        used, must = (float(each) for each in child("memory", *inputs).split())
        self.note(
            f"peak memory of a fit, n = {annotations:,}, beside what it must touch", used / must, "x", "<=1.2",
            f"{used / 2**20:.0f} MiB over that of the imports; matrices {must / 2**20:.0f} MiB",
        )  # fmt: skip

    def evaluations(self, folder: Path) -> None:
        """A bundle of reward models on one test set, against loading and scoring them one by one."""
        prompts, responses = (2273, 500) if CUDA else (160, 500)
        random = np.random.default_rng(0)
        test = folder / "test"
        test.mkdir()
        embeddings = random.standard_normal((prompts, responses, DIMENSION), dtype=np.float32)
        np.save(test / "embeddings.npy", embeddings)
        np.save(test / "scores.npy", embeddings[..., :8].sum(axis=2))
        del embeddings
        models = []
        for seed in range(MODELS):
            torch.manual_seed(seed)
            models.append(fresh(folder))
            save_mlp([build_mlp(DIMENSION, HIDDEN)], DIMENSION, HIDDEN, models[-1])
        setting = EvaluateConfig()
        inputs: dict[str, Any] = {"embeddings": [test], "scores": [test]}
        calls = [Call(setting, fresh(folder), inputs | {"reward_model": model}) for model in models]
        plain = timed(lambda: literal_evaluation(test, models[0], setting))
        alone = timed(lambda: evaluate(setting, fresh(folder), reward_model=models[0], **inputs))
        bundle = timed(lambda: list(evaluate_all(calls))) / MODELS
        flops = FORWARD * prompts * responses
        shape = f"{prompts:,} x {responses} x {DIMENSION:,}"
        limit = flops / self.peak["float32"]
        self.note(
            f"evaluation of a cell in a bundle of {MODELS}, {shape}",
            bundle,
            "s",
            "",
            f"{flops / 1e12:.2f} TFLOP, at the peak {limit:.2f} s",
        )
        self.note(
            "... loading and scoring one by one / in the bundle",
            plain / bundle,
            "x",
            ">=5",
            f"{plain:.2f} s; no way of computing the same products gains more than {plain / limit:.1f} x",
        )
        self.note("... alone / in the bundle", alone / bundle, "x")
        if "bfloat16" in PRECISIONS:
            half = [
                Call(setting.model_copy(update={"precision": "bfloat16"}), fresh(folder), call.inputs) for call in calls
            ]
            rounded = timed(lambda: list(evaluate_all(half))) / MODELS
            self.note(
                "... one by one in float32 / in the bundle in bfloat16", plain / rounded, "x", "", f"{rounded:.2f} s"
            )
        predictions, golden = random.standard_normal((2, prompts, responses))
        orders = permutations(setting, responses)
        fast = best(lambda: metrics.best_of_n(predictions, golden, setting.best_of, orders), 3)
        slow = timed(lambda: literal_best_of(predictions, golden, setting.best_of, orders))
        self.note(
            "best-of-N: 100 x 8 argmax passes / prefix minima",
            slow / fast,
            "x",
            "",
            f"{1e3 * fast:.0f} ms for {prompts:,} prompts",
        )

    def annotation(self) -> None:
        """40,000 annotations of 42,846 prompts with 10 responses, against a loop over pairs."""
        rewards = np.random.default_rng(0).standard_normal((42_846, 10)).astype(np.float32)
        setting = AnnotateConfig(sampling="similar", beta=1.0, scale="std", annotations=40_000, seed=0)

        def ours() -> None:
            first, second = draw_pairs(candidate_rows(rewards, setting.sampling, 0), setting)
            flat = rewards.ravel().astype(np.float64)
            uniform = np.random.default_rng(0).random(len(rewards))[:40_000]
            second_wins(flat[second] - flat[first], uniform, 1.0, reward_scale(rewards, "std"))

        def loop() -> None:
            random = np.random.default_rng(0)
            for prompt in range(40_000):
                mine, other = np.argsort(rewards[prompt])[4:6], random.integers(len(rewards))
                theirs = np.argsort(rewards[other])[4:6]
                gap = rewards[other, random.choice(theirs)] - rewards[prompt, random.choice(mine)]
                _ = random.random() < 1 / (1 + np.exp(-gap))

        fast = best(ours, 5)
        self.note("annotation of 40,000 pairs", 1e3 * fast, "ms", "<=50")
        self.note("... a loop over pairs / vectorised", timed(loop) / fast, "x")

    def trees(self, folder: Path) -> None:
        """Six noise levels on the same pairs: binned once or six times."""
        from workers.reward_models.configs import FitLightgbmConfig
        from workers.reward_models.fit_lightgbm import fit_lightgbm, fit_lightgbms

        embeddings, pairs = training_data(folder / "trees", 2_000)
        setting = FitLightgbmConfig(seed=0, num_boost_round=30)
        inputs: dict[str, Any] = {"annotations": pairs, "embeddings": [embeddings]}
        calls = [Call(setting, fresh(folder), inputs) for _ in range(6)]
        together = timed(lambda: list(fit_lightgbms(calls)))
        apart = timed(lambda: [fit_lightgbm(setting, fresh(folder), **inputs) for _ in range(6)])
        self.note(
            "LightGBM, six fits apart / binned once, 4,000 rows, 30 rounds", apart / together, "x", "", f"{apart:.1f} s"
        )


def peak(precision: str) -> float:
    """FLOP/s of a matrix product of the first layer's shape."""
    dtype = factor_type(precision)
    left, right = (torch.randn(*shape, device=device()).to(dtype) for shape in ((10_240, 2048), (2048, 1024)))
    out = torch.empty(10_240, 1024, device=device(), dtype=dtype)
    return 2 * 10_240 * 2048 * 1024 / best(lambda: torch.mm(left, right, out=out), 8)


class Flops:
    """Counts what trainings multiply while it is in place."""

    def __init__(self) -> None:
        self.count = 0
        self._step, self._loss = mlp.Mlp.step, mlp.Mlp.loss

        def step(network: mlp.Mlp, features: torch.Tensor, batch: mlp.Batch) -> torch.Tensor:
            self.count += STEP * len(batch.distinct)
            return self._step(network, features, batch)

        def loss(network: mlp.Mlp, features: torch.Tensor, batch: mlp.Batch) -> torch.Tensor:
            self.count += FORWARD * len(batch.distinct)
            return self._loss(network, features, batch)

        mlp.Mlp.step, mlp.Mlp.loss = step, loss  # type: ignore[method-assign]

    def stop(self) -> int:
        """How many floating-point operations it were."""
        mlp.Mlp.step, mlp.Mlp.loss = self._step, self._loss  # type: ignore[method-assign]
        return self.count


def training_data(folder: Path, annotations: int) -> tuple[Path, Path]:
    """Embeddings (n, 2, d) with rewards linear in them, and cross-prompt annotations with noise."""
    folder.mkdir()
    random = np.random.default_rng(0)
    embeddings = random.standard_normal((annotations, 2, DIMENSION), dtype=np.float32)
    rewards = embeddings[..., :64].sum(axis=2) / 8
    np.save(folder / "embeddings.npy", embeddings)
    setting = AnnotateConfig(sampling="random", beta=3.0, scale="std", annotations=annotations, seed=0)
    first, second = draw_pairs(candidate_rows(rewards, setting.sampling, 0), setting)
    gap = rewards.ravel()[second] - rewards.ravel()[first]
    wins = second_wins(gap, random.random(annotations), 3.0, reward_scale(rewards, "std"))
    columns = {
        "winner": np.where(wins, second, first), "loser": np.where(wins, first, second),
        "reward_gap": np.where(wins, gap, -gap),
    }  # fmt: skip
    tables.ANNOTATIONS.write(columns, folder)
    return folder, folder


def memory(embeddings: str, annotations: str) -> None:
    """Most memory of its own during one fit over that before it, and the bytes of the matrices it must touch."""
    torch.mm(torch.ones(64, 64), torch.ones(64, 64))
    setting = FitMlpConfig(loss="bt", epochs=1, seed=0)
    made: list[mlp.Mlp] = []
    initialise = mlp.Mlp.__init__

    def note(network: mlp.Mlp, *arguments: Any) -> None:
        initialise(network, *arguments)
        made.append(network)

    mlp.Mlp.__init__ = note  # type: ignore[method-assign]
    before, most, ended = own_memory(), 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not ended.wait(0.001):
            most = max(most, own_memory())

    with tempfile.TemporaryDirectory() as out:
        watcher = threading.Thread(target=watch)
        watcher.start()
        fit_mlp(setting, Path(out), annotations=Path(annotations), embeddings=[Path(embeddings)])
        ended.set()
        watcher.join()
    used = most - before
    table = tables.ANNOTATIONS.read(Path(annotations))
    responses = len(np.unique(np.concatenate([table["winner"].to_numpy(), table["loser"].to_numpy()])))
    batch = len(made[0]._inputs) * (DIMENSION + 2 * sum(HIDDEN) + 1)
    print(used, 4 * (responses * DIMENSION + batch + 4 * made[0].parameters.numel()))


def own_memory() -> int:
    """Bytes of this process now. Files that are mapped do not count: the peak that Linux keeps has them in it."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return 1024 * int(status["RssAnon"].split()[0])


def child(name: str, *arguments: str) -> str:
    """What a function of this file prints in a process of its own."""
    here = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})"
    code = f"{here}; import bench_fits; bench_fits.{name}(*sys.argv[1:])"
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1]


def timed(work: Callable[[], object]) -> float:
    """Seconds."""
    began = time.perf_counter()
    work()
    if CUDA:
        torch.cuda.synchronize()
    return time.perf_counter() - began


def best(work: Callable[[], object], times: int) -> float:
    """The least of several, after one to warm up."""
    timed(work)
    return min(timed(work) for _ in range(times))


def fresh(folder: Path) -> Path:
    """An empty folder."""
    return Path(tempfile.mkdtemp(dir=folder))


def processor() -> str:
    """Its name as Linux has it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main()

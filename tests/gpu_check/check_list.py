"""The checks, in the order in which they are run: what tells most comes first, since time may run out."""

from __future__ import annotations

from dataclasses import dataclass

#: What the stages need that train with TRL.
TRAINING = ("transformers", "trl", "peft", "datasets")


@dataclass(frozen=True)
class Check:
    """Something that is looked at in a process of its own."""

    name: str
    function: str
    """"module:name" of `def name(record: Record, work: Path, *arguments: str) -> None`."""
    seconds: float
    """How long it is expected to take on a machine with a GPU."""
    arguments: tuple[str, ...] = ()
    gpu: bool = False
    """Whether nothing of it can be looked at without a GPU."""
    needs: tuple[str, ...] = ()
    """Checks whose results it reads."""
    packages: tuple[str, ...] = ()
    """Packages that it imports beside those that planning needs."""

    @property
    def limit(self) -> float:
        """Seconds after which its process is ended."""
        return 4 * self.seconds + 60


CHECKS = (
    Check("device", "device_checks:products", 15),
    Check("stages-on-cpu", "stage_checks:on_cpu", 40, packages=TRAINING),
    Check(
        "models", "stage_checks:on_gpu", 30,
        ("policy", "generate", "score", "embed", "verdicts", "margins", "judgments"),
        gpu=True, needs=("stages-on-cpu",), packages=("transformers",),
    ),
    Check(
        "trainings", "stage_checks:on_gpu", 30, ("sft", "golden", "dpo", "scalar"),
        gpu=True, needs=("stages-on-cpu",), packages=TRAINING,
    ),
    Check("reward-models", "stage_checks:on_gpu", 15, ("fit", "evaluate"), gpu=True, needs=("stages-on-cpu",)),
    Check("fits", "fit_checks:fits", 40),
    Check("evaluations", "fit_checks:evaluations", 40),
    Check("warm-models", "memory_checks:warm_models", 15, packages=("transformers",)),
    Check("resumption", "resumption_checks:resumption", 25, packages=TRAINING),
    Check("too-large", "memory_checks:too_large", 25, gpu=True, packages=TRAINING),
    Check("batches", "memory_checks:batches", 25, gpu=True, packages=("transformers",)),
    Check("sick-device", "memory_checks:sick_device", 15, gpu=True),
    Check("shared-memory", "sharing_checks:shared_memory", 20, gpu=True),
    Check("fractional", "sharing_checks:fractional", 60, gpu=True, packages=("transformers", "ray", "mlflow")),
    Check("gpt2", "shape_checks:real_shape", 60, ("gpt2",), packages=TRAINING),
    Check("gemma", "shape_checks:real_shape", 120, ("gemma",), packages=TRAINING),
)  # fmt: skip

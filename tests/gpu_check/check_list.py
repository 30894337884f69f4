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


#: Entries of `stage_sweep`, each beside the CPU -> whether it trains with TRL.
_STAGES = {
    "policy": False, "sft": True, "golden": True, "generate": False, "score": False, "embed": False, "fit": False,
    "evaluate": False, "dpo": True, "scalar": True, "verdicts": False, "margins": False, "judgments": False,
}  # fmt: skip

CHECKS = (
    Check("device", "device_checks:products", 15),
    Check("stages-on-cpu", "stage_checks:on_cpu", 40, packages=TRAINING),
    *(
        Check(
            f"stage-{entry}", "stage_checks:on_gpu", 12, (entry,), gpu=True, needs=("stages-on-cpu",),
            packages=TRAINING if trains else TRAINING[:1],
        )
        for entry, trains in _STAGES.items()
    ),
)  # fmt: skip

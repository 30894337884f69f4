"""Trainings that go on from a checkpoint of an earlier attempt as if it had never been stopped."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, TrainOutput

from workers.checkpoints import Checkpoints
from workers.device import device

#: Beside the files of transformers: what it does not keep, and where the checkpoint was made.
_MORE = "resumption.json"
#: What trainers of transformers and TRL count from where they are resumed, for their logs, and keep in no file:
#: the loss up to the last step that was logged, that step, and tokens.
_COUNTERS = ("_total_loss_scalar", "_globalstep_last_logged", "_total_train_tokens")
#: Libraries whose other versions may read a checkpoint otherwise, or not at all.
_LIBRARIES = ("torch", "transformers", "trl", "peft")


def train(trainer: Trainer, checkpoints: Checkpoints) -> TrainOutput:
    """Train, from the newest checkpoint on that was made by these libraries on this kind of device.

    Data, optimizer, scheduler and random numbers go on where they were, and so do the mean loss and the curve: on one
    kind of device the result is that of a training that was not stopped, to the bit where its kernels are
    deterministic.
    """
    newest = None
    for name, folder in checkpoints.found().items():
        if _read(folder)["made_with"] == _made_with():
            newest = (name, folder)
        else:
            print(f"the checkpoint {name} is deleted: other libraries made it, or another device", flush=True)
            checkpoints.drop(name)
    if newest:
        print(f"the training goes on from the checkpoint {newest[0]}", flush=True)
    trainer.add_callback(_Keep(trainer, checkpoints, newest))
    return trainer.train(resume_from_checkpoint=str(newest[1]) if newest else None)


def _made_with() -> dict[str, str]:
    where = torch.cuda.get_device_name() if device().type == "cuda" else device().type
    return {"device": where, **{name: version(name) for name in _LIBRARIES}}


def _read(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / _MORE).read_text(encoding="utf-8"))
    return found


class _Keep(TrainerCallback):
    """A callback that has the trainer save now and then, and keeps that; it gives back what was saved with it.

    The trainer counts from where it was resumed. What it had counted is put back, so that the curve, and the mean loss
    of the whole training, are those of one that was not stopped.
    """

    def __init__(self, trainer: Trainer, checkpoints: Checkpoints, resumed: tuple[str, Path] | None) -> None:
        self._trainer = trainer
        self._checkpoints = checkpoints
        self._resumed = resumed
        self._last = resumed[0] if resumed else None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Put back what the trainer has counted so far."""
        if self._resumed:
            counted: Mapping[str, Any] = _read(self._resumed[1])["counted"]
            for name in _COUNTERS:
                setattr(self._trainer, name, counted[name])
            self._trainer._tr_loss = torch.tensor(counted["loss"], device=args.device)
            self._trainer._metrics["train"].update(counted["metrics"])
            self._trainer._initial_global_step = 0

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Have the trainer save if it is time to, but for the last step: then the model is about to be stored."""
        # Only this callback asks for it.
        control.should_save = state.global_step < state.max_steps and self._checkpoints.due()

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Keep what the trainer saved, in place of the last checkpoint."""
        saved = Path(str(args.output_dir)) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
        counted = {
            "loss": self._trainer._tr_loss.item(),
            "metrics": self._trainer._metrics["train"],
            **{name: getattr(self._trainer, name) for name in _COUNTERS},
        }
        more = {"made_with": _made_with(), "counted": counted}
        (saved / _MORE).write_text(json.dumps(more, indent=2) + "\n", encoding="utf-8")
        name = f"step{state.global_step:09d}"
        if self._checkpoints.keep(name, lambda folder: _move(saved, folder)):
            if self._last:
                self._checkpoints.drop(self._last)
            self._last = name
        shutil.rmtree(saved, ignore_errors=True)


def _move(source: Path, target: Path) -> None:
    for path in source.iterdir():
        path.rename(target / path.name)

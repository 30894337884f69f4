"""What the trainings with TRL have in common: arguments, LoRA, precision, and the model that is stored.

With a dtype other than float32, LoRA keeps the frozen weights in that type. Training all weights keeps them in float32
under autocast, because steps of 5e-5 vanish in 16 bits. Both store the model in that type.
"""

from __future__ import annotations

from typing import Any

import torch
from peft import LoraConfig
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from workers.config import Dtype
from workers.device import device
from workers.language_models.configs import Lora
from workers.progress import Progress


def weights_dtype(dtype: Dtype, lora: Lora | None) -> Dtype:
    """The type of the weights while they are trained."""
    return dtype if lora else "float32"


def arguments(
    scratch: str,
    *,
    learning_rate: float,
    epochs: float,
    batch_size: int,
    seed: int,
    gradient_accumulation: int = 1,
    dtype: Dtype = "float32",
) -> dict[str, Any]:
    """Arguments for the config class of any TRL trainer; what is not named here is TRL's default.

    That is AdamW without weight decay, linear decay of the learning rate without warm-up, gradient norm clipped at 1.

    Args:
        scratch: folder that is thrown away.
        learning_rate: peak.
        epochs: passes over the rows.
        batch_size: rows per forward pass.
        seed: 32 bits; of the order of the rows, and of LoRA's initial weights.
        gradient_accumulation: forward passes per optimizer step.
        dtype: of autocast.

    Raises:
        ValueError: several GPUs are visible. transformers would give each of them a batch of `batch_size` rows, so
            that the same config would train another model.
    """
    gpu = device().type == "cuda"
    if gpu and (count := torch.cuda.device_count()) > 1:
        raise ValueError(
            f"{count} GPUs are visible, and the batch would be {count} times the {batch_size} rows of the config: "
            "training uses one GPU. Ask for gpus: 1 under runtime, for the entry; outside of Ray, also set "
            "CUDA_VISIBLE_DEVICES to one of them"
        )
    return {
        "output_dir": scratch,
        "learning_rate": learning_rate,
        "num_train_epochs": epochs,
        "per_device_train_batch_size": batch_size,
        "gradient_accumulation_steps": gradient_accumulation,
        "seed": seed,
        "bf16": dtype == "bfloat16",
        "fp16": dtype == "float16",
        "use_cpu": not gpu,
        # Trades time for memory, changes no number: worth it only where memory is scarce.
        "gradient_checkpointing": gpu,
        "dataloader_pin_memory": gpu,
        # Rows come cut or chosen by length. TRL would cut or drop them by rules of its own.
        "max_length": None,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


class RequireUpdates(TrainerCallback):
    """An error for a training that changes nothing, since no step was taken with a learning rate above 0."""

    def __init__(self) -> None:
        """No step was taken yet."""
        self._updates = self._skipped = 0

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **found: Any
    ) -> None:
        """As transformers has it."""
        optimizer = found["optimizer"]
        if optimizer.step_was_skipped:
            self._skipped += 1
        elif any(group["lr"] > 0 for group in optimizer.param_groups):
            self._updates += 1

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **found: Any) -> None:
        """As transformers has it.

        Raises:
            ValueError: the weights are those that training began with.
        """
        if self._updates:
            return
        rows = len(found["train_dataloader"].dataset)
        warmup = args.get_warmup_steps(state.max_steps)
        # Mixed precision does that while it looks for a scale of the gradients.
        skipped = f", {self._skipped} were skipped because a gradient was not finite" if self._skipped else ""
        raise ValueError(
            f"training changed nothing: {rows} rows in batches of {args.per_device_train_batch_size} x "
            f"gradient_accumulation {args.gradient_accumulation_steps}, {args.num_train_epochs:g} epochs, are "
            f"{state.max_steps} optimizer steps, of which the first {warmup} warm up from a learning rate of 0"
            f"{skipped}, and none was taken with one above 0: give it more rows or epochs, a smaller batch_size or "
            "gradient_accumulation, or less warmup"
        )


class ShowProgress(TrainerCallback):
    """Lines of progress in the log of a training."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """As transformers has it."""
        self._progress = Progress("optimizer steps", state.max_steps)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """As transformers has it."""
        self._progress.show(state.global_step)


def adapter(lora: Lora | None, task: str, **options: Any) -> LoraConfig | None:
    """LoRA on the modules that peft names for the architecture (query and value projections of Llama and Gemma)."""
    if lora is None:
        return None
    return LoraConfig(r=lora.r, lora_alpha=lora.alpha, lora_dropout=lora.dropout, task_type=task, **options)


def trained(trainer: Trainer, lora: Lora | None, dtype: Dtype) -> PreTrainedModel:
    """The model after training, LoRA merged, in the type that it is stored in."""
    model = trainer.model.merge_and_unload() if lora else trainer.model
    return model.to(getattr(torch, dtype))

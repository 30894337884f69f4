"""The skeleton of every training with TRL: load a model, train it, check that it changed, store it with its curve.

A stage prepares its rows and names a trainer of TRL; `load_start` and `train` do the rest.

With a dtype other than float32, LoRA keeps the frozen weights in that type. Training all weights keeps them in float32
under autocast, because steps of 5e-5 vanish in 16 bits, and stores the model in that type. LoRA stores the adapter, in
float32, with a reference to its base (`workers.language_models.models`), or with `lora.merged` the model.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model_state_dict
from transformers import (
    AutoModelForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from workers.checkpoints import NONE, Checkpoints
from workers.config import Dtype, HubModel, LocalPath
from workers.device import device
from workers.device_memory import require_room
from workers.history import write_history
from workers.language_models import adapters, models, resumption
from workers.language_models.configs import Lora
from workers.progress import Progress
from workers.seeding import derive_seed

#: A function that loads a source with its tokenizer, given the type of the weights.
Load = Callable[[models.Source, PreTrainedTokenizerBase, Dtype], PreTrainedModel]


class TrainingConfig(Protocol):
    """The fields that every training reads from the config of its stage.

    A config that does not offer one of them as a field has it as a class variable.
    """

    @property
    def learning_rate(self) -> float:
        """Peak learning rate."""

    @property
    def epochs(self) -> float:
        """Passes over the rows."""

    @property
    def batch_size(self) -> int:
        """Rows per forward pass."""

    @property
    def gradient_accumulation(self) -> int:
        """Forward passes per optimizer step."""

    @property
    def max_tokens(self) -> int:
        """Longest row in tokens."""

    @property
    def lora(self) -> Lora | None:
        """LoRA, or None to train all weights."""

    @property
    def dtype(self) -> Dtype:
        """Type that the model computes and is stored in."""

    @property
    def seed(self) -> int:
        """Seed of every draw."""


@dataclass(frozen=True)
class Start:
    """A model before its training."""

    source: models.Source
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    limit: int
    """Longest row in tokens: `max_tokens` of the config, or fewer where the model reads fewer."""


@dataclass(frozen=True)
class Trained:
    """Figures of a training."""

    loss: float
    """Mean of the loss over the training steps."""
    steps: int
    """Optimizer steps."""


def load_start(named: Path | LocalPath | HubModel, config: TrainingConfig, load: Load | None = None) -> Start:
    """Load the model that a training starts from, its weights in the type that they are trained in.

    Args:
        named: folder of a model artifact, or a model that a config names.
        config: of the training.
        load: loads the model; without it, as a causal language model.

    Raises:
        FileNotFoundError: the model cannot be read.
        ValueError: the checkpoint lacks weights.
        NoRoomError: it cannot be trained in the free memory of the GPU.
    """
    source = models.locate(named)
    tokenizer = models.load_tokenizer(source)
    model = (load or _load_causal)(source, tokenizer, config.dtype if config.lora else "float32")
    if not config.lora:
        # Weights, their gradients and the two moments of Adam, all of them float32.
        require_room(4 * sum(weight.nbytes for weight in model.parameters()), f"training {source.name}")
    return Start(source, model, tokenizer, models.token_limit(model, tokenizer, config.max_tokens))


def train(
    trainer_class: type[Trainer],
    arguments_class: type[TrainingArguments],
    config: TrainingConfig,
    start: Start,
    rows: Dataset,
    out: Path,
    *,
    label: str,
    task: Literal["CAUSAL_LM", "SEQ_CLS"] = "CAUSAL_LM",
    head: Sequence[str] = (),
    checkpoints: Checkpoints = NONE,
    **options: Any,
) -> Trained:
    """Train a model with TRL; write `history.parquet`, and `model/` or, with LoRA that is not merged, `adapter/`.

    Unless `options` differ, this is AdamW without weight decay, linear decay of the learning rate without warm-up, and
    the gradient norm clipped at 1. LoRA is put on the modules that peft names for the architecture (Llama, Gemma:
    query and value projections).

    Args:
        trainer_class: trainer of TRL.
        arguments_class: class of its arguments.
        config: settings of the training.
        start: the model to train, which is changed; without LoRA it is then the trained model, in evaluation mode.
        rows: rows to train on, with the columns that the trainer reads.
        out: folder of the artifact.
        label: the seed of the trainer, for the order of the rows and the initial weights of LoRA, is
            `derive_seed(config.seed, label)`.
        task: the kind of model in terms of peft.
        head: names of modules on top of the language model, which started out random: LoRA trains them whole, and they
            are stored in float32.
        checkpoints: those of the step; a training that goes on from one takes the same steps, to the bit on one kind of
            device.
        **options: further arguments of TRL, beside those that `config` gives; all others keep TRL's defaults.

    Raises:
        ValueError: the training changed nothing, or several GPUs are visible.
    """
    lora = config.lora
    adapter = lora and LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        task_type=task,
        modules_to_save=list(head) or None,
    )
    with tempfile.TemporaryDirectory(dir=out) as scratch:
        trainer = trainer_class(
            model=start.model,
            processing_class=start.tokenizer,
            train_dataset=rows,
            callbacks=[_ShowProgress(), _RequireUpdates()],
            peft_config=adapter,
            args=arguments_class(output_dir=scratch, **_arguments(config, label), **options),
        )
        result = resumption.train(trainer, checkpoints)
    if lora and not lora.merged:
        models.save_adapter(_adapter(trainer.model), start.tokenizer, start.source, config.dtype, out)
    else:
        _save_whole(trainer.model, config, start, head, out)
    write_history(trainer.state.log_history, out)
    return Trained(float(result.training_loss), int(result.global_step))


def _adapter(trained: PeftModel) -> adapters.Adapter:
    """Return the adapter that was trained on a model."""
    weights = get_peft_model_state_dict(trained, save_embedding_layers=False)
    settings = trained.peft_config["default"].to_dict()
    # Sets have another order in each process. Of the names that heads may have, peft has added all.
    heads = set(settings["modules_to_save"] or ()) & {part for name in weights for part in name.split(".")}
    settings |= {"target_modules": sorted(settings["target_modules"]), "modules_to_save": sorted(heads) or None}
    return adapters.parse("the trained adapter", weights, settings)


def _save_whole(
    trained: PreTrainedModel | PeftModel, config: TrainingConfig, start: Start, head: Sequence[str], out: Path
) -> None:
    """Write a trained model, in the type of the config but for its head."""
    if isinstance(trained, PeftModel):
        adapter = _adapter(trained)
        # Merged as whoever reads an adapter merges it, also if it was trained on a GPU.
        trained = trained.unload().cpu()
        adapter.merge_into(trained)
    model = trained.to(getattr(torch, config.dtype)).eval()
    for name in head:
        getattr(model, name).float()
    models.save_model(model, start.tokenizer, out)


def _load_causal(source: models.Source, tokenizer: PreTrainedTokenizerBase, dtype: Dtype) -> PreTrainedModel:
    return models.load_model(source, AutoModelForCausalLM, tokenizer, dtype=dtype)


def _arguments(config: TrainingConfig, label: str) -> dict[str, Any]:
    """Return the arguments that every trainer of TRL gets.

    Raises:
        ValueError: several GPUs are visible. transformers would give each of them a batch of `batch_size` rows, so
            that the same config would train another model.
    """
    gpu = device().type == "cuda"
    if gpu and (count := torch.cuda.device_count()) > 1:
        raise ValueError(
            f"{count} GPUs are visible, and the batch would be {count} times the {config.batch_size} rows of the "
            "config: training uses one GPU. Ask for gpus: 1 under runtime, for the entry; outside of Ray, also set "
            "CUDA_VISIBLE_DEVICES to one of them"
        )
    return {
        "learning_rate": config.learning_rate,
        "num_train_epochs": config.epochs,
        "per_device_train_batch_size": config.batch_size,
        "gradient_accumulation_steps": config.gradient_accumulation,
        "seed": derive_seed(config.seed, label, bits=32),
        "bf16": config.dtype == "bfloat16",
        "fp16": config.dtype == "float16",
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


class _RequireUpdates(TrainerCallback):
    """A callback that raises if training changed nothing: no step was taken with a learning rate above 0."""

    def __init__(self) -> None:
        self._updates = self._skipped = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Count what an earlier attempt has done."""
        self._updates = sum(entry.get("learning_rate", 0) > 0 for entry in state.log_history)

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **found: Any
    ) -> None:
        """Count the step, unless mixed precision skipped it or its learning rate is 0."""
        optimizer = found["optimizer"]
        if optimizer.step_was_skipped:
            self._skipped += 1
        elif any(group["lr"] > 0 for group in optimizer.param_groups):
            self._updates += 1

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **found: Any) -> None:
        """Require that a step was counted.

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


class _ShowProgress(TrainerCallback):
    """A callback that prints lines of progress."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Start the clock."""
        self._progress = Progress("optimizer steps", state.max_steps, done=state.global_step)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Print a line now and then."""
        self._progress.show(state.global_step)

"""Language models as artifacts: save, refer to, find and load them.

A `model` or `golden` artifact holds either a folder `model/` (`save_pretrained`, tokenizer included) or a
`reference.json` that names a Hub model or a local folder, so that no 17 GB model is ever copied.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from workers.config import HubModel, LocalPath
from workers.device import device
from workers.device_memory import require_room

FOLDER = "model"
REFERENCE = "reference.json"


@dataclass(frozen=True)
class Source:
    """A place that a model is read from: a local folder, or a name on the Hub."""

    name: str
    local: bool
    revision: str | None = None

    def state(self) -> tuple[object, ...]:
        """Return a value that changes with the files of a local model, for `workers.model_cache`."""
        if not self.local:
            return (self.name, self.revision)
        files = sorted(path for path in Path(self.name).rglob("*") if path.is_file())
        return (self.name, *((str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files))


def write_reference(named: LocalPath | HubModel, out: Path) -> None:
    """Make `out` an artifact that refers to `named`.

    Raises:
        FileNotFoundError: `named` is a local folder that is not there, or holds no model.
    """
    if isinstance(named, LocalPath):
        _folder(named.path, "the config")
        reference = {"path": named.path}
    else:
        reference = {"hub": named.hub} | ({"revision": named.revision} if named.revision else {})
    (out / REFERENCE).write_text(json.dumps(reference, indent=2) + "\n", encoding="utf-8")


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, out: Path) -> None:
    """Write weights and tokenizer to `out/model`."""
    transformers.utils.logging.disable_progress_bar()
    model.save_pretrained(out / FOLDER)
    tokenizer.save_pretrained(out / FOLDER)


def locate(model: Path | LocalPath | HubModel) -> Source:
    """Find the source of a `model` or `golden` artifact, or of a model that a config names.

    Raises:
        FileNotFoundError: the folder referred to is gone, or holds no model.
        ValueError: the artifact holds neither a model nor a reference.
    """
    if isinstance(model, LocalPath):
        return _folder(model.path, "the config")
    if isinstance(model, HubModel):
        return Source(model.hub, local=False, revision=model.revision)
    if (model / FOLDER).is_dir():
        return Source(str(model / FOLDER), local=True)
    if not (model / REFERENCE).is_file():
        raise ValueError(f"{model}: holds neither {FOLDER}/ nor {REFERENCE}, so it is not a model artifact")
    reference = json.loads((model / REFERENCE).read_text(encoding="utf-8"))
    if "path" in reference:
        return _folder(reference["path"], str(model / REFERENCE))
    return Source(reference["hub"], local=False, revision=reference.get("revision"))


def load_tokenizer(source: Source) -> PreTrainedTokenizerBase:
    """Load the tokenizer of `source`, with a pad token (the EOS token where the model has none).

    Raises:
        FileNotFoundError: the model cannot be read; the message says what to do.
        ValueError: it has neither a pad nor an EOS token.
    """
    tokenizer = _read(AutoTokenizer, source)
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise ValueError(f"{source.name}: the tokenizer has neither a pad nor an EOS token")
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(
    source: Source,
    auto: Any,
    tokenizer: PreTrainedTokenizerBase,
    *,
    dtype: str = "float32",
    new: tuple[str, ...] = (),
    **options: Any,
) -> PreTrainedModel:
    """Load with the transformers auto class `auto`, on the CPU, in evaluation mode.

    The config of the model gets the pad token of `tokenizer`: sequence classifiers find their last real token by it.
    Attention is torch's `scaled_dot_product_attention` where the architecture has it (the default of transformers).

    Args:
        source: what to load.
        auto: e.g. `AutoModelForCausalLM`.
        tokenizer: from `load_tokenizer`.
        dtype: name of a torch dtype for the weights, or tf32, whose weights are float32.
        new: name parts of weights that the checkpoint may lack, because they start out random or are not used.
        **options: passed to `from_pretrained`.

    Raises:
        FileNotFoundError: the model cannot be read; the message says what to do.
        ValueError: the checkpoint lacks weights, which transformers would silently fill with random numbers. The
            usual cause is a plain language model where a reward model is wanted.
        NoRoomError: its weights do not fit into the free memory of the GPU that the step computes on.
    """
    if device().type == "cuda":
        require_room(weight_bytes(source, auto, dtype, **options), source.name)
    model, report = _read(auto, source, dtype=weight_type(dtype), output_loading_info=True, **options)
    missing = sorted(name for name in report["missing_keys"] if not any(part in name for part in new))
    if missing:
        raise ValueError(
            f"{source.name}: not a checkpoint for {type(model).__name__}: it lacks {', '.join(missing[:3])}"
            + (f" and {len(missing) - 3} more weights" if len(missing) > 3 else "")
        )
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    return model.eval()


def weight_bytes(source: Source, auto: Any, dtype: str, **options: Any) -> int:
    """Return the bytes of a model's weights, from its config: nothing is loaded. Arguments are those of `load_model`.

    Raises:
        FileNotFoundError: the model cannot be read.
    """
    config = _read(AutoConfig, source, **options)
    with torch.device("meta"):
        model = auto.from_config(config)
    return int(sum(weight.numel() for weight in model.parameters()) * weight_type(dtype).itemsize)


def weight_type(dtype: str) -> torch.dtype:
    """Return the type of the weights of a model that computes in `dtype`."""
    found: torch.dtype = getattr(torch, "float32" if dtype == "tf32" else dtype)
    return found


def token_limit(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> int:
    """Return the smallest of `max_tokens` and the longest sequences that the model and its tokenizer allow."""
    return _token_limit(model.config, tokenizer, max_tokens)


def read_token_limit(source: Source, tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> int:
    """Return the same as `token_limit`, from the config of a model that is not loaded.

    Raises:
        FileNotFoundError: the model cannot be read.
    """
    return _token_limit(_read(AutoConfig, source), tokenizer, max_tokens)


def _folder(path: str, named_by: str) -> Source:
    if not Path(path).is_dir():
        raise FileNotFoundError(f"model folder {path!r}, named by {named_by}, is not there (moved or deleted?)")
    if not any((Path(path) / file).is_file() for file in ("config.json", "modules.json")):
        raise FileNotFoundError(f"model folder {path!r}, named by {named_by}, holds no config.json: not a saved model")
    return Source(path, local=True)


def _token_limit(config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> int:
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    return int(min(max_tokens, tokenizer.model_max_length, positions or max_tokens))


def _read(auto: Any, source: Source, **options: Any) -> Any:
    transformers.utils.logging.disable_progress_bar()
    try:
        return auto.from_pretrained(source.name, revision=source.revision, **options)
    except OSError as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        if source.local:
            raise FileNotFoundError(f"{source.name}: not a readable model folder ({reason})") from error
        raise FileNotFoundError(
            f"model {source.name!r} is neither in the local Hugging Face cache nor reachable on the Hub. Download it "
            f"first (`hf download {source.name}`, after `hf auth login` for a gated one), set HF_HOME to a cache that "
            f"holds it, or give a local folder: {{path: …}}. ({reason})"
        ) from error
    except ValueError as error:  # an unknown architecture, or no tokenizer: transformers does not name the model
        raise ValueError(f"{source.name}: {error}") from error

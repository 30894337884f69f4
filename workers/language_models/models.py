"""Language models as artifacts: save, refer to, find and load them.

A `model` or `golden` artifact holds one of three: a folder `model/` (`save_pretrained`, tokenizer included); a
`reference.json` that names a Hub model or a local folder, so that no 17 GB model is ever copied; or a folder `adapter/`
in peft's format, tokenizer included, with a `reference.json` to its base: one of these, or the artifact that has it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from workers.artifacts import REFERENCE, Address, address_of, folder_of, to_reference
from workers.config import HubModel, LocalPath
from workers.device import device
from workers.device_memory import require_room
from workers.language_models import adapters

FOLDER = "model"
ADAPTER = "adapter"


@dataclass(frozen=True)
class Source:
    """A place that a model is read from: a local folder, or a name on the Hub; and an adapter to put onto it."""

    name: str
    local: bool
    revision: str | None = None
    artifact: Address | None = None
    """The artifact that has the folder, if it is one."""
    adapter: Path | None = None
    """The folder of an adapter, of which `name` is the base."""
    merged_in: str | None = None
    """Name of the torch dtype in which base and adapter are summed: that in which the base was while the adapter was
    trained. None: that in which the model is loaded."""

    @property
    def base(self) -> Source:
        """The same without its adapter."""
        return replace(self, adapter=None, merged_in=None)

    def state(self) -> tuple[object, ...]:
        """Return a value that changes with the files of a local model, for `workers.model_cache`."""
        of_base = _files(Path(self.name)) if self.local else (self.revision,)
        of_adapter = (str(self.adapter), self.merged_in, *_files(self.adapter)) if self.adapter else ()
        return (self.name, *of_base, *of_adapter)

    def reference(self) -> Mapping[str, object]:
        """Return what a `reference.json` says of the base."""
        if self.artifact:
            return to_reference(self.artifact)
        if self.local:
            return {"path": self.name}
        return {"hub": self.name} | ({"revision": self.revision} if self.revision else {})


def _files(folder: Path) -> tuple[object, ...]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return tuple((str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files)


def write_reference(named: LocalPath | HubModel, out: Path) -> None:
    """Make `out` an artifact that refers to `named`.

    Raises:
        FileNotFoundError: `named` is a local folder that is not there, or holds no model.
        ValueError: it holds an adapter whose base cannot be told.
    """
    source = locate(named)
    _write_json(out, {"path": str(source.adapter)} if source.adapter else source.reference())


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, out: Path) -> None:
    """Write weights and tokenizer to `out/model`."""
    transformers.utils.logging.disable_progress_bar()
    model.save_pretrained(out / FOLDER)
    tokenizer.save_pretrained(out / FOLDER)


def save_adapter(
    adapter: adapters.Adapter, tokenizer: PreTrainedTokenizerBase, base: Source, dtype: str, out: Path
) -> None:
    """Write an adapter and its tokenizer to `out/adapter`, and `out/reference.json`, which names the base.

    Args:
        adapter: what was trained.
        tokenizer: what it was trained with.
        base: the model that it was trained on. If that has an adapter, both are summed, and the base is that one's.
        dtype: type of the weights of the base while the adapter was trained.
        out: folder of the artifact.
    """
    if base.adapter:
        adapter = adapter.after(adapters.read(base.adapter))
    adapter.write(out / ADAPTER, None if base.artifact else base.name)
    tokenizer.save_pretrained(out / ADAPTER)
    _write_json(out, {**base.reference(), "dtype": dtype})


def _write_json(out: Path, content: Mapping[str, object]) -> None:
    (out / REFERENCE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def locate(model: Path | LocalPath | HubModel) -> Source:
    """Find the source of a `model` or `golden` artifact, or of a model that a config names.

    A local folder may hold an adapter of peft's: its base is the one that its config names.

    Raises:
        FileNotFoundError: the folder referred to is gone, or holds no model; or the artifact that has the base of an
            adapter is not at hand.
        ValueError: the artifact holds neither a model nor a reference; or an adapter names no base.
    """
    if isinstance(model, LocalPath):
        return _folder(model.path, "the config")
    if isinstance(model, HubModel):
        return Source(model.hub, local=False, revision=model.revision)
    if (model / FOLDER).is_dir():
        return Source(str(model / FOLDER), local=True, artifact=address_of(model))
    if not (model / REFERENCE).is_file():
        raise ValueError(f"{model}: holds neither {FOLDER}/ nor {REFERENCE}, so it is not a model artifact")
    reference = json.loads((model / REFERENCE).read_text(encoding="utf-8"))
    source = _referred(reference, model)
    if not (model / ADAPTER).is_dir():
        return source
    return replace(source, adapter=model / ADAPTER, merged_in=reference.get("dtype"))


def _referred(reference: Mapping[str, Any], model: Path) -> Source:
    if "artifact" in reference:
        artifact = reference["artifact"]
        return locate(folder_of((artifact["stage"], artifact["key"]), str(model)))
    if "path" in reference:
        return _folder(reference["path"], str(model / REFERENCE))
    return Source(reference["hub"], local=False, revision=reference.get("revision"))


def load_tokenizer(source: Source) -> PreTrainedTokenizerBase:
    """Load the tokenizer of `source`, with a pad token (the EOS token where the model has none).

    An adapter's own goes before that of its base.

    Raises:
        FileNotFoundError: the model cannot be read; the message says what to do.
        ValueError: it has neither a pad nor an EOS token.
    """
    own = source.adapter is not None and (source.adapter / "tokenizer_config.json").is_file()
    tokenizer = _read(AutoTokenizer, Source(str(source.adapter), local=True) if own else source)
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
    An adapter is merged into its base in the type that the base had while it was trained, so that the weights are those
    that the training would have stored merged; then they are rounded to `dtype`.

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
            usual cause is a plain language model where a reward model is wanted. Or its adapter is of another model.
        NoRoomError: its weights do not fit into the free memory of the GPU that the step computes on.
    """
    adapter = adapters.read(source.adapter) if source.adapter else None
    if adapter and adapter.labels:
        options = {"num_labels": adapter.labels} | options
    if device().type == "cuda":
        require_room(weight_bytes(source, auto, dtype, **options), source.name)
    first = weight_type(source.merged_in or dtype)
    model, report = _read(auto, source, dtype=first, output_loading_info=True, **options)
    present = (*new, *(adapter.whole if adapter else ()))
    missing = sorted(name for name in report["missing_keys"] if not any(part in name for part in present))
    if missing:
        raise ValueError(
            f"{source.name}: not a checkpoint for {type(model).__name__}: it lacks {', '.join(missing[:3])}"
            + (f" and {len(missing) - 3} more weights" if len(missing) > 3 else "")
        )
    if adapter:
        adapter.merge_into(model)
        # Not `model.to`, which would round buffers too, such as the frequencies of rotary embeddings.
        for weight in model.parameters():
            weight.data = weight.data.to(weight_type(dtype))
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    return model.eval()


def weight_bytes(source: Source, auto: Any, dtype: str, **options: Any) -> int:
    """Return the bytes of a model's weights, from its config: nothing is loaded. Arguments are those of `load_model`.

    Raises:
        FileNotFoundError: the model cannot be read.
    """
    weights = empty_model(source, auto, **options).parameters()
    return int(sum(weight.numel() for weight in weights) * weight_type(dtype).itemsize)


def empty_model(source: Source, auto: Any, **options: Any) -> PreTrainedModel:
    """Make the base of a source without its weights, on torch's meta device. Arguments are those of `load_model`.

    Raises:
        FileNotFoundError: the model cannot be read.
    """
    config = _read(AutoConfig, source, **options)
    with torch.device("meta"):
        model: PreTrainedModel = auto.from_config(config)
    return model


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
    if (Path(path) / adapters.CONFIG).is_file():
        base = adapters.read_config(Path(path)).get("base_model_name_or_path")
        if not base:
            raise ValueError(
                f"adapter folder {path!r}, named by {named_by}, does not say which model it belongs to: its "
                f"{adapters.CONFIG} needs base_model_name_or_path, a name on the Hub or the path of a folder"
            )
        if (Path(base) / adapters.CONFIG).is_file():
            raise ValueError(f"the base of the adapter {path!r} is an adapter too, {base!r}: merge that one first")
        source = _folder(base, path) if Path(base).is_dir() else Source(base, local=False)
        return replace(source, adapter=Path(path))
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

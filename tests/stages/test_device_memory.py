"""What is put on a GPU must fit into what is free there, whatever the device has in total. The GPU here is a fake."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest
import torch

from workers import device as device_module
from workers import model_cache
from workers.device import device, promise_gpu
from workers.device_memory import RESERVE, NoRoomError, free_memory, require_room
from workers.reward_models import evaluate

GIB = 2**30


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """A GPU of 80 GiB, of which this process has nothing and others nothing; and the fractions torch was told."""
    card = SimpleNamespace(free=80 * GIB, total=80 * GIB, allocated=0, reserved=0, fractions=[])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (card.free, card.total))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: card.allocated)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: card.reserved)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", card.fractions.append)
    monkeypatch.setattr(device_module, "_limited", None)
    yield card
    promise_gpu(None)


def test_what_does_not_fit_is_an_error_that_says_how_much_is_needed_free_and_held_by_others(
    gpu: SimpleNamespace,
) -> None:
    gpu.free = 3 * GIB
    with pytest.raises(NoRoomError) as caught:
        require_room(5 * GIB, "google/gemma-2b")
    assert str(caught.value) == (
        "google/gemma-2b: needs 5.0 GiB on the GPU, and 512 MiB to work with; 3.0 GiB are free of the 80.0 GiB of the "
        "GPU; other processes hold 77.0 GiB"
    )
    assert isinstance(caught.value, MemoryError)
    require_room(3 * GIB - RESERVE, "a smaller one")
    with pytest.raises(NoRoomError):
        require_room(3 * GIB - RESERVE + 1, "one byte more")


def test_what_torch_keeps_unused_is_free_for_this_process(gpu: SimpleNamespace) -> None:
    gpu.free, gpu.reserved, gpu.allocated = 10 * GIB, 50 * GIB, 20 * GIB
    assert free_memory() == 40 * GIB
    assert free_memory(if_dropped=True) == 60 * GIB


def test_a_step_with_gpu_memory_has_no_more_than_that_and_must_find_it_free(gpu: SimpleNamespace) -> None:
    promise_gpu(True, 20 * GIB)
    gpu.reserved = gpu.allocated = 5 * GIB
    assert free_memory() == 15 * GIB
    assert free_memory(if_dropped=True) == 20 * GIB
    with pytest.raises(NoRoomError, match=r"15\.0 GiB are free of the 20\.0 GiB that gpu_memory allows the step"):
        require_room(15 * GIB, "a model")
    gpu.free = 10 * GIB
    with pytest.raises(NoRoomError, match=r"promises 20\.0 GiB to the step, and 15\.0 GiB are free of the 80\.0 GiB"):
        require_room(1, "a model")


def test_torch_is_told_of_a_limit_before_anything_is_placed_and_when_it_ends(gpu: SimpleNamespace) -> None:
    for memory in (None, 20 * GIB, 20 * GIB, 40 * GIB, 200 * GIB, None, None):
        promise_gpu(True, memory)
        assert device().type == "cuda"
        assert device().type == "cuda"
    assert gpu.fractions == [0.25, 0.5, 1.0, 1.0]


def test_a_step_on_the_cpu_asks_no_gpu_for_room(gpu: SimpleNamespace) -> None:
    promise_gpu(False, 1)
    gpu.free = 0
    require_room(100 * GIB, "anything")
    assert gpu.fractions == []


@pytest.mark.parametrize(
    ("change", "fits"),
    [
        (lambda card: None, True),
        # The device is as large as before, and another process has it.
        (lambda card: setattr(card, "free", 10 * GIB), False),
        # It is this process that has it: the embeddings of the bundle before, say.
        (lambda card: (setattr(card, "free", 10 * GIB), setattr(card, "reserved", 20 * GIB),
                       setattr(card, "allocated", 20 * GIB)), True),
        (lambda card: promise_gpu(True, 10 * GIB), False),
    ],
)  # fmt: skip
def test_embeddings_are_kept_on_the_gpu_only_if_two_thirds_of_what_is_free_hold_them(
    gpu: SimpleNamespace, change: Callable[[SimpleNamespace], object], fits: bool
) -> None:
    change(gpu)
    paper = SimpleNamespace(prompts=2273, responses=500, dimension=2048)
    assert evaluate._fits_on_gpu(paper, torch.float32) is fits  # type: ignore[arg-type]


def test_the_model_of_an_earlier_step_is_dropped_where_its_room_is_needed(
    gpu: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = SimpleNamespace(bytes=70 * GIB)

    def give_back() -> None:
        gpu.reserved = gpu.allocated = 0
        gpu.free = gpu.total

    monkeypatch.setattr(torch.cuda, "empty_cache", give_back)
    promise_gpu(True)
    model_cache.cached_model("large", lambda: kept)
    gpu.free, gpu.reserved, gpu.allocated = 10 * GIB, 70 * GIB, 70 * GIB
    require_room(5 * GIB, "beside it")
    assert model_cache.cached_model("large", object) is kept
    require_room(20 * GIB, "in its place")
    assert model_cache.kept() is None

"""How torch multiplies float32 is as it was after a step, whichever of its two interfaces the step used."""

from __future__ import annotations

import pytest
import torch

from orchestrator.attempt.surroundings import PARTS

SETTINGS = PARTS["torch's settings"]


@pytest.mark.parametrize(
    "change",
    [
        "torch.set_float32_matmul_precision('high')",
        "torch.backends.cuda.matmul.allow_tf32 = True",
        "torch.backends.cuda.matmul.fp32_precision = 'tf32'",
        "torch.backends.fp32_precision = 'tf32'",
        "torch.backends.cudnn.fp32_precision = 'ieee'",
        "torch.backends.cudnn.conv.fp32_precision = 'ieee'",
        "torch.backends.cudnn.allow_tf32 = False",
        "torch.backends.mkldnn.matmul.fp32_precision = 'bf16'",
    ],
)
def test_the_precision_of_float32_is_put_back(change: str) -> None:
    before = SETTINGS.read()
    exec(change, {"torch": torch})
    # The older getters raise where newer setters were used: reading must not.
    assert SETTINGS.read() != before
    SETTINGS.restore(before)
    assert SETTINGS.read() == before
    assert torch.get_float32_matmul_precision() == "highest"
    assert torch.backends.cudnn.allow_tf32


def test_a_choice_of_the_older_interface_before_the_step_stays() -> None:
    default = SETTINGS.read()
    torch.set_float32_matmul_precision("high")
    before = SETTINGS.read()
    torch.backends.cuda.matmul.fp32_precision = "ieee"
    SETTINGS.restore(before)
    assert SETTINGS.read() == before
    assert torch.get_float32_matmul_precision() == "high"
    SETTINGS.restore(default)


def test_where_the_step_imported_torch_its_defaults_are_put_back() -> None:
    default = SETTINGS.read()
    torch.backends.fp32_precision = "tf32"
    SETTINGS.restore(None)
    assert SETTINGS.read() == default

"""Samplers, pruners and importance evaluators of Optuna, made by name from what a sweep file says of them."""

from __future__ import annotations

import hashlib

import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler

from orchestrator.sweep.search import Search


def make_sampler(search: Search, number: int) -> BaseSampler:
    """Make the sampler of a search for one trial."""
    digest = hashlib.sha256(f"{search.seed}:{number}".encode()).digest()
    seed = int.from_bytes(digest[:4], "big")
    sampler: BaseSampler = getattr(optuna.samplers, search.sampler.name)(**search.sampler.options, seed=seed)
    return sampler


def make_pruner(search: Search) -> BasePruner | None:
    """Make the pruner of a search; None where it has none."""
    if search.pruner is None:
        return None
    pruner: BasePruner = getattr(optuna.pruners, search.pruner.name)(**search.pruner.options)
    return pruner

"""Lines of statistics as text, and their notes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from orchestrator.analysis.axis_effects import AxisEffect
from orchestrator.analysis.comparisons import Comparison
from orchestrator.analysis.contrast import format_difference
from orchestrator.analysis.effect import Effect, Sample
from orchestrator.analysis.interactions import Interaction
from orchestrator.plan.select import format_coords
from orchestrator.results.format import format_interval, format_p_value, format_percent, format_signed, format_value
from orchestrator.statistics.power import GOOD_POWER


def format_comparison(each: Comparison, sample: Sample) -> dict[str, str]:
    """Format a comparison: column -> text."""
    return {
        "difference": format_difference(each.axis, each.a, each.b),
        "mean": format_signed(each.difference),
        **format_intervals(each.effect, sample),
        "effect size": format_signed(each.effect_size, 2),
        "p": format_p_value(each.p),
        "Holm p": format_p_value(each.holm_p),
        "power": format_percent(each.power),
        f"seeds for {GOOD_POWER:.0%}": "" if each.seeds_needed is None else f"{each.seeds_needed:,}",
    }


def format_interaction(each: Interaction, sample: Sample) -> dict[str, str]:
    """Format the difference at one value of another axis, and its deviation from the mean one: column -> text."""
    return {
        "where": f"{each.other} = {each.value}",
        "difference": format_signed(each.difference.estimate),
        **format_intervals(each.difference, sample),
        "less its mean": format_signed(each.deviation.estimate),
        "p": format_p_value(each.p),
        "Holm p": format_p_value(each.holm_p),
    }


class Statements(Protocol):
    """What two statements are for, in words."""

    @property
    def fixed(self) -> str:
        """On the prompts at hand."""

    @property
    def new(self) -> str | None:
        """For new prompts, too; None where no values of single prompts are declared."""


def format_intervals(effect: Effect, told: Statements) -> dict[str, str]:
    """Format both statements: column -> interval; one column where no values of single prompts are declared."""
    columns = ({told.new: effect.new} if told.new else {}) | {told.fixed: effect.fixed}
    return {name: format_interval(each.low, each.high) if each else "" for name, each in columns.items()}


def format_effect(each: AxisEffect) -> dict[str, str]:
    """Format the effect of an axis: column -> text."""
    return {
        "metric": each.metric,
        **({"at": format_coords(each.at)} if each.at else {}),
        "axis": each.axis,
        "lowest at": format_value(each.lowest),
        "highest at": format_value(each.highest),
        "spread": format_value(each.spread),
        "seed noise": format_value(each.noise),
        "share": format_percent(each.share),
        "with others": format_percent(each.together),
        "F": format_value(each.f),
        "p": format_p_value(each.p),
        "Holm p": format_p_value(each.holm_p),
    }


def distinct_notes(found: Iterable[tuple[str, Iterable[str]]]) -> list[str]:
    """Return each note of some lines once, with what it is about if that is not all.

    Args:
        found: what a line is about, and its notes.
    """
    about: dict[str, dict[str, None]] = {}
    every = set()
    for name, notes in found:
        every.add(name)
        for note in notes:
            about.setdefault(note, {})[name] = None
    return [note if every <= of.keys() else f"{', '.join(of)}: {note}" for note, of in about.items()]


def notes_of_comparisons(found: Iterable[Comparison]) -> list[str]:
    """Return the notes of comparisons, each once, with the differences that it is about if these are not all."""
    return distinct_notes((f"{each.a} - {each.b}", each.effect.notes) for each in found)


def notes_of_interactions(found: Iterable[Interaction]) -> list[str]:
    """Return the notes of differences along other axes, each once, with what it is about if that is not all."""
    return distinct_notes(
        (f"{each.a} - {each.b} at {each.other} = {each.value}", each.difference.notes) for each in found
    )


def notes_of_effects(found: Iterable[AxisEffect]) -> list[str]:
    """Return the notes of effects of axes, each once, with the axes that it is about if these are not all."""
    return distinct_notes((each.axis, each.notes) for each in found)

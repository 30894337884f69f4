"""The section on what was found: the ranking of what competes, what it depends on, and what varies with what."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from dashboards.report.figures import format_name
from dashboards.report.ranking import Ends, Lead, Ranking
from dashboards.report.section import Section, capital
from dashboards.report.shares import Split, told
from dashboards.report.study import Study
from orchestrator.analysis.interactions import Dependence, format_dependence
from orchestrator.analysis.lines import notes_of_comparisons
from orchestrator.analysis.metric_grid import read_axes
from orchestrator.results.format import format_p_value, format_signed, format_value
from orchestrator.types import Scalar


def state(study: Study) -> str:
    """Say how many cells the sweep has, along which axes, and how many have a result."""
    total, good = study.table.num_rows, study.succeeded()
    axes = read_axes(study.table)
    grid = " × ".join(f"{len(axis.labels)} {axis.name}" for axis in study.axes.values())
    for name in axes:
        if name not in study.axes and (name == "seed" or (name in study.sample.random and len(axes[name]) > 1)):
            grid += f" × {len(axes[name])} {name}s"
    # What is excluded is no cell.
    grid = f"of {grid}" if math.prod(map(len, axes.values())) > total else grid
    missing = f"{total - good:,} have no result" if good < total else "none is missing"
    return f"{total:,} cells ({grid}): {good:,} succeeded, {missing}."


def verdict(study: Study, ranked: Sequence[Ranking], depends: Sequence[Dependence], splits: Sequence[Split]) -> Section:
    """Say what was found, and what to beware of.

    Args:
        study: the sweep.
        ranked: what competes, by the headline; nothing where nothing is declared.
        depends: how its differences depend on other axes.
        splits: shares of the variation of the first metric.
    """
    text = [state(study), *(f"{capital(note)}." for note in study.notes)]
    if study.colour and study.headline:
        for ranking in ranked:
            text += _ranking(study, ranking)
            mine = [each for each in depends if each.clear and each.lines[0].at == ranking.at]
            text += [f"{at(ranking.at)}{_beware(each)}." for each in mine]
        lines = [line for ranking in ranked for line in ranking.lines]
        text += [f"Warning: {warning}." for warning in notes_of_comparisons(lines)]
    elif study.colour and study.session.spec.analysis is None:
        text.append("Nothing is ranked: the sweep file does not declare what it is to show (`analysis`, see above).")
    elif study.colour:
        text.append("Nothing is ranked: no cell has a number of the primary metric.")
    for each in splits:
        said = told(each, study)
        text.append(f"{at(each.at)}{said[0].lower()}{said[1:]}" if each.at else said)
    text += [f"Warning: {warning}." for warning in study.sample.missing_cells(study.table)]
    return Section("verdict", "What was found", text)


def at(held: Mapping[str, Scalar]) -> str:
    """Say where something is said of, as the beginning of a sentence; nothing for everywhere."""
    return f"At {', '.join(f'{name} {label}' for name, label in held.items())}: " if held else ""


def _beware(found: Dependence) -> str:
    said = format_dependence(found)
    return said if found.lines[0].at else capital(said)


def _ranking(study: Study, found: Ranking) -> list[str]:
    """Put the values of what competes in order by their means, and say whether the best is clearly ahead."""
    colour = study.colour
    assert colour is not None
    where = at(found.at)
    by = f"{where}{'by' if where else 'By'} {format_name(found.metric)}, of which "
    by += f"{'lower' if found.lower else 'higher'} is better"
    without = [str(label) for label in colour.labels if label not in found.means]
    if len(found.means) < 2 or len(found.leads) < len(found.means) - 1:
        return [f"{by}, no two values of {colour.name} can be ranked."]
    level = found.level
    lead = " and ".join(str(label) for label in (found.first, *level))
    over = _over(study, found)
    best = f"are level, with the best mean over {over}" if level else f"has the best mean over {over}"
    others = [(label, mean) for label, mean in found.means.items() if label not in (found.first, *level)]
    rest = ", ".join(f"{format_value(mean)} ({label})" for label, mean in others)
    mean = format_value(found.means[found.first])
    text = [f"{by}, {colour.name} {lead} {best}: {mean}{f', against {rest}' if rest else ''}."]
    if without:
        text.append(f"{where}{'n' if where else 'N'}ot ranked, because there are no results: {', '.join(without)}.")
    return text + [f"{where}{_difference(study, found, each)}" for each in found.leads if each.difference != 0]


def _over(study: Study, found: Ranking) -> str:
    """Say what the means are over: of cells that are missing some combinations cannot be used."""
    used = next(each.effect for each in found.lines if each.difference is not None)
    axes = read_axes(study.table)
    everything = math.prod(
        len(labels) for axis, labels in axes.items() if axis != found.lines[0].axis and axis not in found.at
    )
    if used.seeds * used.combinations == everything and not used.missing:
        return "everything else"
    combinations = "combination" if used.combinations == 1 else f"{used.combinations:,} combinations"
    return f"the same {combinations} of everything else in {_draws(study, used.seeds)}"


def _draws(study: Study, count: int) -> str:
    one, several = ("seed", "seeds") if study.sample.random in ((), ("seed",)) else ("draw", "draws of what is random")
    return f"one {one}" if count == 1 else f"each of {count:,} {several}"


def _difference(study: Study, found: Ranking, lead: Lead) -> str:
    """Say by how much the best is ahead of another value, and whether that is clear."""
    said = f"{found.first} - {lead.other}: {format_signed(lead.difference)}"
    seeds = found.lines[0].effect.seeds
    widest = lead.new or lead.fixed
    if widest is None or lead.holm_p is None:
        why = f"{_draws(study, seeds)} only" if seeds < 2 else f"the same in {_draws(study, seeds)}"
        return f"{said} ({why}, hence no interval)."
    level = f"{100 * study.sample.confidence:g} % interval"
    if lead.new and lead.fixed:
        interval = f"{level} {_ends(lead.new)} for {study.sample.new} ({_ends(lead.fixed)} for {study.sample.fixed})"
    else:
        interval = f"{level} {_ends(widest)} for {study.sample.new if lead.new else study.sample.fixed}"
    clear = "clear" if lead.clear else "not clear"
    if not lead.ahead:
        clear += ", and of the prompts that all have it is behind"
    draws = _draws(study, seeds).removeprefix("each of ")
    return f"{said}, {interval}, over {draws}, Holm p {format_p_value(lead.holm_p)}: {clear}."


def _ends(interval: Ends) -> str:
    return " to ".join(map(format_signed, interval))

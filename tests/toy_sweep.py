"""Sweeps of toy stages, as text and as a file."""

from __future__ import annotations

import os
from pathlib import Path

#: x and y give 6 cells; sources are shared by the values of y.
SWEEP = """\
name: toy
question: Does adding work?
axes:
  x: [1, 2, 3]
  y: [10, 20]
  kind:
    plain: {behaviour: work}
stages:
  source: {stage: toy_source, shards: 2, config: {value: $x}}
  double: {stage: toy_double, inputs: {number: source}}
  total:
    stage: toy_total
    inputs: {numbers: double}
    config: [{add: $y}, $kind]
results: [total]
tracking: false
uses: [toy]
namespace: toy
"""

FAILING_CELL = SWEEP.replace("plain: {behaviour: work}", "plain: {behaviour: work}\n    bad: {behaviour: raise}")
SLOW = SWEEP.replace("behaviour: work", "behaviour: slow")

#: Two studies of four trials, each at two values of y, and the best one at a third; trials with `bad` fail.
ODD_SEARCH = """\
name: toy
question: How much is to be added?
axes: {x: [1, 2]}
search:
  tune:
    space:
      add: {float: [0, 8]}
      kind: {choice: {good: work, bad: raise}}
    objective: {metric: total, better: higher, over: {y: [0, 10]}}
    sampler: {name: RandomSampler}
    trials: 4
    start: [{add: 1.5, kind: good}, {add: 2.5, kind: bad}, {add: 6.5, kind: good}, {add: 0.5, kind: good}]
    fresh: {y: [20]}
stages:
  source: {stage: toy_source, config: {value: $x}}
  double: {stage: toy_double, inputs: {number: source}, config: {add: $y}}
  total: {stage: toy_total, inputs: {numbers: double}, config: {add: $tune.add, behaviour: $tune.kind}}
results: [total]
tracking: false
uses: [toy]
namespace: toy
"""

#: One source, which tells `FOLDER` how far it is.
PIECES = """\
name: toy
question: Is all of it there?
axes: {x: [7]}
stages:
  source: {stage: toy_pieces, config: {value: $x, marker: FOLDER}}
results: [source]
tracking: false
uses: [toy]
namespace: toy
"""

#: One step.
ONE = """\
name: one
question: Is it tried again?
axes: {x: [1]}
tracking: false
uses: [toy]
namespace: toy
stages:
  source: {stage: toy_source, config: {value: $x}}
"""

#: 120 steps, each of which asks one of 12 models.
ASK = """\
name: ask
question: How often is a model loaded?
axes: {question: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10], model: [a, bb, ccc, dddd, eeeee, ffffff, g, hh, iii, jjjj, kk, l]}
stages:
  ask: {stage: toy_ask, config: {model: $model, question: $question}}
tracking: false
uses: [toy]
namespace: toy
"""


#: Two studies of three trials, each measured at two repetitions and the best of them at another one.
SEARCH = """\
name: tune
question: Which numbers add up to most?
axes: {kind: [1, 2]}
search:
  tuning:
    per: [kind]
    space:
      add: {float: [0, 10]}
      value: {choice: {small: 1, large: 100}, default: small}
    objective: {metric: total, better: higher, over: {seed: [0, 1]}}
    sampler: {name: RandomSampler}
    trials: 3
    concurrency: 1
    fresh: {seed: [7]}
stages:
  source: {stage: toy_source, config: {value: $tuning.value}}
  double: {stage: toy_double, inputs: {number: source}, config: {add: $kind}}
  again: {stage: toy_double, inputs: {number: double}, config: {add: $seed}}
  total: {stage: toy_total, inputs: {numbers: again}, config: {add: $tuning.add}}
results: [total]
tracking: false
uses: [toy]
namespace: toy
"""

#: A grid of what `SEARCH` searches, at one kind: totals are 8 + 4 x kind + 2 x seed + add, at two shards.
GRID = """\
name: grid
question: Which numbers add up to most?
axes: {kind: [1], value: [small, large, huge], add: [1, 2, 20], seed: [0, 1]}
stages:
  source: {stage: toy_source, config: {value: 1}}
  double: {stage: toy_double, inputs: {number: source}, config: {add: $kind}}
  again: {stage: toy_double, inputs: {number: double}, config: {add: $seed}}
  total: {stage: toy_total, inputs: {numbers: again}, config: {add: $add, marker: $value}}
results: [total]
tracking: false
uses: [toy]
namespace: toy
"""

#: Uses what `SEARCH` found, beside it as tune.yaml.
TUNED = """\
name: tuned
question: What do the best numbers give?
axes: {kind: [1, 2]}
stages:
  source: {stage: toy_source, config: {value: {tuned: tune.yaml#tuning.value, for: {kind: $kind}}}}
  double: {stage: toy_double, inputs: {number: source}}
  total:
    stage: toy_total
    inputs: {numbers: double}
    config: [{add: {tuned: tune.yaml#tuning.add, for: {kind: $kind}}}]
results: [total]
tracking: false
uses: [toy]
namespace: toy
"""


def write_sweep(folder: Path, text: str = SWEEP, name: str = "toy.yaml") -> Path:
    """The sweep as a file; it is replaced at once, since a driver may be reading it."""
    path = folder / name
    whole = folder / f".{name}.{os.getpid()}"
    whole.write_text(text)
    return whole.replace(path)

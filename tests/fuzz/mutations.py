"""Sound values with something wrong in them, and how long to look for what that breaks.

`FUZZ_EXAMPLES=20000 pytest tests/fuzz` looks for longer, elsewhere each time; without it the same few hundred examples
are tried, and those that once found something.
"""

from __future__ import annotations

import os
from copy import deepcopy
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

_MORE = int(os.environ.get("FUZZ_EXAMPLES", "0"))


def examples(few: int) -> settings:
    """So many examples, or those that were asked for."""
    return settings(
        max_examples=_MORE or few,
        derandomize=not _MORE,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


def several(few: int) -> int:
    """So many cases of what takes seconds each, or a hundredth of the examples that were asked for."""
    return max(few, _MORE // 100)


#: What is seldom thought of.
ODD = (
    None, True, False, 0, -1, 1, 10**18, 2**63, 10**400, -0.0, 0.5, 1e308, float("inf"), float("nan"),
    "", " ", "a", "..", "../../x", "/", "/dev/zero", "~", "$x", "$x.y.z", "$", "$.", "$data", "$env.", "$env.X",
    "\0", "\n", "\u202e", "\ud800", "é", "x" * 300, "default", "true", "1", "1e999", "s3://", "://", "!", "<<", "a:b",
    "a.b", ":", ".", [], {}, [[]], [{}], {"a": 1}, {"path": "x"}, {"path": 1}, {"path": ""}, {"": ""}, [None],
    ["a", "b"], [0, 1], [1, 1.0, True],
)  # fmt: skip

_TEXTS = [each for each in ODD if isinstance(each, str)]

scalars = st.sampled_from(ODD) | st.text(max_size=8) | st.integers() | st.floats()
values: st.SearchStrategy[Any] = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def _places(value: Any, where: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all parts of a value."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [where, *(path for key, item in inside for path in _places(item, (*where, key)))]


@st.composite
def mutated(draw: st.DrawFn, *sound: Any) -> Any:
    """One of some JSON-like values, of which parts were left out, doubled, renamed or replaced."""
    value = deepcopy(draw(st.sampled_from(sound)))
    for _ in range(draw(st.integers(1, 3))):
        places = [place for place in _places(value) if place]
        if not places:
            return deepcopy(draw(values))
        *above, last = draw(st.sampled_from(places))
        owner = value
        for part in above:
            owner = owner[part]
        how = draw(st.sampled_from(("replace", "leave out", "double", "rename", "move")))
        if how == "replace":
            owner[last] = deepcopy(draw(values))
        elif how == "leave out":
            del owner[last]
        elif how == "double" and isinstance(owner, list):
            owner.insert(last, owner[last])
        elif how == "rename" and isinstance(owner, dict):
            owner[draw(st.text(max_size=5) | st.sampled_from([each for each in ODD if isinstance(each, str)]))] = (
                owner.pop(last)
            )
        else:
            other = value
            for part in draw(st.sampled_from(places)):
                # What is moved may have been above.
                if not isinstance(other, dict | list) or (isinstance(other, dict) and part not in other):
                    break
                if isinstance(other, list) and (not isinstance(part, int) or part >= len(other)):
                    break
                other = other[part]
            owner[last] = deepcopy(other)
    return value


@st.composite
def damaged(draw: st.DrawFn, *whole: bytes) -> bytes:
    """The bytes of one of some files, torn, altered or replaced."""
    content = bytearray(draw(st.sampled_from(whole)))
    how = draw(st.sampled_from(("torn", "altered", "other", "twice", "zeros")))
    at = draw(st.integers(0, max(len(content) - 1, 0)))
    if how == "torn":
        return bytes(content[:at])
    if how == "other":
        return draw(st.binary(max_size=64))
    if how == "twice":
        return bytes(content + content[at:])
    if how == "zeros":
        return bytes(content[:at]) + bytes(len(content) - at)
    for _ in range(draw(st.integers(1, 8))):
        content[draw(st.integers(0, len(content) - 1))] = draw(st.integers(0, 255))
    return bytes(content)

"""One spelling for every value, and keys that never change by accident."""

import hashlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.keys import UnhashableValueError, canonical_json, digest

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=4)
    ),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("value", "spelling"),
    [
        (None, "null"),
        (True, "true"),
        (1, "1"),
        (1.0, "1"),
        (-0.0, "0"),
        (0.1, "0.1"),
        (5e-5, "5e-05"),
        (1e16, "10000000000000000"),
        ("é\n", '"é\\n"'),
        ((1, [2.5, None]), "[1,[2.5,null]]"),
        ({"b": 1, "a": {"z": False}}, '{"a":{"z":false},"b":1}'),
    ],
)
def test_each_value_has_this_one_spelling(value: object, spelling: str) -> None:
    assert canonical_json(value) == spelling


def test_these_digests_are_pinned_because_stores_depend_on_them() -> None:
    assert digest({"stage": "fit", "config": {"beta": 1.0, "seed": 3}}) == "56d698b77d98391dedc107f87076e1f7"
    assert digest([]) == hashlib.sha256(b"[]").hexdigest()[:32]


@given(values)
def test_spelling_is_stable_under_the_order_of_mapping_keys(value: object) -> None:
    def reordered(part: object) -> object:
        if isinstance(part, dict):
            return {key: reordered(part[key]) for key in reversed(list(part))}
        return [reordered(each) for each in part] if isinstance(part, list) else part

    assert canonical_json(value) == canonical_json(reordered(value))


@given(st.integers(min_value=-(2**53), max_value=2**53))
def test_an_integer_and_the_float_of_the_same_value_have_the_same_key(number: int) -> None:
    assert digest({"x": number}) == digest({"x": float(number)})


@given(values, values)
def test_values_that_differ_are_spelled_differently(one: object, other: object) -> None:
    import json

    def plain(part: object) -> object:
        if isinstance(part, float) and part.is_integer():
            return int(part)
        if isinstance(part, dict):
            return {key: plain(each) for key, each in part.items()}
        return [plain(each) for each in part] if isinstance(part, list) else part

    same = json.dumps(plain(one), sort_keys=True) == json.dumps(plain(other), sort_keys=True)
    assert (canonical_json(one) == canonical_json(other)) is same


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_refused_naming_its_field(value: float) -> None:
    with pytest.raises(UnhashableValueError, match=r"config\.betas\[1\]"):
        canonical_json({"config": {"betas": [1, value]}})


@pytest.mark.parametrize("value", [object(), {1: 2}, {1, 2}, b"bytes", "\ud800"])
def test_what_cannot_be_spelled_is_refused(value: object) -> None:
    with pytest.raises(UnhashableValueError):
        canonical_json({"field": value})

"""The grid of a sweep: its points are numbers, so that a million of them cost no more than an array."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from orchestrator.types import Scalar

#: Axes by position, ascending.
Axes = tuple[int, ...]
Numbers = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]


class Grid:
    """The axes of a sweep and their labels; a point of some axes is a number, the last axis runs fastest."""

    def __init__(self, labels: Mapping[str, tuple[Scalar, ...]]) -> None:
        """Span the axes, in the given order (axis -> its labels)."""
        self.names = tuple(labels)
        self.labels = tuple(labels.values())
        self.shape = tuple(len(each) for each in self.labels)
        self.all: Axes = tuple(range(len(self.names)))

    def axes(self, names: frozenset[str]) -> Axes:
        """Return the positions of the named axes."""
        return tuple(position for position, name in enumerate(self.names) if name in names)

    def size(self, axes: Axes) -> int:
        """Return the number of points that some axes span; 1 for no axes."""
        return prod(self.shape[axis] for axis in axes)

    def coords(self, axes: Axes, point: int) -> dict[str, Scalar]:
        """Return the labels of a point of some axes."""
        found = {}
        for axis in reversed(axes):
            point, label = divmod(point, self.shape[axis])
            found[self.names[axis]] = self.labels[axis][label]
        return {self.names[axis]: found[self.names[axis]] for axis in axes}

    def project(self, axes: Axes, onto: Axes) -> Numbers:
        """Return, for each point of `axes`, the number of its projection onto a subset of them."""
        shape = [self.shape[axis] for axis in axes]
        numbers: Numbers = np.zeros([1] * len(axes), np.int32)
        stride = 1
        for axis in reversed(onto):
            along = [1] * len(axes)
            along[axes.index(axis)] = self.shape[axis]
            numbers = numbers + (np.arange(self.shape[axis], dtype=np.int32) * np.int32(stride)).reshape(along)
            stride *= self.shape[axis]
        return np.broadcast_to(numbers, shape).ravel()

    def where(self, pattern: Mapping[str, Any]) -> Mask:
        """Return the mask of the points of all axes that match {axis: label or labels}."""
        mask: Mask = np.ones([1] * len(self.shape), np.bool_)
        for name, wanted in pattern.items():
            axis = self.names.index(name)
            chosen = wanted if isinstance(wanted, list | set | tuple) else [wanted]
            along = [1] * len(self.shape)
            along[axis] = self.shape[axis]
            mask = mask & np.array([label in chosen for label in self.labels[axis]], np.bool_).reshape(along)
        return np.broadcast_to(mask, self.shape).ravel()

"""A small document with a place of every kind, for what reads and overrides documents."""

from __future__ import annotations

from pathlib import Path

import toy_sweep

from orchestrator.sweep.document import Document, read_document

TEXT = """\
name: sample
axes:
  beta: [1, 2]
  kind:
    plain:
      depth: 3
    5000: {depth: 4}
stages:
  fit:
    config:
      - {rate: 5e-5}
      - other: no
"""


def document(folder: Path, text: str = TEXT) -> Document:
    return read_document(toy_sweep.write_sweep(folder, text, "sample.yaml"))

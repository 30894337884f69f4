"""Texts: cleaning of foreign ones, such as errors and logs of stages, and hints for misspelt names."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from itertools import islice

#: Control sequences of terminals (ECMA-48, section 5.4), and their strings: titles, links, pictures (section 5.6).
_SEQUENCES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|(?:\x1b[PX\]^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)"
)
#: What no terminal may get and not every file format takes: control characters but newline and tab, line ends of
#: Unicode's own, which end a string in JavaScript, marks that turn the direction of what is written, halves of
#: surrogate pairs.
_ODD = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def plain_text(text: str, limit: int | None = None) -> str:
    """Return a text as valid Unicode without control sequences of terminals, cut after `limit` characters.

    Other control characters are escaped (`\\x1b`), and a carriage return ends a line.
    """
    text = str.__str__(text)
    if limit is not None and len(text) > limit:
        text = text[:limit] + " …"
    if not _ODD.search(text):
        return text
    text = _SEQUENCES.sub("", text).replace("\r\n", "\n").replace("\r", "\n")
    return _ODD.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


#: A wrong name is compared with so many valid ones, and no name is compared of more characters: each comparison takes
#: as many steps as both names have characters.
_COMPARED, _LONGEST_NAME = 1000, 100


def closest(name: object, valid: Iterable[object]) -> str | None:
    """Return the valid name that a wrong one is probably meant to be, None if it resembles none."""
    folded = {str(each).casefold(): str(each) for each in islice(valid, _COMPARED) if len(str(each)) <= _LONGEST_NAME}
    close = difflib.get_close_matches(str(name).casefold()[:_LONGEST_NAME], folded, n=1, cutoff=0.5)
    return folded[close[0]] if close else None


def nearest(name: object, valid: Iterable[object]) -> str:
    """Return a hint for a wrong name: the closest valid one, or all of them when they are few."""
    names = [str(each) for each in islice(valid, _COMPARED)]
    close = closest(name, names)
    if close:
        return f"did you mean {close!r}?"
    if not names:
        return "there are none to choose from"
    shown = [each if len(each) <= _LONGEST_NAME else f"{each[:_LONGEST_NAME]}…" for each in names[:16]]
    return "choose from " + ", ".join(shown) + (", …" if len(names) > 16 else "")


def few(names: Sequence[str], most: int = 4) -> str:
    """Return the first of some names, and how many more there are: "a, b, c, d and 12 more"."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more

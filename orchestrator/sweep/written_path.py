"""Paths as people write them."""

from __future__ import annotations

import errno
from pathlib import Path


def expand_home(text: str) -> Path:
    """Return the path that a text means, where `~` is the user's home folder, and `~name` that of another user.

    Raises:
        OSError: there is no such user, or no file can have such a name.
    """
    if unfit := next((each for each in text if each == "\0" or "\ud800" <= each <= "\udfff"), None):
        raise OSError(errno.EINVAL, f"{unfit!r} is no character of a path")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise OSError(errno.ENOENT, f"there is no user {text[1:].partition('/')[0]!r}") from error

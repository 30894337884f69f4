"""Removal of secrets from whatever is shown or written down: those in URIs, and those of the environment."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from workers.redaction import spellings

HIDDEN = "***"
#: A parameter of a query with one of these in its name is a secret: sslpassword, access_token, api_key,
#: X-Amz-Signature, sig, odbc_connect …
_TELLING = ("pass", "pwd", "token", "secret", "key", "sig", "cred", "auth", "odbc_connect")
#: An environment variable with such a name holds a secret: HF_TOKEN, AWS_SECRET_ACCESS_KEY, PGPASSWORD, MYSQL_PWD …
_VARIABLE = re.compile(r"(TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|APIKEY|(_|^)(KEY|PWD|PASS|PAT|CREDENTIALS))$", re.I)
#: What is shorter is no secret, and could be any word ("test", "none").
_SHORTEST = 8
#: From so many characters on a secret is hidden also within a word.
_LONG = 16
#: Before a word: no other letter, or one that is of an escape, as in `me%3Asecret` and repr's `\\nsecret`.
_BEGIN = r"(?:(?<!\w)|(?<=%[0-9A-Fa-f]{2})|(?<=\\[nrt]))"


def redact(text: str, *uris: str) -> str:
    """Replace the passwords and tokens of the URIs in a text, and those of the environment, by `***`.

    Of the environment these are the values of variables that are named like secrets, and those in URIs, in whatever
    spelling (`workers.redaction.spellings`). Pass the whole text and shorten the result: half a secret cannot be
    recognized.

    Args:
        text: what will be shown.
        uris: URIs that the text may mention; their secrets are also replaced where they stand alone.
    """
    text = redact_uris(text, *uris)
    for secret in sorted({form for each in _of_environment() for form in spellings(each)}, key=len, reverse=True):
        if secret in text:
            whole = re.escape(secret) if len(secret) >= _LONG else rf"{_BEGIN}{re.escape(secret)}(?!\w)"
            text = re.sub(whole, HIDDEN, text)
    return text


def _of_environment() -> Iterator[str]:
    for name, value in os.environ.items():
        found = {value.strip()} if _VARIABLE.search(name) else set[str]()
        if "://" in value:
            found = set[str]().union(*(_hide(word)[1] for word in value.split()))
        for secret in found:
            # A key may be named by its file, which is no secret.
            if len(secret) >= _SHORTEST and not (secret.startswith("/") and _is_file(secret)):
                yield secret


def _is_file(path: str) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False


def redact_uris(text: str, *uris: str) -> str:
    """Do so for the URIs only: the same text gives the same, whatever the environment is."""
    for uri in uris:
        hidden, secrets = _hide(uri)
        text = text.replace(uri, hidden)
        for secret in sorted(secrets, key=len, reverse=True):
            text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", HIDDEN, text)
    # White space ends a URI whatever is in it.
    return "".join(_hide(word)[0] if "://" in word else word for word in re.split(r"(\s+)", text))


def bare(uri: str) -> str:
    """Return a URI without its credentials (what stands before the @)."""
    scheme, colon, rest = uri.partition("://")
    authority = _authority(rest)
    return f"{scheme}{colon}{authority.rpartition('@')[2]}{rest[len(authority) :]}"


def _authority(rest: str) -> str:
    """Return what stands between the :// of a URI and its path."""
    return re.split(r"[/?#]", rest, maxsplit=1)[0]


def _hide(uri: str) -> tuple[str, set[str]]:
    """Return a URI, or several in one word, without secrets, and the secrets, quoted and unquoted."""
    first, *rests = uri.split("://")
    done, secrets, index = [first], set[str](), 0
    last = max((place for place, rest in enumerate(rests) if "@" in rest), default=-1)
    while index < len(rests):
        rest, authority = rests[index], _authority(rests[index])
        _, port, number = authority.partition(":")
        index += 1
        if port and "@" not in rest and not number.isdigit() and last >= index:
            # It is no port, so it is a password, with a :// in it.
            rest = "://".join(rests[index - 1 : last + 1])
            index = last + 1
        # A password may hold a slash, or even an @, that is not quoted: databases take both.
        if "@" in authority or (port and "@" in rest):
            known, _, place = rest.rpartition("@")
            name, parted, password = known.partition(":")
            if parted:
                secrets.add(password)
                rest = f"{name}:{HIDDEN}@{place}"
            elif done[-1].endswith(("http", "https")):
                # Without a password, a name is a token there.
                secrets.add(name)
                rest = f"{HIDDEN}@{place}"
        done.append(rest)
    place, *parts = re.split(r"([?&;])", "://".join(done))
    for at in range(1, len(parts), 2):
        name, equals, value = parts[at].partition("=")
        if equals and any(each in name.lower() for each in _TELLING):
            secrets.add(value)
            parts[at] = f"{name}={HIDDEN}"
    found = {form for each in secrets for form in (each, unquote(each))} - {"", HIDDEN}
    return f"{place}{''.join(parts)}", found

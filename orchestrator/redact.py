"""Removal of secrets in URIs from whatever is shown or written down."""

from __future__ import annotations

import re
from urllib.parse import unquote

HIDDEN = "***"
#: A parameter of a query with one of these in its name is a secret: sslpassword, access_token, api_key,
#: X-Amz-Signature, sig, odbc_connect …
_TELLING = ("pass", "pwd", "token", "secret", "key", "sig", "cred", "auth", "odbc_connect")


def redact(text: str, *uris: str) -> str:
    """Replace the passwords and tokens of the URIs in a text by `***`.

    Pass the whole text and shorten the result: in half a URI the secret cannot be recognized.

    Args:
        text: what will be shown.
        uris: URIs that the text may mention; their secrets are also replaced where they stand alone.
    """
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

"""Texts that may leave the process: credentials masked, control characters visible."""

from __future__ import annotations

import re
from functools import lru_cache

MIN_SECRET = 8
"""Characters from which a credential is masked; a shorter one is no secret."""
MAX_SECRETS = 64
"""Credentials masked at the same time: those in force, and earlier ones that a late answer may repeat."""
MASK = "***"
_ENTITIES = {"&": "amp", "<": "lt", ">": "gt", '"': "quot", "'": "apos"}

_secrets: dict[str, None] = {}


def protect(secret: str) -> None:
    """Mask a credential in all texts from now on."""
    if len(secret) >= MIN_SECRET and secret not in _secrets:
        while len(_secrets) >= MAX_SECRETS:
            del _secrets[next(iter(_secrets))]
        _secrets[secret] = None


def mask(text: str) -> str:
    """Return a text with each credential masked, also one written for JSON, for a URL or for HTML."""
    for secret in list(_secrets):
        text = _pattern(secret).sub(MASK, text)
    return text


def mask_bytes(text: bytes) -> bytes:
    """Return the bytes of a text with each credential masked."""
    return mask(text.decode("latin-1")).encode("latin-1") if _secrets else text


def mask_url(url: str) -> str:
    """Return a URL with its user, password, query and fragment masked."""
    before, at, after = url.rpartition("@")
    scheme = before[: before.find("://") + 3] if "://" in before else ""
    shown = f"{scheme}{MASK}@{after}" if at else url
    for sign in "?#":
        head, found, _ = shown.partition(sign)
        shown = head + (sign + MASK if found else "")
    return shown


def printable(text: str) -> str:
    r"""Return a text as one line without control characters, DEL and C1 included: a newline becomes `\n`.

    Foreign words could otherwise forge a line of the log, or send commands to the terminal that shows them.
    """
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def printable_json(text: str) -> str:
    r"""Return a line of JSON in which strings spell all control characters as `\u` escapes; its value stays."""
    return text if text.isprintable() else "".join(c if c.isprintable() else _json_escape(c) for c in text)


def _json_escape(char: str) -> str:
    units = char.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))


@lru_cache(MAX_SECRETS)
def _pattern(secret: str) -> re.Pattern[str]:
    return re.compile("".join(map(_spellings, secret)), re.IGNORECASE)


def _spellings(char: str) -> str:
    r"""Return a pattern for a character as it is, and after one or more rounds of escaping: `\/`, `\u002f`, `%2F`."""
    code = f"{ord(char):02x}"
    named = f"|&{_ENTITIES[char]};" if char in _ENTITIES else ""
    return (
        rf"(?:\\{{0,8}}{re.escape(char)}|\\{{1,8}}(?:u00|x){code}|%(?:25)?{code}|&#0*{ord(char)};|&#x0*{code};{named})"
    )

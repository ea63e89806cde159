"""What must not be written down or shown: the passwords, keys and tokens in URLs and settings."""

from __future__ import annotations

import re

_IN_URLS = re.compile(r"(://[^:/@\s]*):\S*@|(https?://)[^/@:\s]+@", re.IGNORECASE)
"""``postgresql://user:password@host``, whatever the password holds, and ``https://TOKEN@host``."""
_SETTINGS = re.compile(
    r"([\w.-]*(?:password|passwd|pwd|token|secret|access[_-]?key|account[_-]?key|api[_-]?key|credential|signature)"
    r"[\w.-]*=|(?<![A-Za-z0-9])sig=)[^&\s]+",
    re.IGNORECASE,
)
"""``?password=...``, ``secret_key=...``, ``X-Amz-Signature=...``, ``sig=...``."""


def without_secrets(text: str) -> str:
    """Return text with the passwords and keys of URLs and settings struck out."""
    text = _IN_URLS.sub(lambda found: f"{found[1]}:***@" if found[1] else f"{found[2]}***@", text)
    return _SETTINGS.sub(r"\1***", text)


def error_without_secrets(error: BaseException, url: str) -> str:
    """Return what a library says of a URL; its parts are struck out where the library may quote a secret in pieces."""
    masked, words = without_secrets(url), without_secrets(str(error))
    if masked == url:
        return words
    for piece in re.split(r"[^\w.~+=-]+", url):
        if piece and piece not in masked:
            words = words.replace(piece, "***")
    return words

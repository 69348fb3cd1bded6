"""Keys of TLS that are encrypted in their files."""

from __future__ import annotations

_MOST = 1_000_000
"""Bytes of a file that are read."""


def problem_of_key(path: str, password: str | None, *, file_option: str, password_option: str) -> str | None:
    """Why a private key cannot be used, if it is encrypted, with these names of options. None: it is not, or
    nothing is known against it. Without a password OpenSSL would ask for one on the terminal."""
    try:
        with open(path, "rb") as file:
            is_encrypted = b"ENCRYPTED" in file.read(_MOST)
    except (OSError, ValueError):
        return None
    if not is_encrypted:
        return None
    if not password:
        return f"the key in the file of {file_option} is encrypted: name its password, as {password_option}"
    return f"the key in the file of {file_option} is encrypted, and {password_option} does not decrypt it"

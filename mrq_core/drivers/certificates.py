"""Keys and certificates of TLS that cannot be used, and what to do about them."""

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


def advice_on_certificate(text: str, authority: str) -> str | None:
    """What to do about a server whose certificate OpenSSL has refused with this text. `authority`: how the
    URL names the file of the authority. None: it has refused no certificate."""
    if "CERTIFICATE_VERIFY_FAILED" not in text and "certificate verify failed" not in text:
        return None
    if "has expired" in text:
        return "its certificate has expired: the server needs a new one, unless the clock here is wrong"
    if "not yet valid" in text:
        return "its certificate is not valid yet: correct the clock here, or that of its authority"
    if "mismatch" in text:
        return "its certificate is that of another host: use a host name of the certificate in the URL"
    return (
        "its certificate is not trusted here: name the file of its authority in the URL, as "
        f"{authority}, or use the host name of the certificate"
    )

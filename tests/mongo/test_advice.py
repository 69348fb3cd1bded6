"""What errors of a connection advise. Their texts are those of pymongo and of OpenSSL."""

from __future__ import annotations

from pathlib import Path

import pytest
from pymongo import errors

from mrq_broker_mongo.server.failures import translated
from mrq_broker_mongo.server.location import location_of
from mrq_core.errors import ConfigError
from tests.mongo.test_location import opening

TLS = "mongodb://host/jobs?tls=true"


@pytest.mark.parametrize(
    ("url", "text", "advice"),
    [
        (
            TLS,
            "host:27017: connection closed",
            "needs one that it trusts in the URL, as tlsCertificateKeyFile",
        ),
        (TLS, "SSL handshake failed: host: [SSL] sslv3 alert bad certificate", "as tlsCertificateKeyFile"),
        (
            TLS,
            "SSL handshake failed: host: [SSL: UNEXPECTED_EOF_WHILE_READING] EOF occurred in violation",
            "a server without TLS needs a URL without tls=true",
        ),
        (
            "mongodb://host/jobs",
            "host:27017: connection closed",
            "a server with TLS needs tls=true in the URL",
        ),
        (
            TLS,
            "SSL handshake failed: host: [SSL: CERTIFICATE_VERIFY_FAILED] Hostname mismatch",
            "use a host name of the certificate in the URL",
        ),
        (
            TLS,
            "SSL handshake failed: host: [SSL: CERTIFICATE_VERIFY_FAILED] certificate has expired",
            "the server needs a new one, unless the clock here is wrong",
        ),
        (
            TLS,
            "SSL handshake failed: host: [SSL: CERTIFICATE_VERIFY_FAILED] certificate is not yet valid",
            "correct the clock here",
        ),
        (
            TLS,
            "SSL handshake failed: host: [SSL: CERTIFICATE_VERIFY_FAILED] self-signed certificate",
            "name the file of its authority in the URL, as tlsCAFile",
        ),
        (
            "mongodb://host/jobs",
            'No servers match selector "Primary()", Timeout: 5.0s, Topology Description: ...',
            "initiate the set",
        ),
        (
            "mongodb://host/jobs?replicaSet=nope",
            'No replica set members available for replica set name "nope", Timeout: 5.0s',
            "correct replicaSet in the URL",
        ),
    ],
)
def test_an_error_says_what_to_do_about_it(url: str, text: str, advice: str) -> None:
    found = str(translated(errors.ServerSelectionTimeoutError(text), location_of(opening(url)), 5.0))
    assert advice in found
    assert ("needs tls=true" in found) == ("needs tls=true" in advice)


KEY = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIC\n-----END ENCRYPTED PRIVATE KEY-----\n"


@pytest.mark.parametrize(
    ("password", "why"),
    [
        ("", "is encrypted: name its password, as tlsCertificateKeyFilePassword"),
        (
            "&tlsCertificateKeyFilePassword=geheim",
            "is encrypted, and tlsCertificateKeyFilePassword does not decrypt it",
        ),
    ],
)
def test_an_encrypted_key_asks_for_its_password_in_the_url(password: str, why: str, tmp_path: Path) -> None:
    """And not on the terminal, as OpenSSL does."""
    file = tmp_path / "key.pem"
    file.write_text(KEY)
    with pytest.raises(ConfigError, match=why) as raised:
        location_of(opening(f"{TLS}&tlsCertificateKeyFile={file}{password}"))
    assert "geheim" not in str(raised.value)

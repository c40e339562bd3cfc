"""Files of certificates and keys, tried before anything is opened with them."""

import ssl
from pathlib import Path


def certificates(text: str) -> Path:
    """The path of a PEM file of certificates. Raises OSError."""
    ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(text)
    return Path(text)


def belong_together(certificate: Path, key: Path) -> bool:
    """Whether the key is the certificate's, and can be read without asking anybody for a passphrase."""
    try:
        load_pair(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), certificate, key)
    except (OSError, ValueError):
        return False
    return True


def load_pair(context: ssl.SSLContext, certificate: Path | None, key: Path | None) -> None:
    """For a server that asks its clients for a certificate. Raises OSError and ValueError."""
    if certificate:
        context.load_cert_chain(certificate, key, password="")  # or OpenSSL would ask the terminal

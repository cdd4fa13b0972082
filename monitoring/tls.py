"""TLS of the service, by its settings: what `bentoml serve` is told, and a probe that speaks it.

With FRAUD_TLS_CLIENT_CA a client without a certificate of those authorities gets no connection at all.
"""

from __future__ import annotations

import http.client
import ssl
from pathlib import Path

from feature_repo.settings import Settings
from monitoring.supervision import PartFailed

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2, the least that is spoken. BentoML's own choice, `TLSv1`, has only suites of before that, and among them
some without encryption."""


def options(current: Settings) -> tuple[str, ...]:
    """The options of `bentoml serve`; none without FRAUD_TLS_CERT. Raises `PartFailed` for files that do not fit."""
    if current.tls_cert is None:
        given = {"FRAUD_TLS_KEY": current.tls_key, "FRAUD_TLS_CLIENT_CA": current.tls_client_ca}
        for name, path in given.items():
            if path is not None:
                raise PartFailed(f"{name} is {str(path)!r} without FRAUD_TLS_CERT: set that too, or neither.")
        return ()
    certificate, key = current.tls_cert.resolve(), (current.tls_key or current.tls_cert).resolve()
    _require_fitting(certificate, key, current.tls_client_ca)
    found = ("--ssl-certfile", str(certificate), "--ssl-keyfile", str(key), "--ssl-ciphers", CIPHERS)
    if current.tls_client_ca is None:
        return found
    required = str(int(ssl.CERT_REQUIRED))
    return (*found, "--ssl-ca-certs", str(current.tls_client_ca.resolve()), "--ssl-cert-reqs", required)


def scheme(current: Settings) -> str:
    """`https` or `http`."""
    return "http" if current.tls_cert is None else "https"


def answers_ok(current: Settings, host: str, port: int, path: str, timeout: float) -> bool:
    """Whether the service answers 200. Where clients need a certificate, this one has none: to be turned away after
    the handshake counts, since a worker accepts a connection only once it serves."""
    connection = http.client.HTTPSConnection(host, port, timeout=timeout, context=_unverified())
    try:
        connection.connect()
        try:
            connection.request("GET", path)
            return connection.getresponse().status == http.client.OK
        except (ssl.SSLError, ConnectionError):
            return current.tls_client_ca is not None
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _unverified() -> ssl.SSLContext:
    """For a probe of this machine's own process, at an address that need not be in its certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _require_fitting(certificate: Path, key: Path, client_ca: Path | None) -> None:
    """BentoML starts a worker again and again on files it cannot use; here they are refused once."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
        if client_ca is not None:
            context.load_verify_locations(client_ca)
    except (OSError, ValueError) as error:
        files = f"FRAUD_TLS_CERT {str(certificate)!r}, FRAUD_TLS_KEY {str(key)!r}"
        also = "" if client_ca is None else f", FRAUD_TLS_CLIENT_CA {str(client_ca)!r}"
        rule = "must be PEM files, the key the certificate's own and without a password"
        raise PartFailed(f"{files}{also} cannot be used ({error}); they {rule}.") from None


def _no_password() -> str:
    raise ValueError("the key asks for a password")

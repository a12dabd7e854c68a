"""The files of TLS, and what is wrong with them."""

from __future__ import annotations

import ssl
from pathlib import Path

from consumer.kafka.client import AccessRefused
from consumer.settings import ConsumerSettings

EXPIRED, NOT_YET, HOST, IP = 10, 9, 62, 64  # of OpenSSL's verify codes


def tls_context(settings: ConsumerSettings) -> ssl.SSLContext:
    """What the client makes of the same settings.

    Raises:
        AccessRefused: naming the setting whose file is wrong.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    authority = settings.kafka_ssl_cafile
    if authority is None:
        context.load_default_certs()
    else:
        _load_certificates(context, "KAFKA_SSL_CAFILE", authority)
    if settings.kafka_ssl_certfile is not None:
        _load_own(context, settings, settings.kafka_ssl_certfile)
    elif settings.kafka_ssl_keyfile is not None:
        raise AccessRefused("KAFKA_SSL_KEYFILE is set without KAFKA_SSL_CERTFILE")
    return context


def verified_nothing() -> ssl.SSLContext:
    """Only to see whether a port speaks TLS; nothing is sent that way."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def broker_certificate_refused(
    error: ssl.SSLCertVerificationError, settings: ConsumerSettings, server: object
) -> AccessRefused:
    """What this process holds against the broker's certificate."""
    trusted = settings.kafka_ssl_cafile
    if error.verify_code in (HOST, IP):
        what = (
            "is for another host name: name the broker in KAFKA_BOOTSTRAP_SERVERS as the "
            f"certificate does ({error.verify_message})"
        )
    elif error.verify_code in (EXPIRED, NOT_YET):
        what = f"is not valid now: {error.verify_message}"
    else:
        by = f"the one of KAFKA_SSL_CAFILE={trusted}" if trusted else "one that this machine trusts"
        what = f"is by another authority than {by}: {error.verify_message}"
        what += "" if trusted else "; set KAFKA_SSL_CAFILE"
    return AccessRefused(f"the certificate of Kafka at {server} {what}")


def _load_certificates(context: ssl.SSLContext, setting: str, path: Path) -> None:
    _read(setting, path)
    try:
        context.load_verify_locations(path)
    except ssl.SSLError:
        raise AccessRefused(f"{setting}={path} holds no certificate in PEM") from None


def _load_own(context: ssl.SSLContext, settings: ConsumerSettings, certificate: Path) -> None:
    key = settings.kafka_ssl_keyfile
    _load_certificates(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), "KAFKA_SSL_CERTFILE", certificate)
    holder = f"KAFKA_SSL_KEYFILE={key}" if key else f"KAFKA_SSL_CERTFILE={certificate}"
    if b"PRIVATE KEY-----" not in _read("KAFKA_SSL_KEYFILE", key or certificate):
        raise AccessRefused(
            f"{holder} holds no private key in PEM" + ("" if key else "; set KAFKA_SSL_KEYFILE")
        )
    password = settings.kafka_ssl_password
    asked = []

    def answer() -> str:
        asked.append(True)
        return password.get_secret_value() if password else ""

    try:
        context.load_cert_chain(certificate, key, answer)
    except ssl.SSLError as error:
        if asked and password is None:
            raise AccessRefused(
                f"the key in {holder} is encrypted; set KAFKA_SSL_PASSWORD"
            ) from None
        if asked:
            raise AccessRefused(f"KAFKA_SSL_PASSWORD does not open the key in {holder}") from None
        if error.reason == "KEY_VALUES_MISMATCH":
            raise AccessRefused(
                f"the key in {holder} is not the one of KAFKA_SSL_CERTFILE={certificate}"
            ) from None
        raise AccessRefused(f"{holder} cannot be read: {error.reason}") from None


def _read(setting: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise AccessRefused(f"{setting}={path} cannot be read: {error.strerror}") from None

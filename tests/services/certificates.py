"""Certificates for tests, made when they are needed."""

from __future__ import annotations

import datetime as dt
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate and its key, in memory and as PEM files."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    certificate_path: Path
    key_path: Path


def make_authority(directory: Path, name: str) -> Identity:
    """Make a certificate that may sign others."""
    return _make(directory, name, issuer=None)


def make_identity(directory: Path, name: str, authority: Identity, ended_days_ago: int = -1) -> Identity:
    """Make a certificate for 127.0.0.1 and localhost, signed by an authority, that holds for two days."""
    return _make(directory, name, authority, ended_days_ago)


def _make(directory: Path, name: str, issuer: Identity | None, ended_days_ago: int = -1) -> Identity:
    key = ec.generate_private_key(ec.SECP256R1())
    until = dt.datetime.now(dt.UTC) - dt.timedelta(days=ended_days_ago)
    certificate = _builder(name, key, issuer, until).sign(issuer.key if issuer else key, hashes.SHA256())
    certificate_path, key_path = directory / f"{name}.pem", directory / f"{name}.key"
    certificate_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(key_pem(key))
    return Identity(certificate, key, certificate_path, key_path)


def key_pem(key: ec.EllipticCurvePrivateKey, password: bytes | None = None) -> bytes:
    """Write a private key as PEM, encrypted when there is a password."""
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def _builder(
    name: str, key: ec.EllipticCurvePrivateKey, issuer: Identity | None, until: dt.datetime
) -> x509.CertificateBuilder:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    addresses = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(until - dt.timedelta(days=2))
        .not_valid_after(until)
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(addresses), critical=False)
    )

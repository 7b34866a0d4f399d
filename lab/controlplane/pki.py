"""The certificate authority of one control plane, and what it signs.

Elliptic-curve keys throughout: a pair takes a millisecond, an RSA one up to a second.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from lab.controlplane.errors import ControlPlaneError
from lab.controlplane.files import write_private

LIFETIME = datetime.timedelta(days=3650)
CLOCK_SKEW = datetime.timedelta(days=1)
"""How far back a certificate is valid: a lab node may be another kernel with its own clock."""


@dataclass(frozen=True)
class Pair:
    """A certificate and its private key, both PEM."""

    certificate: bytes
    key: bytes


class Authority:
    """Signs for the servers and the clients of one control plane."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self._certificate = certificate
        self._key = key

    @classmethod
    def create(cls, name: str) -> Authority:
        """A new, self-signed authority."""
        key = _new_key()
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        usage = _key_usage(sign_certificates=True)
        certificate = (
            _builder(subject, subject, key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .sign(key, hashes.SHA256())
        )
        return cls(certificate, key)

    @classmethod
    def load(cls, certificate: Path, key: Path) -> Authority:
        """Read what `save` wrote.

        Raises FileNotFoundError, and ControlPlaneError if the key is of another kind.
        """
        private = serialization.load_pem_private_key(key.read_bytes(), password=None)
        if not isinstance(private, ec.EllipticCurvePrivateKey):
            raise ControlPlaneError(f"{key} is no elliptic-curve key: it was not made by this lab")
        return cls(x509.load_pem_x509_certificate(certificate.read_bytes()), private)

    def save(self, certificate: Path, key: Path) -> None:
        """Write both parts, the certificate last: where it is, the key is too."""
        write_private(key, _pem_key(self._key))
        write_private(certificate, self.pem)

    @property
    def pem(self) -> bytes:
        """The certificate that clients and servers trust."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    def server(self, names: Sequence[str]) -> Pair:
        """A server's certificate for these DNS names and IP addresses; the first is its name."""
        alternatives = x509.SubjectAlternativeName([_general_name(name) for name in names])
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
        return self._sign(subject, ExtendedKeyUsageOID.SERVER_AUTH, alternatives)

    def client(self, user: str, groups: Sequence[str]) -> Pair:
        """A client's certificate: Kubernetes reads the user from CN, the groups from O.

        Raises ControlPlaneError for a name that X.509 has no room for.
        """
        try:
            subject = x509.Name(
                [
                    *(x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups),
                    x509.NameAttribute(NameOID.COMMON_NAME, user),
                ]
            )
        except ValueError as error:
            raise ControlPlaneError(
                f"a certificate for user {user!r}, groups {list(groups)} is impossible ({error}): "
                "each name has 1 to 64 characters; use a token for longer ones"
            ) from error
        return self._sign(subject, ExtendedKeyUsageOID.CLIENT_AUTH, None)

    def _sign(
        self,
        subject: x509.Name,
        usage: x509.ObjectIdentifier,
        alternatives: x509.SubjectAlternativeName | None,
    ) -> Pair:
        key = _new_key()
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = (
            _builder(subject, self._certificate.subject, key)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(sign_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(issuer, critical=False)
        )
        if alternatives is not None:
            builder = builder.add_extension(alternatives, critical=False)
        signed = builder.sign(self._key, hashes.SHA256())
        return Pair(signed.public_bytes(serialization.Encoding.PEM), _pem_key(key))


def new_signing_key() -> tuple[bytes, bytes]:
    """A private and its public key, PEM: service account tokens are signed with it."""
    key = _new_key()
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return _pem_key(key), public


def _new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _pem_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    # The traditional form, "EC PRIVATE KEY", is the one Kubernetes reads in every place.
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + LIFETIME)
    )


def _key_usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:  # not an address, so a DNS name
        return x509.DNSName(name)

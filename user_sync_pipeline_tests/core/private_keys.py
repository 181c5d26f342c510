"""Private keys in PEM form, made once for the whole run."""

from __future__ import annotations

from functools import cache

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

PASSWORD = b"open-sesame"


@cache
def _rsa(bits: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def _private(
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey,
    encryption: serialization.KeySerializationEncryption | None = None,
) -> str:
    form = serialization.PrivateFormat.PKCS8
    none = serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, form, encryption or none).decode()


def private_key(bits: int = 2048) -> str:
    return _private(_rsa(bits))


def encrypted_key() -> str:
    return _private(_rsa(2048), serialization.BestAvailableEncryption(PASSWORD))


def elliptic_key() -> str:
    return _private(ec.generate_private_key(ec.SECP256R1()))


def public_key() -> str:
    """The public half of `private_key()`."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return _rsa(2048).public_key().public_bytes(serialization.Encoding.PEM, form).decode()

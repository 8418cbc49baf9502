"""finished file -> the same file with a signed statement of what made it (a C2PA manifest)

The statement says that a model generated this, which one, and when the file is changed afterwards it does not hold any more. Everything
happens here: no authority is asked for the time, so a signature counts for as long as its certificate does.
"""

import io
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import c2pa
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from PIL import Image

from aiprod_components.errors import ConfigError

GENERATOR = {"name": "AIPROD", "version": version("aiprod")}
TRAINED = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"  # IPTC's term for "made by a generative model"
SETTINGS = {"builder": {"thumbnail": {"enabled": False}}, "verify": {"verify_after_sign": False}}

# A certificate's curve -> the algorithm that C2PA prescribes for it.
CURVES = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}


@dataclass(frozen=True)
class Origin:
    """What made a file: the model family and the pipeline."""

    family: str
    pipeline: str


class Signer:
    """Signs with a certificate chain and its private key, both PEM files. Raises ConfigError when they do not do for it."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self._certificate = certificate
        chain, secret = _read(certificate, "certificate"), _read(key, "key")
        algorithm = _check_pair(_check_chain(chain, certificate), _private(secret, key), at=f"provenance: {certificate} and {key}")
        try:
            signer = c2pa.Signer.from_info(c2pa.C2paSignerInfo(algorithm, chain, secret, None))
            self._context = c2pa.Context.from_dict(SETTINGS, signer=signer)
            # What C2PA has against a certificate it says when it is to sign: better at start than to all who get a file.
            self._signed(_small_picture(), "image/png", title="test", origin=Origin("none", "none"))
        except c2pa.C2paError as error:
            raise ConfigError(
                f"provenance: C2PA does not sign with {certificate} ({error}); its key usage must be digital signature, and its extended "
                "key usage e-mail protection, document signing or C2PA's own"
            ) from error

    def sign(self, data: bytes, media_type: str, *, title: str, origin: Origin) -> bytes:
        """The file with its manifest, about 3 kB longer. Raises ConfigError, for instance when the certificate has expired meanwhile."""
        try:
            return self._signed(data, media_type, title=title, origin=origin)
        except c2pa.C2paError as error:
            raise ConfigError(
                f"provenance: {self._certificate} cannot sign a file of {media_type} ({error}); renew the certificate if it has expired"
            ) from error

    def _signed(self, data: bytes, media_type: str, *, title: str, origin: Origin) -> bytes:
        signed = io.BytesIO()
        with c2pa.Builder(_manifest(title, origin), self._context) as builder:
            builder.sign(media_type, io.BytesIO(data), signed)
        return signed.getvalue()


def _manifest(title: str, origin: Origin) -> dict[str, Any]:
    created = {
        "action": "c2pa.created",
        "digitalSourceType": TRAINED,
        "softwareAgent": GENERATOR,
        "parameters": {"aiprod.model": origin.family, "aiprod.pipeline": origin.pipeline},
    }
    return {
        "title": title,
        "claim_generator_info": [GENERATOR],
        "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [created]}}],
    }


def _read(file: Path, what: str) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigError(f"provenance.{what}: {file} cannot be read ({error.strerror}); name a PEM file that is on every node") from error


def _check_chain(chain: bytes, file: Path) -> x509.Certificate:
    """The signer's own certificate."""
    try:
        certificates = x509.load_pem_x509_certificates(chain)
    except ValueError as error:
        raise ConfigError(f"provenance.certificate: {file} has no PEM certificate; it must have the signer's, then its issuers'") from error
    for certificate, issuer in pairwise(certificates):
        try:
            certificate.verify_directly_issued_by(issuer)
        except (ValueError, TypeError, InvalidSignature) as error:
            names = f"{issuer.subject.rfc4514_string()} follows {certificate.subject.rfc4514_string()}"
            raise ConfigError(
                f"provenance.certificate: in {file}, {names} and has not issued it; put the signer's first, and each one's issuer behind it"
            ) from error
    return certificates[0]


def _small_picture() -> bytes:
    picture = io.BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "png")
    return picture.getvalue()


def _private(secret: bytes, file: Path) -> PrivateKeyTypes:
    try:
        return load_pem_private_key(secret, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"provenance.key: {file} has no PEM private key without a password") from error


def _algorithm(key: object) -> str | None:
    """C2PA's name for how such a key signs; None where it does not."""
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return CURVES.get(key.curve.name)
    if isinstance(key, rsa.RSAPrivateKey):
        return "ps256"
    return "ed25519" if isinstance(key, ed25519.Ed25519PrivateKey) else None


def _check_pair(certificate: x509.Certificate, key: PrivateKeyTypes, *, at: str) -> str:
    """The algorithm that both are for."""
    if certificate.public_key() != key.public_key():
        raise ConfigError(f"{at} do not belong together; name the key that the certificate was issued for")
    if not certificate.not_valid_before_utc <= datetime.now(UTC) <= certificate.not_valid_after_utc:
        valid = f"{certificate.not_valid_before_utc:%Y-%m-%d} to {certificate.not_valid_after_utc:%Y-%m-%d}"
        raise ConfigError(f"{at}: the certificate is valid from {valid}; renew it")
    if (algorithm := _algorithm(key)) is None:
        raise ConfigError(f"{at}: C2PA does not sign with such a key; use one on a curve ({', '.join(CURVES)}), Ed25519 or RSA")
    return algorithm

"""A signed file plays as before, says what made it, and tells when it was changed; what cannot sign is told at start."""

import datetime
import io
import random
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import av
import c2pa
import pytest
import torch
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID
from PIL import Image
from torch import Tensor

from aiprod_components.errors import ConfigError
from aiprod_components.media.decode import decode_video
from aiprod_components.media.encode import encode_mp4, encode_sound, encode_still
from aiprod_components.values import Frames, Waveform
from deployments.provenance import Origin, Signer

ORIGIN = Origin("miniature", "ti2vid_two_stages")
PEM = serialization.Encoding.PEM
TODAY = (-1, 30)
# Whom a validator believes is its own affair: not being on its list says nothing against a certificate.
UNKNOWN = "signingCredential.untrusted"


@dataclass(frozen=True)
class Pair:
    certificate: Path
    key: Path

    def signer(self) -> Signer:
        return Signer(self.certificate, self.key)


def make_test_certificate(
    folder: Path, *, key: CertificateIssuerPrivateKeyTypes | None = None, days: tuple[int, int] = TODAY, purpose: bool = True
) -> Pair:
    """What C2PA asks for: a chain of two, the signer's for signatures and for a purpose it knows (here: e-mail protection)."""
    authority_key, key = ec.generate_private_key(ec.SECP256R1()), key or ec.generate_private_key(ec.SECP256R1())
    begin, end = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=day) for day in days)

    def certificate(name: str, of: CertificateIssuerPrivateKeyTypes, *, authority: bool) -> x509.CertificateBuilder:
        issuer, subject = (
            x509.Name([x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "Test"), x509.NameAttribute(x509.NameOID.COMMON_NAME, common)])
            for common in ("Test authority", name)
        )
        usage = x509.KeyUsage(not authority, False, False, False, False, authority, authority, False, False)
        return (
            x509.CertificateBuilder(issuer, subject, of.public_key(), x509.random_serial_number(), begin, end)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(of.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
        )

    signer = certificate("Test signer", key, authority=False)
    if purpose:
        signer = signer.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
    chain = [
        builder.sign(authority_key, hashes.SHA256()) for builder in (signer, certificate("Test authority", authority_key, authority=True))
    ]
    pair = Pair(folder / "certificate.pem", folder / "key.pem")
    pair.certificate.write_bytes(b"".join(one.public_bytes(PEM) for one in chain))
    pair.key.write_bytes(key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return pair


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return make_test_certificate(tmp_path_factory.mktemp("certificate")).signer()


def frames() -> Tensor:
    """A gradient that moves."""
    x, y, t = torch.arange(64), torch.arange(48)[:, None], torch.arange(9)[:, None, None]
    pixels = torch.stack([x * 4 + y * 0 + t * 3, y * 5 + x * 0 + t * 0, x + y + t * 7], dim=-1)
    return (pixels % 256).to(torch.uint8)[None]


HUM = Waveform(torch.linspace(0, 600, 12_000).sin().expand(1, 2, -1), 48_000)
FILES = {
    "video/mp4": encode_mp4(Frames(frames(), 16.0)),
    "image/png": encode_still(frames()[0, 0], format="png"),
    "image/webp": encode_still(frames()[0, 0], format="webp"),
    "audio/mp4": encode_sound(HUM, container="m4a"),
    "audio/wav": encode_sound(HUM, container="wav"),
}


def signed(signer: Signer, media_type: str) -> bytes:
    return signer.sign(FILES[media_type], media_type, title="video_1", origin=ORIGIN)


def is_as_signed(data: bytes, media_type: str) -> bool:
    """Whether the manifest is there and holds, but for the list of those who are believed."""
    try:
        with c2pa.Reader(media_type, io.BytesIO(data)) as reader:
            found = reader.get_validation_results() or {}
    except c2pa.C2paError:
        return False
    return [fault["code"] for fault in found["activeManifest"]["failure"]] == [UNKNOWN]


@pytest.mark.parametrize("media_type", FILES)
def test_a_signed_file_says_what_made_it_and_holds(signer: Signer, media_type: str) -> None:
    data = signed(signer, media_type)
    with c2pa.Reader(media_type, io.BytesIO(data)) as reader:
        assert reader.get_validation_state() == "Valid"
        manifest = reader.get_active_manifest()
    assert manifest is not None
    assert manifest["title"] == "video_1"
    (generator,) = manifest["claim_generator_info"]
    assert generator["name"] == "AIPROD" and generator["version"][0].isdigit()
    (created,) = next(one["data"]["actions"] for one in manifest["assertions"] if one["label"] == "c2pa.actions.v2")
    assert created["action"] == "c2pa.created"
    assert created["digitalSourceType"].endswith("/trainedAlgorithmicMedia")
    assert created["parameters"] == {"aiprod.model": "miniature", "aiprod.pipeline": "ti2vid_two_stages"}
    assert "time" not in manifest["signature_info"]  # nobody was asked for it
    assert len(data) - len(FILES[media_type]) < 6000


def test_a_signed_video_plays_as_before_and_still_begins_with_its_index(signer: Signer) -> None:
    data = signed(signer, "video/mp4")
    assert torch.equal(decode_video(data), decode_video(FILES["video/mp4"]))
    kinds = [kind for kind, _, _ in boxes(data)]
    assert kinds.index("moov") < kinds.index("mdat")


@pytest.mark.parametrize("media_type", ["image/png", "image/webp"])
def test_a_signed_still_shows_the_same_pixels(signer: Signer, media_type: str) -> None:
    with Image.open(io.BytesIO(signed(signer, media_type))) as shown, Image.open(io.BytesIO(FILES[media_type])) as before:
        assert shown.tobytes() == before.tobytes()


@pytest.mark.parametrize("media_type", ["audio/mp4", "audio/wav"])
def test_a_signed_sound_has_the_same_samples(signer: Signer, media_type: str) -> None:
    shown, before = (samples_of(data) for data in (signed(signer, media_type), FILES[media_type]))
    assert len(before) >= 12_000 and torch.equal(shown, before)


def samples_of(data: bytes) -> Tensor:
    with av.open(io.BytesIO(data), "r") as container:
        return torch.cat([torch.from_numpy(frame.to_ndarray()).flatten() for frame in container.decode(audio=0)])


def boxes(data: bytes) -> Iterator[tuple[str, int, int]]:
    """The outermost boxes of an mp4: kind, first byte, end."""
    at = 0
    while at < len(data):
        size = struct.unpack(">I", data[at : at + 4])[0]
        yield data[at + 4 : at + 8].decode(), at, at + size
        at += size


def media_bytes(data: bytes, media_type: str) -> list[int]:
    """All but the manifest and what frames it and, in an mp4, `ftyp`, which the standard leaves out."""
    manifest = data.index(b"jumb") - 4
    end = manifest + struct.unpack(">I", data[manifest : manifest + 4])[0]
    begin = next(end for _, _, end in boxes(data)) if media_type.endswith("mp4") else 0
    checksum = 4 if media_type == "image/png" else 0
    return [*range(begin, manifest), *range(end + checksum, len(data))]


@pytest.mark.parametrize("media_type", FILES)
def test_a_changed_byte_of_the_media_is_noticed(signer: Signer, media_type: str) -> None:
    data = signed(signer, media_type)
    places = media_bytes(data, media_type)
    assert len(places) > 0.9 * len(FILES[media_type])
    missed: list[int] = []
    for at in random.Random(0).sample(places, min(len(places), 250)):
        changed = bytearray(data)
        changed[at] ^= 1
        if is_as_signed(bytes(changed), media_type):
            missed.append(at)
    assert missed == []


@pytest.mark.parametrize("media_type", FILES)
@pytest.mark.parametrize("said", [b"trainedAlgorithmicMedia", b"ti2vid_two_stages", b"miniature", b"video_1"])
def test_a_changed_statement_is_noticed(signer: Signer, media_type: str, said: bytes) -> None:
    data = signed(signer, media_type)
    assert data.count(said) == 1
    assert is_as_signed(data, media_type)
    assert not is_as_signed(data.replace(said, said[:-1] + b"?"), media_type)


@pytest.mark.parametrize("media_type", FILES)
def test_a_statement_is_of_one_file(signer: Signer, media_type: str) -> None:
    data = signed(signer, media_type)
    assert not is_as_signed(FILES[media_type], media_type)
    assert not is_as_signed(data + b"more", media_type)


def test_several_threads_sign_at_once(signer: Signer) -> None:
    with ThreadPoolExecutor(4) as threads:
        made = list(threads.map(lambda _: signed(signer, "video/mp4"), range(40)))
    assert all(is_as_signed(data, "video/mp4") for data in made)
    assert len(set(made)) == 40  # each has an id of its own


KEYS: dict[str, Callable[[], CertificateIssuerPrivateKeyTypes]] = {
    "P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "P-521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "RSA": lambda: rsa.generate_private_key(65537, 2048),
    "Ed25519": ed25519.Ed25519PrivateKey.generate,
}


@pytest.mark.parametrize("kind", KEYS)
def test_every_kind_of_key_that_c2pa_knows_signs(tmp_path: Path, kind: str) -> None:
    assert is_as_signed(signed(make_test_certificate(tmp_path, key=KEYS[kind]()).signer(), "image/png"), "image/png")


def test_files_that_are_not_there_are_told_by_name(tmp_path: Path) -> None:
    pair = make_test_certificate(tmp_path)
    with pytest.raises(ConfigError, match=r"provenance\.certificate: .*missing\.pem cannot be read \(No such file"):
        Signer(tmp_path / "missing.pem", pair.key)
    with pytest.raises(ConfigError, match=r"provenance\.key: .*missing\.pem cannot be read \(No such file"):
        Signer(pair.certificate, tmp_path / "missing.pem")


def test_files_of_another_kind_are_told_by_name(tmp_path: Path) -> None:
    pair = make_test_certificate(tmp_path)
    with pytest.raises(ConfigError, match=r"key\.pem has no PEM certificate"):
        Signer(pair.key, pair.key)
    with pytest.raises(ConfigError, match=r"certificate\.pem has no PEM private key"):
        Signer(pair.certificate, pair.certificate)


def test_a_key_behind_a_password_is_refused(tmp_path: Path) -> None:
    pair = make_test_certificate(tmp_path)
    key = serialization.load_pem_private_key(pair.key.read_bytes(), password=None)
    locked = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"word"))
    pair.key.write_bytes(locked)
    with pytest.raises(ConfigError, match="without a password"):
        pair.signer()


def test_a_key_of_another_certificate_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with pytest.raises(ConfigError, match="do not belong together"):
        Signer(make_test_certificate(tmp_path).certificate, make_test_certificate(tmp_path / "other").key)


@pytest.mark.parametrize("days", [(-10, -1), (1, 10)])
def test_a_certificate_that_is_not_valid_today_is_refused(tmp_path: Path, days: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match=r"the certificate is valid from \d{4}-.* to .*; renew it"):
        make_test_certificate(tmp_path, days=days).signer()


def test_a_curve_that_c2pa_does_not_know_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="C2PA does not sign with such a key"):
        make_test_certificate(tmp_path, key=ec.generate_private_key(ec.SECP256K1())).signer()


def test_a_certificate_that_is_not_for_signing_is_refused_at_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"the certificate is invalid\); its key usage must be digital signature"):
        make_test_certificate(tmp_path, purpose=False).signer()


@pytest.mark.parametrize("order", ["authority first", "another's authority"])
def test_a_chain_that_is_none_is_refused(tmp_path: Path, order: str) -> None:
    (tmp_path / "other").mkdir()
    pair, other = make_test_certificate(tmp_path), make_test_certificate(tmp_path / "other")
    (first, second), (_, foreign) = (x509.load_pem_x509_certificates(one.certificate.read_bytes()) for one in (pair, other))
    chain = (second, first) if order == "authority first" else (first, foreign)
    pair.certificate.write_bytes(b"".join(one.public_bytes(PEM) for one in chain))
    with pytest.raises(ConfigError, match=r"follows .* and has not issued it; put the signer's first"):
        pair.signer()


def test_what_is_no_media_is_refused(signer: Signer) -> None:
    with pytest.raises(ConfigError, match="cannot sign a file of video/mp4"):
        signer.sign(b"not an mp4", "video/mp4", title="video_1", origin=ORIGIN)

"""Where the control plane listens, and with which certificate."""

import datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from node.error import ConfigInvalid
from node.http.bind import listeners
from node.http.setting import HttpSection

NAMES = ("node.example:8443",)


def certificate(home: Path, name: str = "node.example", passphrase: bytes | None = None) -> ec.EllipticCurvePrivateKey:
    """A certificate of its own, and its key, as `c.pem` and `k.pem`."""
    key, subject = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    (home / "c.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    kept = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    pkcs8 = serialization.PrivateFormat.PKCS8
    (home / "k.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, pkcs8, kept))
    (home / "k.pem").chmod(0o600)
    return key


def tls(home: Path) -> HttpSection:
    return HttpSection(names=NAMES, tls_cert="c.pem", tls_key=str(home / "k.pem"))


def test_by_default_there_is_one_on_loopback(tmp_path: Path) -> None:
    (only,) = listeners(HttpSection(), "127.0.0.1", 8080, tmp_path)
    assert (only.host, only.port, only.tls) == ("127.0.0.1", 8080, None)


def test_behind_a_proxy_on_this_machine_there_is_no_other(tmp_path: Path) -> None:
    (only,) = listeners(HttpSection(names=NAMES, behind_proxy=True), "::1", 8080, tmp_path)
    assert (only.host, only.port) == ("::1", 8080)


def test_elsewhere_there_is_one_more_and_the_first_stays_on_loopback(tmp_path: Path) -> None:
    first, other = listeners(HttpSection(names=NAMES, behind_proxy=True), "0.0.0.0", 8080, tmp_path)
    assert (first.host, first.port, first.tls) == ("127.0.0.1", 0, None)
    assert (other.host, other.port, other.tls) == ("0.0.0.0", 8080, None)


def test_with_a_certificate_there_is_one_more_that_shows_it(tmp_path: Path) -> None:
    certificate(tmp_path)
    for host in ("127.0.0.1", "0.0.0.0"):
        first, other = listeners(tls(tmp_path), host, 8443, tmp_path)
        assert first.tls is None
        assert first.host == "127.0.0.1"
        assert (other.host, other.port) == (host, 8443)
        assert other.tls is not None


def test_what_config_lets_through_by_mistake_is_refused_here(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="encrypted"):
        listeners(HttpSection(), "0.0.0.0", 8080, tmp_path)


FAULTS = ["no key", "no certificate", "another's key", "no PEM", "a passphrase", "for all to read"]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_certificate_that_cannot_be_used_is_named(tmp_path: Path, fault: str) -> None:
    certificate(tmp_path, passphrase=b"secret" if fault == "a passphrase" else None)
    match fault:
        case "no key":
            (tmp_path / "k.pem").unlink()
        case "no certificate":
            (tmp_path / "c.pem").unlink()
        case "another's key":
            mine = (tmp_path / "c.pem").read_bytes()
            certificate(tmp_path)
            (tmp_path / "c.pem").write_bytes(mine)
        case "no PEM":
            (tmp_path / "c.pem").write_text("no certificate")
        case "for all to read":
            (tmp_path / "k.pem").chmod(0o644)
    with pytest.raises(ConfigInvalid, match="tls_"):
        listeners(tls(tmp_path), "0.0.0.0", 8443, tmp_path)

"""
A certificate authority of the tests: servers and clients whom nobody else trusts.

It refuses to sign anything that is good for longer than a day.
"""

import ipaddress
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID


class Authority:
    """
    A root certificate in a directory, and what it signs.

    Attributes:
        ca_file: the root's certificate, PEM.

    """

    def __init__(self, directory: Path) -> None:
        """Make the root."""
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named("authority of the tests")
        self._root = self._sign(self._name, self._key.public_key(), authority=True)
        self.ca_file = directory / "ca.pem"
        self.ca_file.write_bytes(self._root.public_bytes(serialization.Encoding.PEM))

    def certificate(self, name: str) -> tuple[Path, Path]:
        """Return the files of a certificate for ``name`` (and for this machine) and of its key."""
        files = self._directory / f"{name}.pem", self._directory / f"{name}.key"
        if not files[0].exists():
            key = ec.generate_private_key(ec.SECP256R1())
            made = self._sign(_named(name), key.public_key(), dns=name)
            shape = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
            files[1].touch(0o600)
            files[1].write_bytes(key.private_bytes(*shape))
            files[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
        return files

    def listening(self, name: str = "localhost") -> ssl.SSLContext:
        """Return how a server called ``name`` listens: who has a certificate of ours may show it."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=self.ca_file)
        context.load_cert_chain(*self.certificate(name))
        context.verify_mode = ssl.CERT_OPTIONAL
        return context

    def trusting(self) -> ssl.SSLContext:
        """Return how a client connects that trusts nobody else."""
        return ssl.create_default_context(cafile=self.ca_file)

    def _sign(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, *, dns: str = "", authority: bool = False
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(self._name).public_key(key)
        builder = builder.serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(hours=23))
        builder = builder.add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        own = x509.SubjectKeyIdentifier.from_public_key(key)
        above = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = builder.add_extension(own, critical=False).add_extension(above, critical=False)
        usage = x509.KeyUsage(
            digital_signature=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=authority,
            crl_sign=authority,
            encipher_only=False,
            decipher_only=False,
        )
        builder = builder.add_extension(usage, critical=True)
        if dns:
            here = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(dns), here]), critical=False)
            both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
            builder = builder.add_extension(x509.ExtendedKeyUsage(both), critical=False)
        return builder.sign(self._key, hashes.SHA256())


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])

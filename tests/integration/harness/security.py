"""Certificates and tokens, right and wrong ones, and a daemon that takes them. Made here, with another library than the daemon's."""
import base64
import contextlib
import datetime
import json
import os
import time

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, hmac, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from .client import Client

ISSUER = "https://issuer.example.org"
AUDIENCE = "virtplane"
DAY = datetime.timedelta(days=1)


def pem(key):
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


class Authority:
    """A CA in memory."""

    def __init__(self, name="test CA"):
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.datetime.utcnow()
        self.certificate = (x509.CertificateBuilder().subject_name(self.name).issuer_name(self.name).public_key(self.key.public_key())
                            .serial_number(x509.random_serial_number()).not_valid_before(now - DAY).not_valid_after(now + 30 * DAY)
                            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True).sign(self.key, hashes.SHA256()))
        self.pem = self.certificate.public_bytes(serialization.Encoding.PEM)

    def issue(self, common_name, names=(), server=False, start=-DAY, end=DAY, self_signed=False):
        """(certificate, key) as PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.utcnow()
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else [])
        builder = (x509.CertificateBuilder().subject_name(subject).issuer_name(subject if self_signed else self.name).public_key(key.public_key())
                   .serial_number(x509.random_serial_number()).not_valid_before(now + start).not_valid_after(now + end)
                   .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
                   .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False))
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(list(names)), critical=False)
        certificate = builder.sign(key if self_signed else self.key, hashes.SHA256())
        return certificate.public_bytes(serialization.Encoding.PEM), pem(key)

    def crl(self, withdrawn=(), end=DAY):
        """The list of withdrawn certificates (PEM of each) as PEM."""
        now = datetime.datetime.utcnow()
        builder = x509.CertificateRevocationListBuilder().issuer_name(self.name).last_update(now - DAY).next_update(now + end)
        for certificate in withdrawn:
            serial = x509.load_pem_x509_certificate(certificate).serial_number
            builder = builder.add_revoked_certificate(x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now).build())
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def integer(value):
    return b64(value.to_bytes((value.bit_length() + 7) // 8, "big"))


class Issuer:
    """Signs tokens."""

    def __init__(self):
        self.keys = {"RS256": rsa.generate_private_key(65537, 2048), "ES256": ec.generate_private_key(ec.SECP256R1()),
                     "EdDSA": ed25519.Ed25519PrivateKey.generate()}

    def jwk(self, algorithm):
        public = self.keys[algorithm].public_key()
        if algorithm == "RS256":
            numbers = public.public_numbers()
            made = {"kty": "RSA", "n": integer(numbers.n), "e": integer(numbers.e)}
        elif algorithm == "ES256":
            numbers = public.public_numbers()
            made = {"kty": "EC", "crv": "P-256", "x": b64(numbers.x.to_bytes(32, "big")), "y": b64(numbers.y.to_bytes(32, "big"))}
        else:
            raw = public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
            made = {"kty": "OKP", "crv": "Ed25519", "x": b64(raw)}
        return dict(made, kid=algorithm, use="sig", alg=algorithm)

    def jwks(self):
        return json.dumps({"keys": [self.jwk(algorithm) for algorithm in self.keys]})

    def sign(self, algorithm, data):
        key = self.keys.get(algorithm)
        if algorithm == "RS256":
            return key.sign(data, padding.PKCS1v15(), hashes.SHA256())
        if algorithm == "ES256":
            r, s = utils.decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA256())))
            return r.to_bytes(32, "big") + s.to_bytes(32, "big")
        if algorithm == "EdDSA":
            return key.sign(data)
        if algorithm == "HS256":  # with the public key as the secret, as the attack goes
            public = self.keys["RS256"].public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
            made = hmac.HMAC(public, hashes.SHA256())
            made.update(data)
            return made.finalize()
        return b""

    def token(self, subject, algorithm="ES256", header=None, **claims):
        """A token; a claim that is None is left out."""
        head = {"alg": algorithm, "typ": "JWT", "kid": algorithm, **(header or {})}
        body = {"iss": ISSUER, "aud": AUDIENCE, "sub": subject, "exp": int(time.time()) + 300, **claims}
        data = b64(json.dumps(head).encode()) + "." + b64(json.dumps({key: value for key, value in body.items() if value is not None}).encode())
        return data + "." + b64(self.sign(algorithm, data.encode()))


def with_token(client, token):
    """Metadata for a call."""
    return (("authorization", "Bearer " + token),)


class Secured:
    """A daemon with TLS, tokens and a policy. Files can be changed while it runs."""

    def __init__(self, make_daemon, policy, tokens=True, crl=True, config=""):
        self.authority = Authority()
        self.issuer = Issuer()
        self.daemon = daemon = make_daemon()
        self.withdrawn = []
        certificate, key = self.authority.issue("server", [x509.DNSName("localhost")], server=True)
        self.write("server.crt", certificate)
        self.write("server.key", key)
        self.write("ca.crt", self.authority.pem)
        self.write("ca.crl", self.authority.crl())
        self.write("jwks.json", self.issuer.jwks())
        self.write("policy.yaml", policy)
        path = daemon.path
        daemon.config = f"[tls]\ncertificate={path('server.crt')}\nkey={path('server.key')}\nca={path('ca.crt')}\n"
        daemon.config += f"crl={path('ca.crl')}\n" if crl else ""
        daemon.config += f"[auth]\npolicy={path('policy.yaml')}\n"
        daemon.config += f"[tokens]\njwks={path('jwks.json')}\nissuer={ISSUER}\naudience={AUDIENCE}\ngroups=groups\n" if tokens else ""
        daemon.config += config
        daemon.listen = [daemon.address, "localhost:0"]
        daemon.start()
        self.address = "localhost:" + daemon.ready_line.rsplit(":", 1)[1].split()[0]
        self.clients = []

    def write(self, name, content):
        """Puts a file in the place of the old one, as tools do."""
        path = self.daemon.path(name)
        with open(path + ".new", "wb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(content.encode() if isinstance(content, str) else content)
        os.rename(path + ".new", path)

    def withdraw(self, certificate):
        self.withdrawn.append(certificate)
        self.write("ca.crl", self.authority.crl(self.withdrawn))

    def client(self, pair=(None, None), ca=None):
        """A client with (certificate, key); without: one that shows none."""
        credentials = grpc.ssl_channel_credentials(ca or self.authority.pem, pair[1], pair[0])
        client = Client(self.address, credentials=credentials)
        self.daemon.clients.append(client)
        return client

    def alice(self, name="alice", **options):
        return self.client(self.authority.issue(name, **options))


@contextlib.contextmanager
def as_user(uid, gid):
    """The process is another user for a while; only root can."""
    os.setgroups([])
    os.setegid(gid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


def connect_as(daemon, uid, gid=61000):
    """A client that the kernel takes for that user's."""
    client = daemon.client()
    with as_user(uid, gid):
        grpc.channel_ready_future(client.channel).result(timeout=60)
    return client


def write_policy(daemon, text):
    """Puts policy.yaml in the place of the old one, as tools do."""
    path = daemon.path("policy.yaml")
    with open(path + ".new", "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(text)
    os.rename(path + ".new", path)

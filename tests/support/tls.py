"""A TLS proxy for a plain server, with its own certificate authority."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.support.servers import RedisServer


@contextmanager
def tls_proxy(server: RedisServer, home: Path, *, strict: bool = False) -> Iterator[int]:
    """A TLS proxy for ``server``; yields its port. The authority's certificate is ``home/ca.pem``.

    A ``strict`` proxy asks clients for a certificate; the server's own (``home/server.pem``) is accepted.
    """
    write_certificates(home)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(home / "server.pem", home / "server.key")
    if strict:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(home / "ca.pem")
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=_relay, args=(listener.accept()[0], context, server.port), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    with closing(listener):
        yield listener.getsockname()[1]


def _relay(raw: socket.socket, context: ssl.SSLContext, port: int) -> None:
    with (
        suppress(OSError),
        context.wrap_socket(raw, server_side=True) as outside,
        socket.create_connection(("127.0.0.1", port)) as inside,
    ):
        threading.Thread(target=_pump, args=(inside, outside), daemon=True).start()
        _pump(outside, inside)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_RDWR)


def write_certificates(home: Path) -> None:
    """Write the certificates of an authority and of a server on 127.0.0.1, and the server's key, to ``home``."""
    from ipaddress import ip_address

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    now, keys = datetime.now(UTC), [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)]) for text in ("authority", "server")]
    for owner in (0, 1):
        builder = x509.CertificateBuilder().subject_name(names[owner]).issuer_name(names[0])
        builder = builder.public_key(keys[owner].public_key()).serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        builder = builder.add_extension(x509.BasicConstraints(ca=owner == 0, path_length=None), critical=True)
        builder = builder.add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
        )
        certificate = builder.sign(keys[0], hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        (home / ("ca.pem", "server.pem")[owner]).write_bytes(certificate)
    form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (home / "server.key").write_bytes(keys[1].private_bytes(serialization.Encoding.PEM, *form))

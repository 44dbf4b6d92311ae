"""The S3 proxy forwards complete requests only, so that it adds no fault that S3 could not have."""

from __future__ import annotations

import socket
import uuid

import pytest

from generator.store import open_store
from tests.faults.s3_proxy import S3Proxy
from tests.support.servers import S3Server

BODY = b"0123456789"
PLAIN = [b"Content-Length: 10", b"x-amz-checksum-crc32: poTDJg=="]
CHUNKED = [b"x-amz-checksum-crc32: poTDJg==", b"Transfer-Encoding: chunked"]
CHUNKS = b"4\r\n0123\r\n6\r\n456789\r\n0\r\n\r\n"


@pytest.mark.parametrize(("headers", "body"), [(PLAIN, BODY), (PLAIN[::-1], BODY), (CHUNKED, CHUNKS)])
def test_half_a_request_stores_nothing(unsigned_s3: S3Server, headers: list[bytes], body: bytes) -> None:
    bucket = f"halves-{uuid.uuid4().hex}"
    store = open_store(unsigned_s3.make_bucket(bucket), unsigned_s3.settings)
    request = b"\r\n".join([f"PUT /{bucket}/key HTTP/1.1".encode(), b"Host: somewhere", *headers, b"", body])
    with S3Proxy(unsigned_s3.port) as proxy:
        for end in range(len(request)):
            assert not sent(proxy.port, request[:end]).startswith(b"HTTP/1.1 2")
            assert list(store.list()) == [], request[:end]
        assert sent(proxy.port, request).startswith(b"HTTP/1.1 200")
    assert store.get("key") == BODY


def sent(port: int, data: bytes) -> bytes:
    """The response to ``data``, sent without anything after it."""
    with socket.create_connection(("127.0.0.1", port), timeout=30.0) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while part := connection.recv(65536):
            answer += part
        return answer

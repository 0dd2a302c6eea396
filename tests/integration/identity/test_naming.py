"""Asking a domain for a name over real TLS: what it says counts only if it says it plainly and in time."""

import asyncio
import datetime
import ipaddress
import socket
import ssl
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver
from aiohttp.test_utils import TestServer
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from relays.key import Key
from relays.naming import guarded_session, is_named, look_up
from relays.nip05 import names_document

BOB = Key.generate().pubkey
DOMAIN = "names.example.com"


class Here(AbstractResolver):
    """Every name is this machine."""

    async def resolve(self, host, port=0, family=socket.AF_INET):
        return [{"hostname": host, "host": "127.0.0.1", "port": port, "family": family, "proto": 0, "flags": 0}]

    async def close(self):
        return None


def certificate(folder):
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, DOMAIN)])
    names = x509.SubjectAlternativeName([x509.DNSName(DOMAIN), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(names, critical=False)
        .sign(key, hashes.SHA256())
    )
    path = folder / "pem"
    plain, pkcs8 = serialization.NoEncryption(), serialization.PrivateFormat.PKCS8
    pem = made.public_bytes(serialization.Encoding.PEM)
    path.write_bytes(pem + key.private_bytes(serialization.Encoding.PEM, pkcs8, plain))
    return path


@asynccontextmanager
async def domain(folder, answer):
    """A server of names, and a session that trusts it and finds it at its name. Yields (address, session)."""
    app = web.Application()
    app.router.add_get("/.well-known/nostr.json", answer)
    app.router.add_get("/elsewhere", elsewhere)
    path = certificate(folder)
    here = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    here.load_cert_chain(path)
    there = ssl.create_default_context(cafile=path)
    server = TestServer(app, scheme="https")
    await server.start_server(ssl=here)
    try:
        connector = aiohttp.TCPConnector(ssl=there, resolver=Here())
        async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:
            yield f"bob@{DOMAIN}:{server.port}", session
    finally:
        await server.close()


async def ours(request):
    return web.Response(body=names_document({"bob": BOB}, request.query.get("name"), ["wss://one.example.com"]))


async def test_a_domain_names_a_key_and_where_it_is_found(tmp_path):
    async with domain(tmp_path, ours) as (address, session):
        found = await look_up(address.upper(), session)
        assert (found.pubkey, found.relays) == (BOB, ("wss://one.example.com",))
        assert await is_named(address, BOB, session)
        assert not await is_named(address, Key.generate().pubkey, session)
        assert await look_up(address.replace("bob", "eve"), session) is None


async def elsewhere(request):
    return web.Response(body=names_document({"bob": BOB}, "bob"))


async def redirecting(request):
    raise web.HTTPFound("/elsewhere")


async def long(request):
    return web.Response(body=names_document({"bob": BOB}, "bob") + b" " * 200_000)


async def failing(request):
    return web.Response(status=500, body=names_document({"bob": BOB}, "bob"))


async def cutting(request):
    request.transport.abort()
    return web.Response()


@pytest.mark.parametrize("answer", [redirecting, long, failing, cutting], ids=lambda one: one.__name__)
async def test_what_is_not_said_plainly_names_nobody(tmp_path, answer):
    async with domain(tmp_path, answer) as (address, session):
        assert await look_up(address, session, 5) is None


async def test_a_name_cannot_lead_into_our_own_network():
    """The domain's owner says that it is at 127.0.0.1: nobody even connects there."""
    connected = []
    server = await asyncio.start_server(lambda reader, writer: connected.append(writer.close()), "127.0.0.1", 0)
    address = f"bob@inside.example.com:{server.sockets[0].getsockname()[1]}"
    async with server, guarded_session() as session, aiohttp.ClientSession() as trusting:
        for one, connections in ((session, 0), (trusting, 1)):
            one.connector._resolver = Here()
            assert await look_up(address, one, 2) is None
            assert len(connected) == connections

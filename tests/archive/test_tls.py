"""Certificates are verified; a private authority is added by archive.ca_file, and nothing else helps."""

from __future__ import annotations

import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiohttp import web
from fakes.clock import Clock
from fakes.servers import asking, serving

from mirror.errors import ExitCode, Refused, SettingsError


@dataclass(frozen=True)
class Certificate:
    """A self-signed certificate and its key, both PEM files."""

    file: Path
    context: ssl.SSLContext


def make_certificate(folder: Path, names: str) -> Certificate:
    """A new one, valid for these names, by openssl."""
    folder.mkdir()
    file, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-keyout", str(key), "-out", str(file), "-days", "2", "-subj", "/CN=archive", "-addext",
            f"subjectAltName={names}",
        ],
        check=True,
        capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file, key)
    return Certificate(file, context)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls") / "right", "IP:127.0.0.1,DNS:localhost")


@pytest.fixture(scope="module")
def of_another_host(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls") / "wrong", "DNS:elsewhere.example")


class Answers:
    """A server that counts what it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        self.asked += 1
        return web.Response(body=b'[{"Collection":"A"}]')


@pytest.mark.asyncio
async def test_a_certificate_that_nobody_vouches_for_is_refused_and_the_remedy_named(certificate: Certificate):
    answers, clock = Answers(), Clock()
    async with (
        serving(answers, context=certificate.context) as origin,
        asking(origin, token="tok-3f9a77", clock=clock) as client,
    ):
        with pytest.raises(Refused, match=r"TLS: .*certificate verify failed.*archive\.ca_file") as caught:
            await client.get_collection_values()
    assert (answers.asked, clock.slept) == (0, []), "nothing is sent, and asking again would not help"
    assert caught.value.exit_code is ExitCode.UNREACHABLE
    assert "tok-3f9a77" not in str(caught.value)


@pytest.mark.asyncio
async def test_a_certificate_of_an_authority_that_was_added_is_accepted(certificate: Certificate):
    answers = Answers()
    async with (
        serving(answers, context=certificate.context) as origin,
        asking(origin, ca_file=str(certificate.file)) as client,
    ):
        assert await client.get_collection_values() == ["A"]
        assert origin.startswith("https://")
    assert answers.asked == 1


@pytest.mark.asyncio
async def test_a_certificate_of_another_host_is_refused_whoever_vouches(of_another_host: Certificate):
    answers = Answers()
    async with (
        serving(answers, context=of_another_host.context) as origin,
        asking(origin, ca_file=str(of_another_host.file)) as client,
    ):
        with pytest.raises(Refused, match=r"TLS: .*not valid for '127\.0\.0\.1'"):
            await client.get_collection_values()
    assert answers.asked == 0


@pytest.mark.asyncio
async def test_a_plain_server_is_no_tls_server():
    answers = Answers()
    async with serving(answers) as origin, asking(origin.replace("http:", "https:"), clock=Clock()) as client:
        with pytest.raises(Refused, match="TLS: "):
            await client.get_collection_values()
    assert answers.asked == 0


@pytest.mark.asyncio
async def test_a_file_of_authorities_that_is_none_is_a_setting_that_is_wrong(tmp_path: Path):
    missing, text = tmp_path / "absent.pem", tmp_path / "text.pem"
    text.write_text("no certificate")
    for file in (missing, text, tmp_path):
        with pytest.raises(SettingsError, match=rf"archive\.ca_file: {file}: "):
            async with asking("https://127.0.0.1:1", ca_file=str(file)):
                raise AssertionError("it was to be refused")

"""HTTP for the client: how a session is made, and what aiohttp's errors mean. The one door of aiohttp here."""

from __future__ import annotations

import ssl
from importlib.metadata import version
from urllib.request import getproxies

import aiohttp
from aiohttp.helpers import netrc_from_env

from mirror.archive.dialects import Server
from mirror.errors import BadAnswer, BodyCut, Refused, SettingsError, Stalled, Unreachable
from mirror.settings import ArchiveSettings

#: Bytes of a body that wait in memory before its connection is told to pause; twice this at most.
_BUFFER = 256 * 1024
USER_AGENT = f"tcia-mirror/{version('tcia-mirror')} (+https://github.com/tcia-mirror/tcia-mirror)"


def open_session(settings: ArchiveSettings) -> aiohttp.ClientSession:
    """A connection pool by the settings; proxies by the environment. Raises SettingsError for an unusable ca_file.

    The environment is looked at once: where it names no proxy and there is no .netrc, aiohttp need not look for either
    before every request, which takes a thread and costs more than the request.
    """
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=settings.connections, ssl=_tls(settings.ca_file)),
        timeout=aiohttp.ClientTimeout(
            # Exchange keeps request_timeout: a timer for each request costs more than a look at the clock.
            total=None,
            sock_connect=settings.connect_timeout,
            sock_read=settings.progress_timeout,
        ),
        headers={"User-Agent": USER_AGENT, "Accept": "*/*"},
        trust_env=_environment_matters(),
        # Large bodies come with fewer pauses.
        read_bufsize=_BUFFER,
    )


def _environment_matters() -> bool:
    """Whether the environment names a proxy, or a .netrc with a password for some host."""
    return bool({"http", "https"} & getproxies().keys()) or netrc_from_env() is not None


class mapped:  # noqa: N801 - reads as a statement
    """aiohttp's errors as ours, to the most specific, cause kept."""

    def __init__(self, asked: str, server: Server) -> None:
        self._asked = asked
        self._server = server

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if error is None:
            return  # every object of a mirror passes here
        asked = self._asked
        if isinstance(error, aiohttp.ClientPayloadError):
            raise BodyCut(f"the body was cut: {error}", asked=asked) from error
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            raise Unreachable("no connection in time (archive.connect_timeout)", asked=asked) from error
        if isinstance(error, aiohttp.ServerTimeoutError | TimeoutError):
            raise Stalled("no byte came for too long (archive.progress_timeout)", asked=asked) from error
        if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientConnectorSSLError):
            raise Refused(f"TLS: {error}; a private authority is added by archive.ca_file", asked=asked) from error
        if isinstance(error, aiohttp.ClientResponseError):
            # Not as the cause: it shows the request's headers, the token among them.
            redirects = isinstance(error, aiohttp.TooManyRedirects)
            said = "too many redirects" if redirects else f"not HTTP as it should be: {error}"
            raise BadAnswer(said, asked=asked) from None
        if isinstance(error, aiohttp.RedirectClientError):
            raise BadAnswer("a redirect to what is no URL", asked=asked) from error
        if isinstance(error, aiohttp.InvalidURL | ValueError):
            # The server's URL has been looked at before; what is left is the proxy's, and its password is not repeated.
            raise SettingsError(
                "the proxy of the environment (HTTP_PROXY, HTTPS_PROXY) is not a usable URL such as http://host:port,"
                f" or {self._server.base!r} is none"
            ) from None
        if isinstance(error, aiohttp.ClientConnectionError | OSError):
            raise Unreachable(f"no connection: {error or type(error).__name__}", asked=asked) from error
        if isinstance(error, aiohttp.ClientError):
            raise BadAnswer(f"HTTP failed: {error}", asked=asked) from error


def _tls(ca_file: str) -> ssl.SSLContext | bool:
    """What verifies servers. True is aiohttp's own context, which it makes once; reading authorities takes a while."""
    if not ca_file:
        return True
    context = ssl.create_default_context()
    try:
        context.load_verify_locations(cafile=ca_file)
    except OSError as error:
        raise SettingsError(f"archive.ca_file: {ca_file}: {error}") from error
    return context


def length_of(response: aiohttp.ClientResponse) -> int | None:
    """The body's length where the server tells it: that of an encoded body is not the file's."""
    encoded = response.headers.get("Content-Encoding", "identity") != "identity"
    return None if encoded else response.content_length

"""nginx (Debian: nginx) over a synthetic archive: every answer is a file, found by the arguments of the query."""

from __future__ import annotations

import http.client
import os
import re
import resource
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.archive import PREFIX, Archive

_CONFIG = """
daemon off; master_process on; worker_processes 2; worker_rlimit_nofile {files};
pid {run}/pid; error_log {run}/error.log warn;
{user}
events {{ worker_connections 8192; }}
http {{
  access_log off; default_type application/json; server_tokens off;
  client_body_temp_path {run}/t1; proxy_temp_path {run}/t2; fastcgi_temp_path {run}/t3;
  uwsgi_temp_path {run}/t4; scgi_temp_path {run}/t5;
  sendfile on; tcp_nopush on; tcp_nodelay on; keepalive_timeout 600s; keepalive_requests 10000000;
  # No more of them than there may be open files, beside the connections.
  open_file_cache max={cached} inactive=600s; open_file_cache_valid 600s;
  # The most specific argument says which answer is meant.
  map $arg_SeriesInstanceUID $key {{ "" $key_study; default $arg_SeriesInstanceUID; }}
  map $arg_StudyInstanceUID $key_study {{ "" $key_patient; default $arg_StudyInstanceUID; }}
  map $arg_PatientID $key_patient {{ "" $key_collection; default $arg_PatientID; }}
  map $arg_Collection $key_collection {{ "" all; default $arg_Collection; }}
  server {{
    listen {host}:{port} reuseport backlog=4096;
    root {root};
    location = /status {{ stub_status; }}
    # The versions before v4, which some tools ask, answer the same here.
    location ~ ^/nbia-api/services/v[12]/(.*)$ {{ rewrite ^/nbia-api/services/v[12]/(.*)$ {nbia}$1 last; }}
    location = {prefix}getSingleImage {{
      default_type application/dicom;
      try_files /o/$arg_SeriesInstanceUID/$arg_SOPInstanceUID.dcm =500;
    }}
    location ~ ^{prefix}getImage(WithMD5Hash)?$ {{
      default_type application/octet-stream;
      try_files /z/$arg_SeriesInstanceUID.zip =400;
    }}
    location = {prefix}getMD5HashForImage {{
      default_type text/plain; try_files /a/getMD5HashForImage/$arg_SOPInstanceUID /empty;
    }}
    location ~ ^{prefix}(?<call>\\w+)$ {{ try_files /a/$call/$key /empty; }}
    location / {{ return 404; }}
  }}
}}
"""


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: its origin, and how to ask it from here what it counted."""

    origin: str
    _inside: tuple[str, ...]

    def requests(self) -> int:
        """Requests answered so far, but for those that asked this."""
        if self._inside:
            url = f"{self.origin}/status"
            body = subprocess.run([*self._inside, "curl", "-s", url], stdout=subprocess.PIPE, check=True).stdout
        else:
            connection = http.client.HTTPConnection(self.origin.removeprefix("http://"), timeout=30)
            connection.request("GET", "/status")
            body = connection.getresponse().read()
            connection.close()
        found = re.search(rb"^\s*\d+\s+\d+\s+(\d+)", body, re.MULTILINE)
        assert found is not None, body
        _ASKED[self.origin] = _ASKED.get(self.origin, 0) + 1
        return int(found[1]) - _ASKED[self.origin]


#: How often each server was asked for its count: such a request counts itself.
_ASKED: dict[str, int] = {}


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


@contextmanager
def nginx(
    archive: Archive, run: Path, *, host: str = "127.0.0.1", port: int = 0, inside: Sequence[str] = ()
) -> Iterator[Server]:
    """nginx over `archive`, with its files in the folder `run`. `inside`: the command's head, into a namespace."""
    port = port or free_port()
    binary = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if binary is None:
        raise SystemExit("nginx is not there; see benchmarks/setup.sh")
    run.mkdir(parents=True)
    config = run / "nginx.conf"
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    files = 400_000 if files == resource.RLIM_INFINITY else files
    config.write_text(
        _CONFIG.format(
            run=run,
            files=files,
            cached=min(200_000, files // 2),
            root=archive.root,
            host=host,
            port=port,
            prefix=PREFIX[archive.dialect],
            nbia=PREFIX["nbia"],
            user="user root;" if os.geteuid() == 0 else "",
        )
    )
    process = subprocess.Popen([*inside, binary, "-c", str(config), "-e", str(run / "error.log")])
    try:
        _wait_for(run, process)
        yield Server(f"http://{host}:{port}", tuple(inside))
    finally:
        process.terminate()
        process.wait()


def _wait_for(run: Path, process: subprocess.Popen[bytes]) -> None:
    """Until nginx listens: it writes its pid when it does."""
    for _ in range(500):
        if process.poll() is not None:
            raise SystemExit(f"nginx ended with status {process.returncode}: {(run / 'error.log').read_text()}")
        if (run / "pid").is_file() and (run / "pid").read_text().strip():
            return
        time.sleep(0.02)
    raise SystemExit("nginx does not listen")

"""Serves the page and the gauges to this machine alone: two addresses, reading only."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

from brats_fl.errors import RunError

HOST: Final = "127.0.0.1"
NAMES: Final = (HOST, "localhost")

Answer = tuple[str, str]
"""Content type and text."""


@contextmanager
def serving(port: int, pages: Mapping[str, Callable[[], Answer]]) -> Iterator[int]:
    """Serve while the block runs; the port.

    Args:
        port: On loopback; 0 for any that is free.
        pages: Path -> what it is answered with.

    Raises:
        RunError: The port cannot be opened.
    """
    try:
        server = ThreadingHTTPServer((HOST, port), _handler(pages))
    except OSError as error:
        raise RunError(f"port {port} cannot be opened ({error.strerror}); give another with --port, or 0") from error
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.2}, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(pages: Mapping[str, Callable[[], Answer]]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        server_version = "brats-fl"
        sys_version = ""

        def do_GET(self) -> None:
            page = pages.get(self.path.partition("?")[0])
            if not self._is_asked_by_name():
                self.send_error(HTTPStatus.FORBIDDEN)
            elif page is None:
                self.send_error(HTTPStatus.NOT_FOUND)
            else:
                self._send(*page())

        do_HEAD = do_GET  # noqa: N815 - http.server's name

        def _is_asked_by_name(self) -> bool:
            """Whether the browser means this machine: a page of elsewhere may have its own name point here."""
            return self.headers.get("Host", "").rpartition(":")[0] in NAMES

        def _send(self, kind: str, text: str) -> None:
            body = text.encode()
            self.send_response(HTTPStatus.OK)
            for name, value in (
                ("Content-Type", kind),
                ("Content-Length", str(len(body))),
                ("Cache-Control", "no-store"),
                ("X-Content-Type-Options", "nosniff"),
                ("X-Frame-Options", "DENY"),
                ("Cross-Origin-Resource-Policy", "same-origin"),
            ):
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: the terminal shows the run."""

    return Handler

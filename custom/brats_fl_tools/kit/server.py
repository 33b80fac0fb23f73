"""The way from a kit to its server: name, port, TLS. Nothing here logs in to FLARE.

FLARE takes a second login of a site for an intruder and shuts the site out for good, so that looking must not look like
logging in: here a TLS handshake is made with the kit's certificate and closed again.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
from collections.abc import Mapping

from cryptography import x509

from brats_fl_tools.kit.certificates import subject
from brats_fl_tools.kit.kits import Kit
from brats_fl_tools.kit.results import CheckResult, fail, passed, warn

LIMIT_SECONDS = 5.0
"""A server on the other side of the world answers within a second; a firewall that drops packets never does."""

PROXY_VARIABLES = ("grpc_proxy", "https_proxy", "http_proxy")
"""In the order in which gRPC looks at them; lower case only."""


def check_server(kit: Kit, environ: Mapping[str, str] = os.environ) -> list[CheckResult]:
    """Name, port and TLS of the server, as far as each can be reached; for a server, whether its port is free."""
    if kit.kind == "server":
        return [check_port_free(kit.port)]
    name = check_name(kit)
    results = [name, *check_proxy(kit.host, environ)]
    return results if name.state == "error" else [*results, *check_connection(kit)]


def check_port_free(port: int) -> CheckResult:
    """Nobody else listens on the server's port."""
    for family, everywhere in ((socket.AF_INET, ""), (socket.AF_INET6, "::")):
        if error := _open_port(family, everywhere, port):
            mend = f"ss -ltnp 'sport = {port}' tells who has it; end that, or take another port"
            if error.errno == errno.EACCES:
                mend = "ports below 1024 are root's: take one from 1024 on (kit provision --port, poc prepare --port)"
            return fail("port", f"port {port} cannot be opened ({error.strerror})", mend)
    return passed("port", f"{port} is free")


def _open_port(family: socket.AddressFamily, address: str, port: int) -> OSError | None:
    """What keeps a server from listening on a port; None where nothing does, or the machine has no such addresses."""
    try:
        listener = socket.socket(family)
    except OSError:
        return None
    with listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            listener.bind((address, port))
            listener.listen(1)  # two may bind a port with SO_REUSEADDR, one may listen
        except OSError as error:
            return None if error.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL) else error
    return None


def check_name(kit: Kit) -> CheckResult:
    """The server's name has an address."""
    try:
        found = socket.getaddrinfo(kit.host, kit.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        text = f"{kit.host} has no address here ({error})"
        return fail("server name", text, "ask the network team for a DNS entry, or add a line to /etc/hosts")
    return passed("server name", f"{kit.host} is {found[0][4][0]}")


def is_direct(host: str, environ: Mapping[str, str]) -> bool:
    """Whether gRPC leaves the proxy out for a server: ``no_grpc_proxy``, else ``no_proxy``, has an end of its name."""
    listed = environ.get("no_grpc_proxy") or environ.get("no_proxy") or ""
    return any(host.lower().endswith(part.strip().lower()) for part in listed.split(",") if part.strip())


def check_proxy(host: str, environ: Mapping[str, str]) -> list[CheckResult]:
    """A warning where the environment sends FLARE's connection through a proxy, which these checks do not use."""
    if is_direct(host, environ):
        return []
    for variable in PROXY_VARIABLES:
        if environ.get(variable):
            text = f"{variable} is set, FLARE will go through it; the checks below go directly"
            return [warn("proxy", text, f"unset {variable} before start.sh, or name the server in no_proxy")]
    return []


def without_proxy(host: str, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """``no_proxy`` with a server on this machine in it: the way to it leads through no proxy, whatever the site has."""
    names = [name for name in ("no_proxy", "no_grpc_proxy") if name == "no_proxy" or environ.get(name)]
    return {name: ",".join(part for part in (environ.get(name, ""), host) if part) for name in names}


def check_connection(kit: Kit) -> list[CheckResult]:
    """The server's port answers and presents a certificate of the kit's authority with the right name."""
    try:
        context = tls_context(kit)
    except OSError as error:  # ssl.SSLError is one
        return [fail("TLS", f"the kit's own certificate cannot be used ({error})", "ask the lead for this kit again")]
    place = f"{kit.host}:{kit.port}"
    try:
        plain = socket.create_connection((kit.host, kit.port), timeout=LIMIT_SECONDS)
    except OSError as error:
        mend = f"start the server, or let the firewall pass outgoing TCP to {place}"
        return [fail("server port", f"{place} does not answer ({error})", mend)]
    with plain:
        return [passed("server port", f"{place} answers"), shake_hands(kit, context, plain)]


def tls_context(kit: Kit) -> ssl.SSLContext:
    """TLS as FLARE uses it: the kit's authority alone is trusted, the kit's certificate is shown.

    Raises:
        OSError: A file is missing, or certificate and key do not belong together.
    """
    context = ssl.create_default_context(cafile=str(kit.authority))
    context.load_cert_chain(str(kit.certificate), str(kit.private_key))
    context.set_alpn_protocols(["h2"])
    return context


def shake_hands(kit: Kit, context: ssl.SSLContext, plain: socket.socket) -> CheckResult:
    """The outcome of a TLS handshake over a connection; the connection is closed."""
    place = f"{kit.host}:{kit.port}"
    try:
        with context.wrap_socket(plain, server_hostname=kit.host) as secure:
            certificate = secure.getpeercert(binary_form=True) or b""
            wait_for_refusal(secure)
    except ssl.SSLCertVerificationError as error:
        return fail("TLS", f"{place} shows a certificate that does not do: {error.verify_message}", mend_of(error))
    except ssl.SSLError as error:
        mend = "the server was provisioned apart from this kit, or the kit has expired; ask the lead for a new one"
        return fail("TLS", f"{place} refuses this kit's certificate, or speaks no TLS ({error.reason})", mend)
    except OSError as error:
        return fail("TLS", f"{place} broke off the handshake ({error})", "another program answers on this port")
    name = subject(x509.load_der_x509_certificate(certificate))
    return passed("TLS", f"{name} shows a certificate of this kit's authority for {kit.host}")


def wait_for_refusal(secure: ssl.SSLSocket) -> None:
    """Read a byte: in TLS 1.3 a server refuses a client's certificate only after the client's handshake is done.

    Raises:
        ssl.SSLError: It does.
    """
    try:
        # FLARE's server speaks first (HTTP/2 settings); another may wait, which is no refusal.
        secure.recv(1)
    except TimeoutError:
        return


def mend_of(error: ssl.SSLCertVerificationError) -> str:
    """What to do about a server's certificate that does not do."""
    if "mismatch" in error.verify_message:
        return "the lead provisions the server with the name that the sites use (kit provision --host)"
    if "expired" in error.verify_message or "not yet valid" in error.verify_message:
        return "set this machine's clock; if it is right, the lead renews the server's kit"
    return "a firewall opens TLS (ask for an exception), or server and kit are of different provisionings"

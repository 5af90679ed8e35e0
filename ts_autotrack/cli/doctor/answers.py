"""The meaning of the answer to a request, or of a request without an answer, as a finding."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ts_autotrack._core.delivery.answers import Action, action_for, words
from ts_autotrack._core.redaction import mask_url
from ts_autotrack.cli.doctor.findings import Finding
from ts_autotrack.cli.doctor.request import TEST_EVENT

if TYPE_CHECKING:
    from ts_autotrack.cli.doctor.findings import Level
    from ts_autotrack.cli.doctor.request import Answer


def answer_finding(url: str, answer: Answer, took: float) -> Finding:
    """Return the finding about an answer that took some seconds; status 0 stands for no answer."""
    if not answer.response.status:
        return _failure(url, words(answer.response))
    level, meaning, do = _meaning(answer)
    sent = "the test event" if answer.sent else "a request without events"
    seen = f"{mask_url(url)} answered {answer.response.status} to {sent} in {took:.2f} s: {meaning}"
    return Finding("endpoint", level, seen, do.format_map(answer.names))


def _meaning(answer: Answer) -> tuple[Level, str, str]:
    """Return level, meaning and advice."""
    action = action_for(answer.response)
    if answer.location:
        where = mask_url(answer.location)
        return "error", f"a redirect to {where}, which is not followed: it would carry the key elsewhere", _REDIRECTED
    if action == "acknowledge":
        return "ok", f"the event has arrived, user {TEST_EVENT}" if answer.sent else "requests are accepted", ""
    text = words(answer.response).partition(": ")[2] or "no text"
    if action == "split" and not answer.sent:
        return "ok", f"the server is reached and did not refuse the credentials; to no events it says: {text}", _TRY
    level, advice = _ANSWERS[action]
    return level, text, advice


def _failure(url: str, text: str) -> Finding:
    """Return the finding about a request without an answer."""
    found = next((failure for failure in _FAILURES if failure.mark in text.lower()), None)
    if found is None:
        do = "Check the address, and any proxy or firewall on the way."
        return Finding("endpoint", "error", f"no answer from {mask_url(url)}: {text}", do)
    at_proxy = found.is_connection and "(through " in text
    place = "the proxy" if at_proxy else mask_url(url)
    do = "Check the proxy, or add the endpoint's host to NO_PROXY." if at_proxy else found.do
    return Finding("endpoint", "error", f"no answer from {place}: {found.meaning} ({text})", do)


_TRY = "ts-autotrack doctor --send makes sure, with one test event."
_REDIRECTED = "Check {endpoint}: it names the server's base URL, with its final host and https."
_ANSWERS: dict[Action, tuple[Level, str]] = {
    "retry": ("error", "The server is in trouble. Events wait and are tried again; run this command again later."),
    "wait": ("warning", "The server limits the rate. Events wait and are tried again."),
    "unauthorized": ("error", "Check {credentials}: the key may be wrong, expired, or of another environment."),
    "forbidden": ("error", "Check {credentials}, and any firewall on the way."),
    "misconfigured": (
        "error",
        "The answer is not {server}. Check {endpoint}, any proxy, and any login page on the way.",
    ),
    "split": ("error", "The server refuses the test event; its text names the reason."),
}
"""Level and advice for each action but "acknowledge"."""


class Failure(NamedTuple):
    """A reason for a missing answer.

    Attributes:
        mark: Part of the failure's text, in lower case.
        meaning: The reason in plain words.
        do: Advice.
        is_connection: True if the first host on the way is at fault, which may be a proxy.
    """

    mark: str
    meaning: str
    do: str
    is_connection: bool = False


_TRUST = "Set SSL_CERT_FILE to a file with the certificate authority of your company or proxy, in PEM form."
_UNTRUSTED = "its certificate comes from an authority that is not trusted here"
_NO_TLS = "Use http:// for a plain server, or check the port and any proxy."
_DNS = "Check the host in the address, and DNS on this machine."
_LISTEN = "Start the server, or check host and port."
_ROUTE = "Check firewall and network, and whether a proxy is needed (HTTPS_PROXY)."
_FAILURES = (
    Failure("self-signed certificate", _UNTRUSTED, _TRUST),
    Failure("self signed certificate", _UNTRUSTED, _TRUST),
    Failure("unable to get local issuer", _UNTRUSTED, _TRUST),
    Failure("certificate has expired", "its certificate has expired", "Check this machine's date; tell the operator."),
    Failure("not yet valid", "its certificate is not valid yet", "Check this machine's date: it may be in the past."),
    Failure("hostname mismatch", "its certificate is for another host", "Check the host in the address."),
    Failure("ip address mismatch", "its certificate is for another host", "Use the host's name in the address."),
    Failure("certificate_verify_failed", "its certificate is not valid", _TRUST),
    Failure("wrong_version_number", "it does not speak TLS", _NO_TLS),
    Failure("record layer failure", "it does not speak TLS", _NO_TLS),
    Failure("proxyerror: 407", "the proxy asks for a password", "Put user and password into the proxy's URL."),
    Failure("proxyerror", "the proxy refuses the connection", "Check the proxy, or add the host to NO_PROXY."),
    Failure("name or service not known", "the host is unknown", _DNS, is_connection=True),
    Failure("nodename nor servname", "the host is unknown", _DNS, is_connection=True),
    Failure("no address associated", "the host is unknown", _DNS, is_connection=True),
    Failure("temporary failure in name", "the name server does not answer", _DNS, is_connection=True),
    Failure("connection refused", "nothing listens there", _LISTEN, is_connection=True),
    Failure("unreachable", "there is no route to it", _ROUTE, is_connection=True),
    Failure("connecttimeout", "the connection took too long", _ROUTE, is_connection=True),
    Failure("timed out", "the answer took too long", _ROUTE),
    Failure("timeout", "the answer took too long", _ROUTE),
)
"""Reasons, the most telling first; the first mark found counts."""

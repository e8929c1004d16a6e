"""What is asked for a new receiver, checked: all that is wrong in one answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

from ..errors import InvalidArguments, Issue
from ..nearest import wrong_choice
from ..outside.addresses import HostAllowance, is_link_local, is_private_literal
from .model import RUN_EVENTS, NotificationKind

_MAX_URL_CHARS = 2048
_MAX_NAME_CHARS = 200


def check_new(
    kind: str,
    *,
    url: str | None,
    secret: str | None,
    events: Sequence[str],
    name: str | None,
    allowance: HostAllowance,
) -> None:
    """Raises InvalidArguments. No issue shows the URL: it may hold a secret."""
    issues: list[Issue] = []
    if kind not in tuple(NotificationKind):
        issues.append(wrong_choice("/kind", kind, tuple(NotificationKind)))
    elif kind == NotificationKind.WEBHOOK:
        issues += _url_issues(url, allowance)
    else:
        issues += _slack_issues(url, secret)
    if not events:
        issues.append(Issue(path="/events", code="out_of_range", message="Name at least one event.", got=[]))
    issues += [
        wrong_choice(f"/events/{index}", event, RUN_EVENTS)
        for index, event in enumerate(events)
        if event not in RUN_EVENTS
    ]
    if name is not None and not 1 <= len(name) <= _MAX_NAME_CHARS:
        message = f"A name has 1 to {_MAX_NAME_CHARS} characters."
        issues.append(Issue(path="/name", code="out_of_range", message=message))
    if issues:
        raise wrong(*issues)


def _slack_issues(url: str | None, secret: str | None) -> Iterator[Issue]:
    needed = "the name of a secret in the settings whose value is the URL of an incoming webhook"
    if url is not None:
        message = f"Slack takes no url, but {needed}: whoever has that URL can post."
        yield Issue(path="/url", code="invalid_value", message=message)
    if secret is None:
        yield Issue(path="/secret", code="missing_argument", message=f"Slack needs {needed}.")


def _url_issues(url: str | None, allowance: HostAllowance) -> Iterator[Issue]:
    if url is None:
        yield Issue(path="/url", code="missing_argument", message="A webhook needs the url of its receiver.")
        return
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        parts, host, port = urlsplit(""), "", 0
    if parts.scheme not in ("http", "https") or not host or len(url) > _MAX_URL_CHARS or not url.isprintable():
        message = f"An absolute http or https URL of at most {_MAX_URL_CHARS} characters is expected."
        yield Issue(path="/url", code="invalid_value", message=message)
    elif "@" in parts.netloc:
        message = "A URL without user name and password is expected; messages are signed."
        yield Issue(path="/url", code="invalid_value", message=message)
    elif is_private_literal(host) and not allowance.allows(host, port):
        shown = f"[{host}]" if ":" in host else host
        if is_link_local(host):
            message = f"{shown} is a link-local address, where clouds keep credentials and no receiver is."
        else:
            message = (
                f"{shown} is not a public address; if messages may go there, add {shown}:{port} to allow_hosts in the "
                "settings (CONTEXTEN_FLOW_ALLOW_HOSTS)."
            )
        yield Issue(
            path="/url",
            code="private_address",
            message=message,
            expected="a public host, or one that the settings allow",
            got=shown,
        )


def wrong(*issues: Issue) -> InvalidArguments:
    """The error of arguments with those issues."""
    return InvalidArguments(" ".join(issue.message for issue in issues), issues=issues)

"""A tiny application: exporting a report is a feature, an invitation a custom event."""

from __future__ import annotations

from ts_autotrack import track, track_feature, user_context

REPORTS = {7: "Revenue"}


@track_feature("report_export", capture=["file_format"])
def export_report(number: int, file_format: str = "pdf") -> str:
    """Return the report as a file."""
    return f"{REPORTS[number]}.{file_format}"


def post_export(user: str, account: str, number: int) -> int:
    """Handle `POST /reports/<number>/export`; return the status."""
    with user_context(user, group_id=account):
        try:
            export_report(number)
        except KeyError:
            return 404
        return 200


def post_invitation(user: str, role: str) -> int:
    """Handle `POST /invitations`; return the status."""
    track("invite_sent", {"role": role}, user_id=user)
    return 201

"""What an administrator can allow our integration user, and what Salesforce says without it."""

from __future__ import annotations

from dataclasses import dataclass

from user_sync_pipeline.sandbox.salesforce.errors import usual_error


@dataclass(slots=True)
class Permissions:
    """All granted, until a test takes one away."""

    api_for_org: bool = True
    """The edition has API access."""
    api_for_user: bool = True
    """API Enabled."""
    setup: bool = True
    """View Setup and Configuration, which limits want."""
    bulk: bool = True
    """Bulk queries."""
    active: bool = True
    """The user is active; without it there is no sign-in and every session has ended."""

    def require_api(self) -> None:
        """Raise `ApiError` when the user may not call the API at all."""
        if not self.api_for_org:
            raise usual_error("API_DISABLED_FOR_ORG")
        if not self.api_for_user:
            raise usual_error("API_CURRENTLY_DISABLED")

    def require_setup(self) -> None:
        """Raise `ApiError` when the user may not see the limits."""
        if not self.setup:
            raise usual_error("INSUFFICIENT_ACCESS")

    def require_bulk(self) -> None:
        """Raise `ApiError` when the user may not create bulk jobs."""
        if not self.bulk:
            raise usual_error("INSUFFICIENT_ACCESS")

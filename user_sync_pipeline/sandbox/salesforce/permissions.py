"""What an administrator can allow our integration user, and what Salesforce says without it."""

from __future__ import annotations

from dataclasses import dataclass

from user_sync_pipeline.sandbox.salesforce.errors import usual_error


@dataclass(slots=True)
class Permissions:
    """All that reading takes, and nothing more, until a test changes it."""

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
    view_all_users: bool = True
    """View All Users; that others stay hidden without it is for `Org.hidden_users` to say."""
    own_rights: bool = True
    """The user may read its own permissions."""
    modify_all_data: bool = False
    """Modify All Data, with all that it brings; nothing here takes a write for that."""
    manage_users: bool = False
    """Manage Users, which UserLogin wants."""

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

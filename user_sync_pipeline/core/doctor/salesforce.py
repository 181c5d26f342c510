"""Salesforce: whether we may sign in and read, and whether we may do more than that.

What belongs here: looks that only read. What does not: requests; each is one that `core/salesforce` allows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from sqlalchemy import Engine

from user_sync_pipeline.core.doctor.checks import Finding, Look, clock_finding, not_configured, now, ok, warning
from user_sync_pipeline.core.errors import ConfigurationError, UserSyncError
from user_sync_pipeline.core.login_flows import ClientCredentials, GivenToken
from user_sync_pipeline.core.salesforce.rest import RestUserService
from user_sync_pipeline.core.salesforce.rights import CHANGING, AccountRights
from user_sync_pipeline.core.settings import SalesforceSettings
from user_sync_pipeline.core.warehouse.database import database_errors
from user_sync_pipeline.core.warehouse.ledger import refuse_other_organisation

EXTERNAL_ID = "External_ID__c"
# Less than this part of the organisation's requests left for us: the next large run may pause.
SMALL_SHARE = 0.1


@dataclass
class SalesforceLooks:
    """`warehouse` holds the ledger; None where there is no database."""

    settings: SalesforceSettings
    service: RestUserService
    warehouse: Engine | None

    def looks(self) -> Sequence[Look]:
        """Return what to look at, in an order in which each needs those before it."""
        return (
            Look("sign-in", self.sign_in, needed=True),
            Look("clock", self.clock),
            Look("organisation", self.organisation),
            Look("fields", self.fields),
            Look(EXTERNAL_ID, self.external_id),
            Look("nothing but reading", self.reading),
            Look("all users", self.all_users),
            Look("frozen users", self.frozen_users),
            Look("API requests", self.api_requests),
        )

    def sign_in(self) -> Finding:
        """Sign in, and ask for the organisation."""
        login = self.settings.login
        _ = self.service.org_id
        if isinstance(login, GivenToken):
            mend = "Set SALESFORCE_CLIENT_ID and SALESFORCE_CLIENT_SECRET instead of the token."
            return warning("by a given token, which ends with its session", mend)
        return ok("by client credentials" if isinstance(login, ClientCredentials) else "by a signed token (JWT bearer)")

    def clock(self) -> Finding:
        """Compare Salesforce's clock, which is cut to the second, with this machine's."""
        before = now()
        return clock_finding(self.service.server_time(), before, now())

    def organisation(self) -> Finding:
        """Compare the organisation with the one in the ledger."""
        org_id = self.service.org_id
        if self.warehouse is None:
            return ok(f"{org_id}, not compared, because there is no database")
        try:
            with database_errors(), self.warehouse.connect() as connection:
                refuse_other_organisation(connection, org_id)
        except UserSyncError as error:
            if isinstance(error, ConfigurationError) and error.__cause__ is None:
                raise
            return warning(f"{org_id}, not compared with the database", "Mend what the area database shows.")
        return ok(f"{org_id}, as in the database")

    def fields(self) -> Finding:
        """Name the fields that are hidden from us."""
        hidden = [name for name in self.service.selected_fields().hidden if name != EXTERNAL_ID]
        if hidden:
            mend = "Grant the integration user read access to them (field-level security), if they are to be stored."
            return warning(f"hidden or not there: {', '.join(hidden)}", mend)
        return ok(f"{len(self.service.selected_fields().soql_names)} are read")

    def external_id(self) -> Finding:
        """Tell whether the field that links people is there."""
        if EXTERNAL_ID in self.service.selected_fields().hidden:
            mend = (
                f"Create User.{EXTERNAL_ID} or grant read access to it, if it holds the ids of auth users; "
                "people are linked by verified e-mail meanwhile."
            )
            return warning("hidden or not there", mend)
        return ok("visible")

    def reading(self) -> Finding:
        """Tell whether the account could change what is only read here."""
        granted = self._rights.granted
        if granted is None:
            mend = "Look in Setup that no permission set of the integration user lets it change anything."
            return warning("Salesforce does not show the permissions of the integration user", mend)
        too_much = [name for name in CHANGING if name in granted]
        if too_much:
            mend = "Take these permissions from the integration user; reading needs none of them."
            return warning(f"the integration user holds {', '.join(too_much)}", mend)
        return ok("no permission to change users, data or setup")

    def all_users(self) -> Finding:
        """Compare the users whom we see with the licences in use, of which each active user takes at most one."""
        rights = self._rights
        mend = "Grant the integration user View All Users."
        if rights.licences_in_use is not None and (rights.active_users or 0) < rights.licences_in_use:
            seen = (
                f"{rights.active_users or 0:,} active users are visible, but {rights.licences_in_use:,} licences in use"
            )
            return warning(seen, mend)
        if rights.granted is not None and "ViewAllUsers" not in rights.granted:
            return warning("View All Users is not granted, so sharing may hide users", mend)
        if rights.licences_in_use is None:
            return ok("not compared with the licences in use, which Salesforce does not show to this account")
        return ok(f"{rights.active_users or 0:,} active users are visible, {rights.licences_in_use:,} licences in use")

    def frozen_users(self) -> Finding:
        """Tell how many active users are frozen, where that can be seen."""
        frozen = self._rights.frozen_users
        if frozen is None:
            return not_configured("unknown: UserLogin takes Manage Users, with which users could be changed as well")
        return ok(f"{frozen:,}, stored as active like all others")

    def api_requests(self) -> Finding:
        """Tell how much is left of the requests of 24 hours."""
        usage, left = self.service.usage, self.service.calls_left
        if left is None or not usage.limit:
            return ok("Salesforce does not tell how many are left")
        detail = f"{left:,} of {usage.limit:,} for 24 hours are left beside the reserve"
        if left < usage.limit * SMALL_SHARE:
            mend = "Wait, let other programs ask less, or set a smaller SALESFORCE_API_RESERVE_PERCENT."
            return warning(detail, mend)
        return ok(detail)

    @cached_property
    def _rights(self) -> AccountRights:
        return self.service.account_rights()

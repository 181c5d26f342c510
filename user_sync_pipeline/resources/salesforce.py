"""Salesforce as a resource."""

from typing import TYPE_CHECKING

import dagster as dg
from pydantic import PrivateAttr

from user_sync_pipeline.core.settings import SalesforceSettings
from user_sync_pipeline.resources.failures import errors_as_failures

if TYPE_CHECKING:
    from user_sync_pipeline.core.salesforce.rest import RestUserService


class SalesforceResource(dg.ConfigurableResource[None]):
    """The Salesforce organisation of the `SALESFORCE_*` settings, read and never written."""

    _users: "RestUserService" = PrivateAttr()

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Read the settings; signing in waits for the first question."""
        # Its SOAP library alone takes longer to import than all definitions.
        from user_sync_pipeline.core.salesforce.rest import RestUserService

        with errors_as_failures(context):
            self._users = RestUserService(SalesforceSettings.from_environment())

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """Close the connections of the run."""
        self._users.close()

    @property
    def users(self) -> "RestUserService":
        """The service that reads Salesforce users; it counts the API calls of the whole run."""
        return self._users

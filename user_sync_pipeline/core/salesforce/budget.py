"""How many API requests a run may make, and how many of the organisation's are left to others.

What belongs here: the two bounds, and the sentence when one is reached. What does not: counting (`usage.py`), and
Salesforce's own limit, which it enforces itself (`errors.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

from user_sync_pipeline.core.errors import PausedError
from user_sync_pipeline.core.salesforce.usage import ApiUsage
from user_sync_pipeline.core.settings import SalesforceSettings


@dataclass(frozen=True, slots=True)
class ApiBudget:
    """The bounds for everything that one `ApiUsage` counts; without arguments there are none.

    `per_run` is in requests; `reserve_percent` is the part of the organisation's requests of 24 hours that stays free.
    With a reserve of 0 it is for Salesforce to say when there are no more: some organisations may go beyond.
    """

    per_run: int | None = None
    reserve_percent: int = 0

    @classmethod
    def from_settings(cls, settings: SalesforceSettings) -> ApiBudget:
        """Return the bounds that are set."""
        return cls(settings.api_budget_per_run, settings.api_reserve_percent)

    def available(self, usage: ApiUsage) -> int | None:
        """Return how many requests of the organisation the reserve leaves; None while Salesforce has not told."""
        if usage.used is None or not usage.limit:
            return None
        return max(0, usage.limit - usage.limit * self.reserve_percent // 100 - usage.used)

    def spend(self, usage: ApiUsage) -> None:
        """Count a request that is about to be sent; raises `PausedError` in place of one that is too many.

        Threads that share `usage` never spend more than the budget of the run together. What the organisation has
        used is known from the last answer, so before the first one nothing is held back.
        """
        if self.reserve_percent and self.available(usage) == 0:
            raise PausedError(
                f"The Salesforce organisation has used {usage.used:,} of its {usage.limit:,} API requests for "
                f"24 hours, and SALESFORCE_API_RESERVE_PERCENT leaves {self.reserve_percent} % of them to others; "
                "what was stored is safe, run again to go on from there when more are free or give a smaller reserve."
            )
        if not usage.count_call(at_most=self.per_run):
            raise PausedError(
                f"This run has made the {self.per_run:,} API requests that SALESFORCE_API_BUDGET_PER_RUN allows; "
                "what was stored is safe, run again to go on from there or give a larger budget."
            )


NO_BUDGET = ApiBudget()

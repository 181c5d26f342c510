"""What nobody says for certain of Salesforce, as switches; each stands on what is most likely.

What belongs here: the switches, and where to find those that have their place at the thing itself:

    org.cursors.rules            how long a cursor lives, and how many may be open
    org.cursors.consistency      what the pages behind the first one show
    org.quota.header             the form of `Sforce-Limit-Info`, or that there is none
    org.quota.header_on_errors   whether refusals carry it
    org.largest_page             pages that hold fewer records than were asked for
    org.empty_last_page          a page without records behind the last one
    org.most_updated_ids         how many ids one `updated` may name
    org.jobs.settings            Bulk 2.0: times, outcomes, pages, counts, headers and spellings
    org.permissions              what the integration user may do

What does not: what befalls single requests (`faults.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

TOKEN_FIELDS = frozenset(
    {"access_token", "signature", "scope", "instance_url", "id", "token_type", "issued_at"}
)  # fmt: skip
MORE_TOKEN_FIELDS = frozenset({"api_instance_url", "expires_in"})
NEEDED_TOKEN_FIELDS = frozenset({"access_token", "instance_url"})


class Wording(Enum):
    """The texts of refusals whose wording is known from hearsay only."""

    USUAL = auto()
    EMPTY = auto()
    OTHER = auto()


class CountRecords(Enum):
    """What stands at `records` in the answer to `SELECT COUNT()`."""

    EMPTY = auto()
    NULL = auto()
    ABSENT = auto()


@dataclass(frozen=True, slots=True)
class Quirks:
    """The switches of one organisation; turned by `Org.turn`."""

    token_fields: frozenset[str] = TOKEN_FIELDS
    """What the answer to client credentials holds; of `MORE_TOKEN_FIELDS` there may be more."""
    signed_token_fields: frozenset[str] = TOKEN_FIELDS - {"signature", "issued_at"}
    """What the answer to a signed assertion holds."""
    login_hosts: frozenset[str] = frozenset({"login.salesforce.com", "test.salesforce.com"})
    """Where client credentials are refused."""

    versions_in_object: bool = False
    """The list of versions is inside of an object."""
    odd_page_sizes_are_refused: bool = False
    """Page sizes outside of 200 to 2,000 are refused; else the nearest is taken."""
    status_of_long_addresses: int = 414
    """414 or 431."""
    wording: Wording = Wording.USUAL

    count_records: CountRecords = CountRecords.EMPTY
    fields_as_asked: bool = False
    """Records spell field names as the query does; else as describe does."""
    has_is_deleted: bool = False
    """User has the field IsDeleted, which is false."""
    offset_is_limited: bool = True
    """OFFSET beyond 2,000 is refused."""

    login_moves_stamp: bool = False
    """A login moves SystemModstamp."""
    freezing_moves_stamp: bool = False
    """Freezing a user does."""
    deactivation_moves_stamp: bool = True
    """A change of IsActive alone does."""
    new_ids_descend: bool = False
    """Each new user has an id before all others, as if made on another instance."""

    updated_cuts_seconds: bool = True
    """`updated` leaves off the seconds of its bounds."""
    coverage_stays_in_span: bool = False
    """`latestDateCovered` is never before the start that was asked for, whatever transaction is open."""

    bulk_moments_end_in_z: bool = True
    """Moments in Bulk results end in Z; else in +0000, as those of REST."""

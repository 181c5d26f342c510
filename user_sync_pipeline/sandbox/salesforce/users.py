"""The records of an organisation: users, each a thin shell around a person of the sandbox, and the table of them.

What belongs here: what a user's fields hold, and the order (SystemModstamp, Id). What does not: which fields
there are (`describe.py`), and queries (`evaluator.py`).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from msgspec import structs

from user_sync_pipeline.sandbox.salesforce.clock import wire_time
from user_sync_pipeline.sandbox.salesforce.ids import salesforce_id
from user_sync_pipeline.sandbox.sample_people import Address, Person

ORGANIZATION_PREFIX, USER_PREFIX, PROFILE_PREFIX, ROLE_PREFIX = "00D", "005", "00e", "00E"

# The parts of the compound field, and the fields that hold them.
_ADDRESS_FIELDS = {
    "street": "Street",
    "city": "City",
    "state": "State",
    "state_code": "StateCode",
    "postal_code": "PostalCode",
    "country": "Country",
    "country_code": "CountryCode",
    "latitude": "Latitude",
    "longitude": "Longitude",
    "geocode_accuracy": "GeocodeAccuracy",
}


class Record(Protocol):
    """What a query can find. `stamp` is SystemModstamp in wire form; `rendered` belongs to `records.py`.

    `changes` holds what was changed since, by field name and in wire form, and is replaced, never changed in place.
    """

    id: str
    stamp: str
    changes: dict[str, Any] | None
    rendered: tuple[object, bytes] | None


@dataclass(slots=True)
class Organization:
    """What a query on Organization finds, one record; a `Record`."""

    id: str
    stamp: str
    is_sandbox: bool
    name: str = "Invented Company"
    edition: str = "Enterprise Edition"
    changes: dict[str, Any] | None = None
    rendered: tuple[object, bytes] | None = None


class NamedRecord(NamedTuple):
    """A profile or a role: all that a user's parent fields show of it."""

    id: str
    name: str


def _named(prefix: str, names: Iterable[str]) -> dict[str, NamedRecord]:
    return {name: NamedRecord(salesforce_id(prefix, number), name) for number, name in enumerate(names)}


PROFILES = _named(
    PROFILE_PREFIX,
    (
        "Standard User", "System Administrator", "Partner Community User", "Customer Community User",
        "Guest User", "Automated Process",
    ),
)  # fmt: skip
ROLES = _named(ROLE_PREFIX, ("Sales", "Service", "Marketing", "Finance", "IT", "Human Resources"))
FIRST_USER_ID = salesforce_id(USER_PREFIX, 1)

_ADMINISTRATOR_TITLE = "Salesforce Administrator"
_PROFILE_OF_USER_TYPE = {
    "Standard": PROFILES["Standard User"].id,
    "PowerPartner": PROFILES["Partner Community User"].id,
    "CspLitePortal": PROFILES["Customer Community User"].id,
    "Guest": PROFILES["Guest User"].id,
    "AutomatedProcess": PROFILES["Automated Process"].id,
}
_ADMINISTRATOR_PROFILE = PROFILES["System Administrator"].id
_NO_ADDRESS = Address()


class User:
    """A person as Salesforce shows them; a `Record`."""

    __slots__ = ("changes", "id", "manager_id", "person", "rendered", "stamp")

    def __init__(self, user_id: str, person: Person, manager_id: str | None) -> None:
        self.id = user_id
        self.person = person
        self.manager_id = manager_id
        self.stamp = wire_time(person.system_modstamp)
        self.changes: dict[str, Any] | None = None
        self.rendered: tuple[object, bytes] | None = None

    @property
    def alias(self) -> str:
        """At most eight characters, not unique."""
        first, _, last = self.person.mailbox.partition(".")
        return f"{first[0]}{last}"[:8]

    @property
    def community_nickname(self) -> str:
        """Unique, at most 40 characters."""
        return f"{self.person.mailbox[:32]}{self.person.number}"

    @property
    def profile_id(self) -> str:
        """Every user has a profile, by user type and job."""
        if self.person.user_type == "Standard" and self.person.title == _ADMINISTRATOR_TITLE:
            return _ADMINISTRATOR_PROFILE
        return _PROFILE_OF_USER_TYPE[self.person.user_type]

    @property
    def role_id(self) -> str | None:
        """Only standard users have a role, the one of their department."""
        return ROLES[self.person.department].id if self.person.user_type == "Standard" else None

    @property
    def federation_identifier(self) -> str | None:
        """What single sign-on knows the user by."""
        return self.person.username if self.person.uses_single_sign_on else None

    @property
    def address(self) -> Address | None:
        """The compound field; None for a user without any address."""
        if not self.changes:
            return self.person.address
        changed = {part: self.changes[name] for part, name in _ADDRESS_FIELDS.items() if name in self.changes}
        return structs.replace(self.postal, **changed) if changed else self.person.address

    @property
    def postal(self) -> Address:
        """The parts of the address, all None for a user without one."""
        return self.person.address or _NO_ADDRESS

    @property
    def created_by_id(self) -> str:
        """The first user made all of them, and changed them last."""
        return FIRST_USER_ID

    @property
    def created_date(self) -> str:
        """In wire form, as the other moments below."""
        return wire_time(self.person.created)

    @property
    def last_modified_date(self) -> str:
        """The last change by a person, no later than SystemModstamp."""
        return wire_time(self.person.last_modified)

    @property
    def last_login_date(self) -> str | None:
        """None for those who never logged in."""
        moment = self.person.last_login
        return None if moment is None else wire_time(moment)

    @property
    def last_password_change_date(self) -> str | None:
        """None for those who never logged in."""
        moment = self.person.last_password_change
        return None if moment is None else wire_time(moment)

    @property
    def email_encoding(self) -> str:
        """One in fifty still has the old default."""
        return "UTF-8" if self.person.number % 50 else "ISO-8859-1"

    @property
    def start_date(self) -> str:
        """A custom date field: the day on which the user was made."""
        return self.person.created.date().isoformat()

    @property
    def cost_center(self) -> str:
        """A custom text field."""
        return f"CC-{self.person.department[:3].upper()}-{self.person.number % 40:03d}"

    @property
    def grade(self) -> float:
        """A custom number field, in half steps."""
        return 1 + (self.person.number % 9) / 2

    @property
    def failed_logins(self) -> int:
        """Small numbers, mostly nought."""
        return self.person.number % 50 // 48

    @property
    def is_deleted(self) -> bool:
        """Users are never deleted."""
        return False

    @property
    def photo_url(self) -> str:
        """A picture that nobody serves."""
        return f"https://files.example.com/profilephoto/{self.id[:15]}/F"


_stamp = attrgetter("stamp")
_sync_order = attrgetter("stamp", "id")
_Kept = TypeVar("_Kept", bound=Record)


class RecordTable(Generic[_Kept]):
    """All records of an object, in the order of (SystemModstamp, Id), and by id."""

    def __init__(self, records: Iterable[_Kept]) -> None:
        self.ordered = sorted(records, key=_sync_order)
        self._by_id = {record.id: record for record in self.ordered}

    def __len__(self) -> int:
        return len(self.ordered)

    def get(self, record_id: str | None) -> _Kept | None:
        """Return the record with this 18-character id."""
        return None if record_id is None else self._by_id.get(record_id)

    def first_at(self, stamp: str) -> int:
        """Return the position of the first record whose SystemModstamp is `stamp` or later."""
        return bisect_left(self.ordered, stamp, key=_stamp)

    def first_after(self, stamp: str) -> int:
        """Return the position of the first record whose SystemModstamp is later than `stamp`."""
        return bisect_right(self.ordered, stamp, key=_stamp)

    def add(self, record: _Kept) -> None:
        """Put a new record in its place; raises `ValueError` when the id is taken."""
        if record.id in self._by_id:
            raise ValueError(f"there is a record {record.id} already")
        self._by_id[record.id] = record
        insort(self.ordered, record, key=_sync_order)

    def move(self, record: _Kept, stamp: str) -> None:
        """Give a record a new SystemModstamp, and the place that goes with it."""
        del self.ordered[bisect_left(self.ordered, _sync_order(record), key=_sync_order)]
        record.stamp = stamp
        insort(self.ordered, record, key=_sync_order)


UserTable = RecordTable[User]

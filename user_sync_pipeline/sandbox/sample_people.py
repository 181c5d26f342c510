"""The people of the sandbox: one story that the Salesforce and the Supabase simulator both tell.

What belongs here: who they are, who may sign in, and in which proportions. What does not: ids of Salesforce,
rows of Supabase, and how either answers. The same count, seed and moment give the same people, and more people
begin with the same ones. Addresses end in example.com and example.org, telephone numbers have 555 in them.
"""

from __future__ import annotations

import random
from bisect import bisect
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import accumulate
from uuid import UUID

import msgspec

from user_sync_pipeline.sandbox.sample_pools import COUNTRIES, JOBS, Country, Place, pools

INACTIVE_SHARE = 0.12
ACTIVE_WITH_SIGN_IN_SHARE = 0.97
INACTIVE_WITH_SIGN_IN_SHARE = 0.03  # a finding: inactive in Salesforce, yet able to sign in
EXTERNAL_ID_SHARE = 0.80  # of those who can sign in; the others are linked by e-mail
SHARED_EMAIL_EVERY = 500  # each 500th person has the e-mail of the one before, and no sign-in
WITHOUT_ADDRESS_SHARE = 0.08
EMPTY_ADDRESS_SHARE = 0.03  # an address whose parts are all null
COORDINATES_SHARE = 0.40
SECOND_ADDRESS_LINE_SHARE = 0.20
WITHOUT_MANAGER_SHARE = 0.05
MOBILE_SHARE, FAX_SHARE, EXTENSION_SHARE = 0.70, 0.05, 0.30
SINGLE_SIGN_ON_SHARE = 0.50
NEVER_LOGGED_IN_SHARE = 0.10
AUTOMATED_CHANGE_SHARE = 0.15  # SystemModstamp later than the last change by a person
DATA_LOAD_SHARE = 0.02  # changed together, so that many share one SystemModstamp
USER_TYPES = {
    "Standard": 0.94, "PowerPartner": 0.03, "CspLitePortal": 0.02, "Guest": 0.005, "AutomatedProcess": 0.005,
}  # fmt: skip

HISTORY_DAYS = 3 * 365
QUIET_DAYS = 1  # nobody was created or changed so shortly before `until`
DATA_LOAD_DAYS = 40


class Address(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """A postal address; each part may be missing. As JSON it has the keys of Salesforce's compound field."""

    street: str | None = None
    city: str | None = None
    state: str | None = None
    state_code: str | None = None
    postal_code: str | None = None
    country: str | None = None
    country_code: str | None = None
    latitude: float | None = None
    longitude: float | None = None
    geocode_accuracy: str | None = None


class Person(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One person, as of `until`. `number` counts from 1; `manager` is the number of an earlier person.

    `mailbox` is unique and ASCII. Moments are whole seconds in UTC. `auth_user_id` is set for those who can
    sign in to the application.
    """

    number: int
    first_name: str
    last_name: str
    mailbox: str
    email: str
    is_active: bool
    user_type: str
    title: str
    department: str
    division: str
    company: str
    phone: str
    mobile_phone: str | None
    fax: str | None
    extension: str | None
    address: Address | None
    time_zone: str
    locale: str
    language: str
    manager: int | None
    uses_single_sign_on: bool
    created: datetime
    last_modified: datetime
    system_modstamp: datetime
    last_login: datetime | None
    last_password_change: datetime | None
    auth_user_id: UUID | None
    has_external_id: bool

    @property
    def name(self) -> str:
        """First and last name."""
        return f"{self.first_name} {self.last_name}"

    @property
    def username(self) -> str:
        """The unique name to log in to Salesforce with."""
        return f"{self.mailbox}@users.example.com"

    @property
    def employee_number(self) -> str:
        """The number on the staff card."""
        return f"E{self.number:07d}"

    @property
    def external_id(self) -> str | None:
        """What Salesforce holds in `External_ID__c`: the id of the auth user, or nothing."""
        return str(self.auth_user_id) if self.has_external_id else None


def people(count: int, *, seed: int, until: datetime) -> list[Person]:
    """Return `count` people, all created and last changed at least a day before `until` (aware)."""
    teller = _Storyteller(seed, until)
    return [teller.tell(number) for number in range(1, count + 1)]


_USER_TYPES = tuple(USER_TYPES)
_EMPTY_ADDRESS = Address()


_DAY = 86_400  # seconds


def _moment(second: int) -> datetime:
    return datetime.fromtimestamp(second, UTC)


class _Storyteller:
    """Tells one person after the other; each depends only on the seed, the moment and those before."""

    def __init__(self, seed: int, until: datetime) -> None:
        self._chance = random.Random(seed)  # noqa: S311
        # Moments are seconds since 1970 in here, which is much faster than reckoning with dates.
        self._until = int(until.timestamp())
        self._quiet_since = self._until - QUIET_DAYS * _DAY
        self._beginning = self._quiet_since - HISTORY_DAYS * _DAY
        self._data_load = self._until - DATA_LOAD_DAYS * _DAY
        self._pools = pools()
        self._countries = list(accumulate(country.weight for country in COUNTRIES))
        self._user_types = list(accumulate(USER_TYPES.values()))
        self._mailboxes: dict[str, int] = {}
        self._last_email = ""

    def tell(self, number: int) -> Person:
        draw = self._chance.random
        country, first_names, last_names, places, streets = self._pools[self._pick(self._countries)]
        first_name, first_ascii = first_names[int(draw() * len(first_names))]
        last_name, last_ascii = last_names[int(draw() * len(last_names))]
        place = places[int(draw() * len(places))]
        department, title = JOBS[int(draw() * len(JOBS))]
        mailbox = self._free_mailbox(f"{first_ascii}.{last_ascii}")
        is_active = draw() >= INACTIVE_SHARE
        shares_email = number % SHARED_EMAIL_EVERY == 0
        self._last_email = email = self._last_email if shares_email else f"{mailbox}@{country.domain}"
        signs_in = draw() < (ACTIVE_WITH_SIGN_IN_SHARE if is_active else INACTIVE_WITH_SIGN_IN_SHARE)
        auth_user_id = UUID(int=self._chance.getrandbits(128), version=4) if signs_in and not shares_email else None
        has_manager = number > 1 and draw() >= WITHOUT_MANAGER_SHARE
        has_logged_in = draw() >= NEVER_LOGGED_IN_SHARE
        created, last_modified, system_modstamp = self._history()
        return Person(
            number=number,
            first_name=first_name,
            last_name=last_name,
            mailbox=mailbox,
            email=email,
            is_active=is_active,
            user_type=_USER_TYPES[self._pick(self._user_types)],
            title=title,
            department=department,
            division=country.division,
            company=country.company,
            phone=self._telephone(country),
            mobile_phone=self._telephone(country) if draw() < MOBILE_SHARE else None,
            fax=self._telephone(country) if draw() < FAX_SHARE else None,
            extension=str(int(100 + draw() * 900)) if draw() < EXTENSION_SHARE else None,
            address=self._address(country, place, streets),
            time_zone=place.time_zone,
            locale=country.locale,
            language=country.language,
            manager=1 + int(draw() * min(number - 1, 1 + number // 8)) if has_manager else None,
            uses_single_sign_on=draw() < SINGLE_SIGN_ON_SHARE,
            created=_moment(created),
            last_modified=_moment(last_modified),
            system_modstamp=_moment(system_modstamp),
            last_login=_moment(self._between(created, self._until, 0.2)) if has_logged_in else None,
            last_password_change=_moment(self._between(created, last_modified, 0.5)) if has_logged_in else None,
            auth_user_id=auth_user_id,
            has_external_id=auth_user_id is not None and draw() < EXTERNAL_ID_SHARE,
        )

    def _pick(self, cumulative_weights: Sequence[float]) -> int:
        return bisect(cumulative_weights, self._chance.random(), 0, len(cumulative_weights) - 1)

    def _free_mailbox(self, wanted: str) -> str:
        times = self._mailboxes[wanted] = self._mailboxes.get(wanted, 0) + 1
        return wanted if times == 1 else f"{wanted}{times}"

    def _history(self) -> tuple[int, int, int]:
        """Return created, last modified and SystemModstamp, most of the changes in the last months."""
        created = self._between(self._beginning, self._quiet_since, 1)
        if self._chance.random() < DATA_LOAD_SHARE and created < self._data_load:
            return created, self._data_load, self._data_load
        modified = self._between(created, self._quiet_since, 0.3)
        if self._chance.random() < AUTOMATED_CHANGE_SHARE:
            return created, modified, self._between(modified, self._quiet_since, 1)
        return created, modified, modified

    def _between(self, first: int, last: int, power: float) -> int:
        """Draw a second; the smaller the power, the nearer to `last`."""
        return first + int((last - first) * self._chance.random() ** power)

    def _telephone(self, country: Country) -> str:
        return f"{country.dial} 555 {int(self._chance.random() * 1_000_000):06d}"

    def _address(self, country: Country, place: Place, streets: Sequence[str]) -> Address | None:
        draw = self._chance.random
        kind = draw()
        if kind < WITHOUT_ADDRESS_SHARE:
            return None
        if kind < WITHOUT_ADDRESS_SHARE + EMPTY_ADDRESS_SHARE:
            return _EMPTY_ADDRESS
        street = f"{1 + int(draw() * 200)} {streets[int(draw() * len(streets))]}"
        if draw() < SECOND_ADDRESS_LINE_SHARE:
            street += f"\r\n{country.second_line} {1 + int(draw() * 9)}"
        located = draw() < COORDINATES_SHARE
        return Address(
            street,
            place.city,
            place.state,
            place.state_code,
            place.postal_code,
            country.name,
            country.code,
            place.latitude if located else None,
            place.longitude if located else None,
            "Zip" if located else None,
        )

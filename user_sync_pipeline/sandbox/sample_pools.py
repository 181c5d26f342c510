"""What the sandbox's people are drawn from: countries, towns, streets, names and jobs.

What belongs here: the pools, small and the same for every seed. What does not: the people (`sample_people.py`).
Names, towns and streets come out of `mimesis`; which town lies where is made up.
"""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cache
from typing import NamedTuple


class Place(NamedTuple):
    """A town, with what depends on where it lies."""

    city: str
    state: str | None
    state_code: str | None
    postal_code: str
    latitude: float
    longitude: float
    time_zone: str


class Country(NamedTuple):
    """Where people live, and what is said there; names, cities and streets come out of `mimesis`."""

    name: str
    code: str
    mimesis_locale: str
    locale: str
    language: str
    dial: str
    division: str
    company: str
    domain: str
    weight: float
    centre: tuple[float, float]
    time_zones: Sequence[str]
    states: Sequence[tuple[str | None, str | None]]
    second_line: str


COUNTRIES = (
    Country(
        "United States", "US", "en", "en_US", "en_US", "+1", "Americas", "Northwind Example Inc.", "example.com",
        0.45, (39.5, -98.3), ("America/New_York", "America/Chicago", "America/Los_Angeles"),
        (("California", "CA"), ("Illinois", "IL"), ("New York", "NY"), ("Texas", "TX")), "Suite",
    ),
    Country(
        "United Kingdom", "GB", "en-gb", "en_GB", "en_US", "+44", "EMEA", "Fenwick & Daughters", "example.com",
        0.15, (52.5, -1.5), ("Europe/London",), ((None, None),), "Floor",
    ),
    Country(
        "France", "FR", "fr", "fr_FR", "fr", "+33", "EMEA", "Société de l'Écluse", "example.org",
        0.20, (46.6, 2.4), ("Europe/Paris",), ((None, None),), "Bâtiment",
    ),
    Country(
        "Germany", "DE", "de", "de_DE", "de", "+49", "EMEA", "Müller \"Nord\" GmbH", "example.org",
        0.20, (51.2, 10.4), ("Europe/Berlin",), (("Bayern", "BY"), ("Hessen", "HE"), ("Sachsen", "SN")), "Haus",
    ),
)  # fmt: skip

_TITLES = {
    "Sales": ("Account Executive", "Sales Director", "Sales Engineer"),
    "Service": ("Support Agent", "Service Manager", "Field Technician"),
    "Marketing": ("Campaign Manager", "Copywriter", "Head of Marketing"),
    "Finance": ("Controller", "Accountant", "CFO"),
    "IT": ("Salesforce Administrator", "Data Engineer", "Système & Réseau"),
    "Human Resources": ("Recruiter", "HR Business Partner", "Personalreferent:in"),
}
JOBS = tuple((department, title) for department, titles in _TITLES.items() for title in titles)

_NAMES, _CITIES, _STREETS = 300, 80, 120
_WITHOUT_DECOMPOSITION = str.maketrans({"ß": "ss", "ø": "o", "Ø": "O", "æ": "ae", "œ": "oe", "ł": "l", "Ł": "L"})


class Pools(NamedTuple):
    """What the people of one country are drawn from; names come with their ASCII spelling."""

    country: Country
    first_names: Sequence[tuple[str, str]]
    last_names: Sequence[tuple[str, str]]
    places: Sequence[Place]
    streets: Sequence[str]


@cache
def pools() -> tuple[Pools, ...]:
    """Return the pools of each of the `COUNTRIES`, in that order; made once."""
    return tuple(_make_pools(country) for country in COUNTRIES)


def _make_pools(country: Country) -> Pools:
    from mimesis import Address as AddressProvider
    from mimesis import Person as PersonProvider
    from mimesis.locales import Locale

    locale = Locale(country.mimesis_locale)
    names, places = PersonProvider(locale, seed=1), AddressProvider(locale, seed=1)
    chance = random.Random(country.code)  # noqa: S311
    latitude, longitude = country.centre
    return Pools(
        country,
        [(name, _ascii(name)) for name in _distinct(names.first_name() for _ in range(_NAMES))],
        [(name, _ascii(name)) for name in _distinct(names.last_name() for _ in range(_NAMES))],
        [
            Place(
                city,
                *chance.choice(country.states),
                places.postal_code(),
                round(latitude + chance.uniform(-3, 3), 6),
                round(longitude + chance.uniform(-3, 3), 6),
                chance.choice(country.time_zones),
            )
            for city in _distinct(places.city() for _ in range(_CITIES))
        ],
        _distinct(places.street_name() for _ in range(_STREETS)),
    )


def _distinct(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))


def _ascii(name: str) -> str:
    """Spell a name with the letters a to z, as its owner's mailbox does."""
    folded = unicodedata.normalize("NFKD", name.translate(_WITHOUT_DECOMPOSITION))
    return "".join(letter for letter in folded.lower() if letter.isascii() and letter.isalpha())

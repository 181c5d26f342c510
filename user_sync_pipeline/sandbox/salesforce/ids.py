"""Salesforce ids: 15 characters in base 62, and three more that tell upper case from lower.

Source: "ID Field Type" in the Object Reference; the order of digits is that of ASCII, so ids sort as they are made.
"""

from __future__ import annotations

import random
import string

_DIGITS = string.digits + string.ascii_uppercase + string.ascii_lowercase
_CHECK_CHARACTERS = string.ascii_uppercase + "012345"
_INSTANCE = "5g0"
_FIRST_NUMBER = 15_000_000  # so that ids look lived in: letters of both cases, and no leading "00000000"


def salesforce_id(prefix: str, number: int) -> str:
    """Return the 18-character id of the `number`th record of the object whose ids begin with `prefix`."""
    rest, digits = number + _FIRST_NUMBER, ""
    while rest:
        rest, digit = divmod(rest, 62)
        digits = _DIGITS[digit] + digits
    return with_check_characters(f"{prefix}{_INSTANCE}{digits:0>9}")


def org_id(seed: int | str) -> str:
    """Return the 18-character id of the organisation that `seed` stands for."""
    chance = random.Random(f"organisation {seed}")  # noqa: S311
    return with_check_characters(f"00D{_INSTANCE}000" + "".join(chance.choices(_DIGITS, k=6)))


def with_check_characters(short_id: str) -> str:
    """Return the 18-character form of a 15-character id."""
    groups = (short_id[start : start + 5] for start in (0, 5, 10))
    return short_id + "".join(
        _CHECK_CHARACTERS[sum(1 << place for place, letter in enumerate(group) if "A" <= letter <= "Z")]
        for group in groups
    )

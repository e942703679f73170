"""Telephone numbers."""

import phonenumbers

from content.failures import Text, invalid


def number(text: str) -> str:
    """E.164 of a telephone number, read as one of mainland China unless it begins with +. Raises `Invalid`."""
    try:
        parsed = phonenumbers.parse(text, "CN")
        if phonenumbers.is_valid_number(parsed):
            return phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164)
    except phonenumbers.NumberParseException:
        pass
    raise invalid(
        "phone",
        "bad_format",
        reason=Text("请填能接通的号码，例：138 0013 8000", "give a number that can be reached, e.g. 138 0013 8000"),
    )

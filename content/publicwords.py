"""Words that everyone will read: no telephone or identity number in them, and times as local dates.

`number_in` knows forms, not people. It would rather refuse a number that is nobody's than publish one that is.
"""

import re
import unicodedata
from calendar import monthrange
from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any

from content import checking
from content.failures import Text

LONGEST = 400  # days of a wanted time: a school year and its holidays
_SAID = str.maketrans("〇零一二三四五六七八九幺", "001234567891")
_DATE = re.compile(r"(?<!\d)(?:19|20)\d{2}[-./年]?(?:0?[1-9]|1[0-2])[-./月]?(?:[12]\d|3[01]|0?[1-9])(?!\d)")
_NUMBERS = (
    (Text("身份证号", "an identity number"), re.compile(r"(?<!\d)\d(?:[\s-]*\d){16}[\s-]*[\dXx](?![\dXx])")),
    (Text("手机号", "a telephone number"), re.compile(r"(?<!\d)1[\s.-]*[3-9](?:[\s.-]*\d){9}(?!\d)")),
    (Text("电话号码", "a telephone number"), re.compile(r"(?<!\d)0\d{2,3}[\s)-]*\d{3,4}[\s-]*\d{4}(?!\d)")),
    (Text("电子邮箱", "an e-mail address"), re.compile(r"[\w.+-]+@[\w-]+\.[\w.-]+")),
)
_LONG = (Text("一长串数字", "a long number"), re.compile(r"\d{7,}"))


def number_in(text: str) -> tuple[Text, str] | None:
    """(what it looks like, its first characters) of the first telephone or identity number, e-mail address or run of seven
    digits in a text; None without. Full-width digits and digits in Chinese words count, dates and short public numbers (12356)
    do not."""
    plain = "".join(c for c in unicodedata.normalize("NFKC", text) if unicodedata.category(c) != "Cf")
    for said in (plain, plain.translate(_SAID)):
        for what, form in (*_NUMBERS, _LONG):
            if found := form.search(said if form is not _LONG[1] else _DATE.sub(" ", said)):
                return what, found[0][:3]
    return None


class Check(checking.Check):
    """`checking.Check` for what everyone will read."""

    def public(self, field: str, value: Any, longest: int, required: bool = False) -> dict[str, str]:
        """{language tag: text}, none of them with a number of a person in it."""
        texts = self.texts(field, value, longest, required)
        for tag, text in texts.items():
            self.numberless(f"{field}.{tag}", text)
        return texts

    def numberless(self, field: str, text: str) -> None:
        """Notes an error for a number of a person in a text."""
        if found := number_in(text):
            self.fail(field, "personal_number", what=found[0], found=f"{found[1]}…")

    def days(self, values: Mapping[str, Any]) -> dict[str, str]:
        """{"first", "last"}: local dates, from `month` ("2027-05") or as given, one of them meaning both; empty for none."""
        first, last, month = (values.get(name) or "" for name in ("first", "last", "month"))
        if month and (first or last):
            self.fail("month", "bad_format", reason=Text("请只填 month，或只填 from 和 to", "give either month or from and to"))
        try:
            if month:
                opens = date.fromisoformat(f"{month}-01")
                days = opens, opens.replace(day=monthrange(opens.year, opens.month)[1])
            elif first or last:
                days = date.fromisoformat(str(first or last)), date.fromisoformat(str(last or first))
            else:
                return {"first": "", "last": ""}
        except ValueError:
            self.fail(
                "month" if month else "from", "bad_format", reason=Text("例：2027-05, 2027-05-15", "e.g. 2027-05, 2027-05-15")
            )
            return {"first": "", "last": ""}
        if not days[0] <= days[1] <= days[0] + timedelta(days=LONGEST) or not 2000 <= days[0].year <= 2200:
            self.fail(
                "to",
                "out_of_range",
                reason=Text(f"要在 from 之后，最多 {LONGEST} 天", f"not before from, and at most {LONGEST} days after it"),
            )
        return {"first": days[0].isoformat(), "last": days[1].isoformat()}

"""What stands on a lock screen: that there is something to read, and nothing of what. Whoever looks over a shoulder learns no
subject, and neither do the companies that carry a push. The text itself waits in the inbox.
"""

from collections.abc import Mapping

from content import languages

WORDS: Mapping[str, tuple[str, str]] = {
    "zh-Hans": ("心桥", "心桥有一条新消息"),
    "zh-Hant": ("心橋", "心橋有一則新訊息"),
    "mn-Cyrl": ("Xinqiao", "Xinqiao-д шинэ мэдээ ирлээ"),
    "en": ("Xinqiao", "A new message in Xinqiao"),
}
EMERGENCY: Mapping[str, tuple[str, str]] = {
    "zh-Hans": ("心桥", "有一条重要消息，请打开看看。想找人说说，可拨 12356。"),
    "en": ("Xinqiao", "An important message: please open it. To talk to someone, call 12356."),
}


def words(language: str, *, emergency: bool = False) -> tuple[str, str]:
    """(title, body) of every push in the nearest language there is. Only an emergency's says more: that it matters, and the
    national line. The traditional Mongolian script gets the Chinese words: lock screens cannot set it upright."""
    table = EMERGENCY if emergency else WORDS
    return table["zh-Hans" if language == "mn-Mong" else languages.pick(table, [language])]

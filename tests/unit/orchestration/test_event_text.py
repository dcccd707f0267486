"""Events are stored compressed, and what was stored is read for ever."""

import hashlib
import json

from dagster import AssetKey
from hypothesis import given
from hypothesis import strategies as st

from iiot_platform.orchestration import event_text
from iiot_platform.orchestration.event_text import packed, unpacked

_WORDS_SHA256 = "dd556ce8d89ff43a2b092cf789ac1fc9c5ffabf4e82b224f24b0de709c691076"
KEY = AssetKey(["line", "readings"])


@given(st.text(max_size=2_000).map(lambda text: json.dumps({"text": text}, ensure_ascii=False)))
def test_every_text_comes_back(text: str) -> None:
    assert unpacked(packed(text)) == text


def test_the_words_never_change() -> None:
    """Otherwise nothing that was stored before could be read."""
    assert hashlib.sha256(event_text._words()).hexdigest() == _WORDS_SHA256


def test_what_was_stored_once_is_read() -> None:
    assert unpacked("z1:tA>n=08JSMM1xuY") == '{"rows": ' + "1" * 300 + "}"
    assert unpacked('{"__class__": "EventLogEntry"}') == '{"__class__": "EventLogEntry"}'

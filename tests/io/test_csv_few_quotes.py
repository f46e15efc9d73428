"""Bytes with a few quotes are judged as those with many are, which go another way."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unistream.io import format_csv_rules as module
from unistream.io.format_csv_rules import CsvRules

FIELDS = 3
fields = st.sampled_from([b"", b"a", b'""', b'"a"', b'"a,b"', b'"a\nb"', b'"a""b"', b'"', b'a"b', b"a\r"])
rows = st.lists(st.lists(fields, min_size=2, max_size=4).map(b",".join), max_size=5).map(b"\n".join)


def judged(data: bytes, few: int) -> tuple[object, ...]:
    rules = CsvRules(",", '"', FIELDS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "FEW", few)
        end = rules.records_end(data)
        if not rules.well_quoted(data):
            return end, None
        ways = (True, False), (False, True), (False, False)
        return end, [rules.whole(data, False, count, *way) for count in range(6) for way in ways]


@settings(max_examples=1000, deadline=None)
@given(rows | st.text(',"\n\ra', max_size=20).map(str.encode), st.booleans())
def test_few_quotes_are_judged_as_many(data: bytes, ended: bool) -> None:
    data += b"\n" if ended else b""
    few = judged(data, 64)
    assert few == judged(data, -1) == judged(data, 1)
    if data.count(b'"') % 2:
        assert few[1] is None

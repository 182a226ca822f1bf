"""Constant databases: found again, byte for byte as recorded, and damage told."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openqmail.core.control import Cdb, CdbDamaged, make_cdb

RECORDS = st.lists(st.tuples(st.binary(max_size=12), st.binary(max_size=30)), max_size=60)


@settings(max_examples=150)
@given(RECORDS, st.binary(max_size=12))
def test_what_was_written_is_found(records: list[tuple[bytes, bytes]], other: bytes) -> None:
    cdb = Cdb(make_cdb(records))
    assert list(cdb.items()) == records
    for key in {key for key, _ in records} | {other}:
        assert list(cdb.get_all(key)) == [data for stored, data in records if stored == key]


def test_recorded_files_are_written_the_same(vectors: Path) -> None:
    files = sorted((vectors / "notqmail").rglob("*.cdb"))
    assert files
    for file in files:
        content = file.read_bytes()
        assert make_cdb(Cdb(content).items()) == content, file.name


@settings(max_examples=200)
@given(RECORDS, st.data())
def test_damage_is_told_and_never_runs_wild(records: list[tuple[bytes, bytes]], data: st.DataObject) -> None:
    content = bytearray(make_cdb(records))
    for _ in range(data.draw(st.integers(1, 20))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)))
    for damaged in (bytes(content), bytes(content[:cut])):
        try:
            cdb = Cdb(damaged)
            for key, _ in records:
                cdb.get(key)
        except CdbDamaged as error:
            assert "damaged" in str(error)


def test_a_text_file_is_no_database() -> None:
    with pytest.raises(CdbDamaged, match="users/cdb: damaged: it has 6 bytes"):
        Cdb(b"hello\n", "users/cdb")

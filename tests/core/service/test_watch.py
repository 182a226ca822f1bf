"""A new certificate is noticed, once, and when it is whole."""

from pathlib import Path

from openqmail.core.service.watch import EVERY, SETTLED, Watch


def replaced(folder: Path, content: bytes) -> None:
    (folder / "new").write_bytes(content)
    (folder / "new").rename(folder / "servercert.pem")


def test_one_that_stays_as_it_is_is_no_news(tmp_path: Path) -> None:
    replaced(tmp_path, b"one")
    watch = Watch(str(tmp_path), 0.0)
    assert not any(watch.changed(EVERY * turn) for turn in range(5))
    assert watch.wait(EVERY * 4) == EVERY


def test_a_new_one_is_told_once_when_it_has_settled(tmp_path: Path) -> None:
    replaced(tmp_path, b"one")
    watch = Watch(str(tmp_path), 0.0)
    replaced(tmp_path, b"another")
    assert not watch.changed(1.0)  # not looked at before its time
    assert not watch.changed(EVERY)
    replaced(tmp_path, b"still being written")
    assert not watch.changed(EVERY + SETTLED)
    assert watch.changed(EVERY + 2 * SETTLED)
    assert not watch.changed(EVERY * 3)


def test_a_pin_that_is_written_over_in_place_is_told(tmp_path: Path) -> None:
    (tmp_path / "tlshosts").mkdir()
    pin = tmp_path / "tlshosts" / "mx.b.example.pem"
    pin.write_bytes(b"one")
    watch = Watch(str(tmp_path), 0.0)
    pin.write_bytes(b"another")
    assert [watch.changed(EVERY), watch.changed(EVERY + SETTLED)] == [False, True]


def test_one_that_comes_or_goes_is_told(tmp_path: Path) -> None:
    watch = Watch(str(tmp_path), 0.0)
    (tmp_path / "certs").mkdir()
    (tmp_path / "certs" / "a.example.pem").write_bytes(b"x")
    assert [watch.changed(EVERY), watch.changed(EVERY + SETTLED)] == [False, True]
    (tmp_path / "certs" / "a.example.pem").unlink()
    assert [watch.changed(3 * EVERY), watch.changed(3 * EVERY + SETTLED)] == [False, True]

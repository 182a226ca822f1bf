"""The figures of a real service, scraped over HTTP while mail goes through it, read by Prometheus's own
parser for Python: they are true, they are told once, and nobody who asks badly holds anything up."""

import os
import signal
import smtplib
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest

pytest.importorskip("prometheus_client", reason="openqmail-core[metrics] is not installed")
from prometheus_client.parser import text_string_to_metric_families

from homes import Home, Place, Waiting
from system_homes import SystemHome, system_home

Samples = dict[tuple[str, ...], float]


@pytest.fixture
def home() -> Iterator[Home]:
    """Tells its figures; not started."""
    with Place() as place:
        home = place.home("a.example", "alice")
        home.control("metrics", "127.0.0.1:0")
        yield home


@pytest.fixture
def system() -> Iterator[SystemHome]:
    """The same of root's."""
    if os.geteuid():
        pytest.skip("only root makes users and becomes them")
    with system_home("alice") as home:
        home.control("metrics", "127.0.0.1:0")
        yield home


def address(home: Home) -> tuple[str, int]:
    [where] = [one["address"] for one in home.status()["listen"] if one["service"] == "metrics"]
    host, _, port = where.rpartition(":")
    return host, int(port)


def page(home: Home) -> str:
    host, port = address(home)
    with urllib.request.urlopen(f"http://{host}:{port}/metrics", timeout=30) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=")
        return str(answer.read().decode())


def scraped(home: Home) -> Samples:
    """Name and values of the labels, in the order of their names -> number."""
    return {
        (sample.name.removeprefix("openqmail_"), *[value for _, value in sorted(sample.labels.items())]): (
            sample.value
        )
        for family in text_string_to_metric_families(page(home))
        for sample in family.samples
    }


def wait_figures(home: Home, wanted: dict[tuple[str, ...], float]) -> Samples:
    """Until they are so, which is a second after they are."""
    found: Samples = {}
    for _ in Waiting(f"the figures are {wanted}", pause=0.2):
        found = scraped(home)
        if wanted.items() <= found.items():
            break
    return found


def send(home: Home, *recipients: str, sender: str = "alice@a.example") -> None:
    with smtplib.SMTP("127.0.0.1", home.port, "c.example", timeout=30) as client:
        client.sendmail(sender, recipients, b"Subject: figures\r\n\r\nx\r\n")


ONE_DELIVERED = {
    ("deliveries_total", "local", "success"): 1.0,
    ("queued_messages_total",): 1.0,
    ("smtp_sessions_total", "quit"): 1.0,
    ("smtp_messages_accepted_total",): 1.0,
    ("time_in_queue_seconds_count",): 1.0,
    ("queue_messages",): 0.0,
}


def test_mail_that_goes_through_is_counted(home: Home) -> None:
    home.control("checkrcpt", "0")
    with socket.create_server(("127.0.0.1", 0)) as silent, ExitStack() as stack:
        home.control("smtproutes", f"far.example:[127.0.0.1]:{silent.getsockname()[1]}")
        home.start()
        send(home, "alice@a.example")
        found = wait_figures(home, ONE_DELIVERED)
        assert found["time_in_queue_seconds_bucket", "+Inf"] == 1
        assert found["journal_segments",] >= 1
        assert found["journal_bytes",] > 0
        assert found["smtp_received_bytes_total",] > 50

        send(home, "nobody-here@a.example")
        wait_figures(
            home,
            {
                ("deliveries_total", "local", "failure"): 1.0,
                ("bounces_total",): 1.0,
                ("queued_messages_total",): 3.0,
                ("deliveries_total", "local", "success"): 2.0,
            },
        )
        client = stack.enter_context(smtplib.SMTP("127.0.0.1", home.port, "c.example", timeout=30))
        assert client.docmd("NONSENSE")[0] == 500
        send(home, "x@far.example")
        found = wait_figures(
            home,
            {
                ("deliveries_running", "remote"): 1.0,
                ("remote_connections_open",): 1.0,
                ("remote_connections_total",): 1.0,
                ("queue_messages",): 1.0,
                ("queue_recipients",): 1.0,
                ("connections_open",): 1.0,
            },
        )
        assert found["queue_bytes",] > 0
        client.quit()
        wait_figures(home, {("connections_open",): 0.0, ("smtp_commands_refused_total",): 1.0})


def test_memory_and_number_of_processes_are_those_of_status(home: Home) -> None:
    home.control("checkrcpt", "0")  # who checks at RCPT is a worker, too
    home.start()
    send(home, "alice@a.example")
    home.wait_mails("alice", 1)
    found, processes = scraped(home), home.status()["processes"]
    assert {one[1] for one in found if one[0] == "processes"} == {one["name"] for one in processes}
    for one in processes:
        assert found["processes", one["name"]] == 1
        assert 0.5 < found["process_resident_bytes", one["name"]] / one["rss"] < 2
    assert found["start_time_seconds",] == home.status()["since"]


def test_neither_reloads_nor_deaths_count_anything_twice_or_lose_it(home: Home) -> None:
    home.start()
    send(home, "alice@a.example")
    wait_figures(home, ONE_DELIVERED)
    for generation in (2, 3):
        home.signal(signal.SIGHUP)
        for _ in Waiting("only one generation is left"):
            found = [(one["name"], one["generation"]) for one in home.status()["processes"]]
            if [one for one in found if one[0] == "smtpd"] == [("smtpd", generation)]:
                break
    wait_figures(home, ONE_DELIVERED)
    [pid] = [one["pid"] for one in home.status()["processes"] if one["name"] == "send"]
    os.kill(pid, signal.SIGKILL)
    for _ in Waiting("send is there again"):
        if b"it is started anew" in home.log.read_bytes() and pid not in home.pids_of_all():
            break
    send(home, "alice@a.example")
    wait_figures(home, dict.fromkeys(ONE_DELIVERED, 2.0) | {("queue_messages",): 0.0})


def test_a_reload_begins_and_ends_it(system: SystemHome) -> None:
    system.control("metrics", None)
    system.start()
    names = {one["name"] for one in system.status()["processes"]}
    assert "metrics" not in names
    send(system, system.address("alice"))
    system.wait_mails("alice", 1)
    system.control("metrics", "127.0.0.1:0")
    system.signal(signal.SIGHUP)
    for _ in Waiting("figures are told"):
        if "metrics" in {one["service"] for one in system.status()["listen"]}:
            break
    wait_figures(system, {("deliveries_total", "local", "success"): 1.0, ("queue_messages",): 0.0})
    where = address(system)
    system.control("metrics", None)
    system.signal(signal.SIGHUP)
    for _ in Waiting("they are not told any more"):
        if {one["name"] for one in system.status()["processes"]} - {"worker"} == names - {"worker"}:
            break
    with pytest.raises(ConnectionError):
        socket.create_connection(where, 30)
    assert system.stop() == 0


def test_no_label_has_what_a_stranger_said(home: Home) -> None:
    home.start()
    before = page(home).count("\n")
    send(home, "alice@a.example", sender="stranger@odd.example")
    with socket.create_connection(("127.0.0.1", home.port), 30) as client:
        client.sendall(b"EHLO odd.example\r\nodd\r\nMAIL FROM:<odd@odd.example> ODD=1\r\n" * 3)
    wait_figures(home, ONE_DELIVERED)
    after = page(home)
    assert "odd" not in after
    assert "alice" not in after
    assert after.count("\n") <= before + 2, "there are more rows than those of a worker"


BAD = (
    b"",
    b"GET /metrics HTTP/1.1\r\nX: y",
    b"GET /metrics HTTP/1.1\r\n" + b"X: y\r\n" * 100_000,
    bytes(range(256)) * 400,
    b"POST /metrics HTTP/1.1\r\nContent-Length: 999999999\r\n\r\n" + bytes(100_000),
)


def test_who_asks_badly_holds_up_neither_figures_nor_mail(home: Home) -> None:
    home.start()
    with ExitStack() as stack:
        peers = [stack.enter_context(socket.create_connection(address(home), 30)) for _ in range(20)]
        for number, peer in enumerate(peers):
            with suppress(OSError):  # it has been sent away
                peer.sendall(BAD[number % len(BAD)])
        send(home, "alice@a.example")
        wait_figures(home, ONE_DELIVERED)
    assert b"broke" not in home.log.read_bytes()
    assert b"started anew" not in home.log.read_bytes()
    assert home.stop() == 0


def test_a_teller_that_dies_is_started_anew_and_tells_the_same(home: Home) -> None:
    home.start()
    send(home, "alice@a.example")
    wait_figures(home, ONE_DELIVERED)
    [pid] = [one["pid"] for one in home.status()["processes"] if one["name"] == "metrics"]
    os.kill(pid, signal.SIGKILL)
    for _ in Waiting("another tells them"):
        if pid not in home.pids_of_all():
            break
    wait_figures(home, ONE_DELIVERED)


def test_counting_goes_on_in_an_upgraded_service(system: SystemHome) -> None:
    system.start()
    send(system, system.address("alice"))
    wait_figures(system, ONE_DELIVERED)
    system.run("upgrade")
    send(system, system.address("alice"))
    found = wait_figures(system, {("queued_messages_total",): 1.0, ("time_in_queue_seconds_count",): 1.0})
    assert found["smtp_messages_accepted_total",] <= 1, "counters begin anew with another program"


WITHOUT = """
import sys
from openqmail.core.commands.main import main
from openqmail.core.control import extensions
extensions.installed = lambda library: False
sys.exit(main(sys.argv[1:]))
"""


def test_without_the_library_the_start_fails_and_names_the_remedy(home: Home) -> None:
    program = [sys.executable, "-c", WITHOUT, "--home", str(home.path), "run"]
    ran = subprocess.run(program, capture_output=True, text=True, check=False, timeout=30)
    assert ran.returncode == 100
    assert "control/metrics" in ran.stderr
    assert "pip install 'openqmail-core[metrics]'" in ran.stderr


def test_an_address_that_is_taken_stops_the_start(home: Home) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        home.control("metrics", f"127.0.0.1:{taken.getsockname()[1]}")
        ran = home.run("run", check=False)
    assert ran.returncode == 100
    assert "control/metrics: cannot listen on `127.0.0.1:" in ran.stderr


def test_who_looks_from_elsewhere_is_a_warning(home: Home) -> None:
    home.control("metrics", "192.0.2.1:9099\n[::1]:9099\n:9100")
    ran = home.run("control", "check", check=False)
    told = ran.stdout + ran.stderr
    assert "192.0.2.1 is not of loopback" in told
    assert "every address is not of loopback" in told
    assert "::1 is not" not in told

"""Whatever is said to a running keeper: it is refused and logged, and nothing changes."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keeper_process import KeeperHome, RawClient, eventually, keeper_home
from nvml_rack import Rack

from optimizer.devices.keeper.protocol import LONGEST_LINE
from optimizer.devices.keeper.service import MOST_CONNECTIONS

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=8,
)
NEARLY = st.fixed_dictionaries(
    {"op": st.sampled_from(["hello", "bounds", "acquire", "set", "renew", "release", "reset", ""])},
    optional={
        "version": ANY_JSON,
        "uuid": ANY_JSON | st.sampled_from(["GPU-0", "../../etc/passwd", "GPU-" + "f" * 300]),
        "sm_clock_mhz": ANY_JSON,
        "memory_clock_mhz": ANY_JSON,
        "power_limit_w": ANY_JSON,
    },
)
LINES = st.one_of(
    st.binary(max_size=300),
    ANY_JSON.map(lambda value: json.dumps(value).encode()),
    NEARLY.map(lambda value: json.dumps(value).encode()),
    st.integers(LONGEST_LINE + 1, 3 * LONGEST_LINE).map(lambda length: b"[" * length),
)
FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def held(home: KeeperHome) -> Iterator[RawClient]:
    """Somebody else holds the first card all the while."""
    client = RawClient(home.socket)
    client.hold(home.rack.uuid(0), 1005)
    alive = threading.Event()

    def renew() -> None:
        while not alive.wait(0.2):
            client.ask("renew")

    renewing = threading.Thread(target=renew)
    renewing.start()
    yield client
    alive.set()
    renewing.join()
    client.close()


def untouched(rack: Rack) -> bool:
    """Only the first card was ever set, once, and it is so still."""
    history = [call for call in rack.set_history() if call.code == 0]
    return rack.card(0).locked_sm_mhz == (1005, 1005) and rack.card(1).is_default and len(history) == 1


def say(home: KeeperHome, *lines: bytes) -> list[dict[str, object]]:
    """Say lines on a connection of its own and hang up; return what was answered."""
    client = RawClient(home.socket)
    answers = []
    try:
        for line in lines:
            client.send(line + b"\n")
        client.socket.shutdown(1)
        while (answer := client.answer()) is not None:
            answers.append(answer)
    except BrokenPipeError:
        pass
    finally:
        client.close()
    return answers


GREETING = b'{"op":"hello","version":1}'


def test_nothing_that_is_said_changes_anything(home: KeeperHome, held: RawClient) -> None:
    @FUZZ
    @given(st.lists(LINES, min_size=1, max_size=4), st.booleans())
    def vex(lines: list[bytes], greets: bool) -> None:
        say(home, *([GREETING] if greets else []), *lines)
        assert untouched(home.rack)

    vex()
    assert home.process is not None
    assert home.process.poll() is None
    assert "(malformed)" in home.text
    assert RawClient(home.socket).ask("hello", version=1)["ok"]


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"sm_clock_mhz": 99999}, "permitted are 510 to 1200 MHz"),
        ({"sm_clock_mhz": 505}, "permitted are 510 to 1200 MHz"),
        ({"memory_clock_mhz": 1215}, "memory clock 1215 MHz; permitted: none"),
        ({"power_limit_w": 200.0}, "no power limit may be set"),
    ],
)
def test_what_is_out_of_bounds_is_refused_logged_and_changes_nothing(
    rack: Rack, setting: dict[str, object], said: str
) -> None:
    with keeper_home(rack, "--gpu", f"{rack.uuid(0)}:500-1207") as home:
        home.start()
        client = RawClient(home.socket)
        client.hold(rack.uuid(0), 1005)
        answer = client.set(**{"sm_clock_mhz": None} | setting)
        assert answer["code"] == "out_of_bounds"
        assert said in answer["error"]
        eventually(lambda: said in home.text, "it is logged")
        assert untouched(rack)
        assert client.set(1020)["ok"]
        client.close()


def test_a_wrong_gpu_is_refused_and_logged(home: KeeperHome, held: RawClient) -> None:
    _hello, answer = say(home, GREETING, b'{"op":"acquire","uuid":"GPU-57a4d1ff"}')
    assert answer["code"] == "unknown_gpu"
    eventually(lambda: "(unknown_gpu)" in home.text, "it is logged")
    assert untouched(home.rack)


@pytest.mark.parametrize("length", [LONGEST_LINE + 1, 1 << 20])
@pytest.mark.parametrize("end", [b"", b"\n"], ids=["open", "ended"])
def test_a_line_that_is_too_long_is_hung_up_on(
    home: KeeperHome, held: RawClient, length: int, end: bytes
) -> None:
    client = RawClient(home.socket)
    with suppress(BrokenPipeError, ConnectionResetError):
        client.send(b"x" * length + end)
    answer = client.answer()
    assert answer is None or answer["code"] == "malformed"
    assert client.answer() is None
    eventually(lambda: "bytes at most" in home.text, "it is logged")
    assert untouched(home.rack)


def test_half_a_line_keeps_nobody_waiting(home: KeeperHome) -> None:
    slow = RawClient(home.socket)
    slow.send(GREETING[:10])
    quick = RawClient(home.socket)
    quick.hold(home.rack.uuid(0), 1005)
    slow.send(GREETING[10:] + b"\n")
    assert slow.answer()["ok"]
    quick.close()
    home.wait_default()


def test_requests_may_come_in_one_piece_and_are_answered_in_turn(home: KeeperHome) -> None:
    uuid = home.rack.uuid(0)
    lines = [
        GREETING,
        json.dumps({"op": "acquire", "uuid": uuid}).encode(),
        b'{"op":"set","sm_clock_mhz":1005,"memory_clock_mhz":null,"power_limit_w":null}',
        b'{"op":"renew"}',
        b'{"op":"release"}',
        b'{"op":"renew"}',
    ]
    client = RawClient(home.socket)
    client.send(b"\n".join(lines) + b"\n")
    answers = [client.answer() for _ in lines]
    assert [answer["ok"] for answer in answers] == [True, True, True, True, True, False]
    assert answers[-1]["code"] == "no_lease"
    assert home.default()


def test_a_flood_of_renewals_keeps_nobody_waiting(home: KeeperHome) -> None:
    flood = RawClient(home.socket)
    flood.hold(home.rack.uuid(1), 862)
    done = threading.Event()

    def pour() -> None:
        while not done.is_set():
            flood.send(b'{"op":"renew"}\n' * 200)
            for _ in range(200):
                flood.answer()

    pouring = threading.Thread(target=pour)
    pouring.start()
    try:
        silent = RawClient(home.socket)
        silent.hold(home.rack.uuid(0), 1005)
        home.wait_default(0)  # the lease of another runs out in the midst of it
        assert silent.ask("renew")["code"] == "expired"
        assert not home.default(1)
    finally:
        done.set()
        pouring.join()
    flood.close()


def test_who_asks_in_vain_again_and_again_does_not_fill_the_log(home: KeeperHome) -> None:
    client = RawClient(home.socket)
    client.ask("hello", version=1)
    for _ in range(300):
        assert client.ask("renew")["code"] == "no_lease"
    client.close()
    assert home.text.count("(no_lease)") < 30


def test_who_connects_and_says_nothing_locks_nobody_out(home: KeeperHome, held: RawClient) -> None:
    talker = RawClient(home.socket)
    idle = [RawClient(home.socket) for _ in range(MOST_CONNECTIONS - 2)]
    assert talker.ask("hello", version=1)["ok"]  # so that the first of the idle was silent for longer
    newcomer = RawClient(home.socket)
    newcomer.hold(home.rack.uuid(1), 862)
    assert idle[0].answer() is None
    assert idle[1].ask("hello", version=1)["ok"]
    assert talker.ask("bounds", uuid=home.rack.uuid(0))["ok"]
    assert not home.default(0)
    assert "hung up on pid" in home.text
    for client in (newcomer, talker, *idle):
        client.close()
    home.wait_default(1)


def test_requests_and_newcomers_of_one_moment_are_all_served(home: KeeperHome, held: RawClient) -> None:
    crowd = [RawClient(home.socket) for _ in range(MOST_CONNECTIONS - 1)]
    assert crowd[-1].ask("hello", version=1)["ok"]
    home.tell(signal.SIGSTOP)
    newcomers = [RawClient(home.socket) for _ in range(MOST_CONNECTIONS)]
    for client in crowd:
        client.send(GREETING + b"\n")
    home.tell(signal.SIGCONT)
    assert newcomers[-1].ask("hello", version=1)["ok"]
    for client in (*crowd, *newcomers):
        client.close()

"""
A storm of denials fills no disk, stops nobody, and is on record to the last one.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.core.storm import BURST
from tests.puppets import Puppet
from tests.running import AnswerError, RunningBroker, start, until

STORM = 5000
CONFIG = """
[servers.app]
selectors = ["uid:12346"]
unsafe_user_selector = true
allow = ["granted"]

[limits]
requests_per_second = 0
"""

ASK = """
import json
sock = connections["c"].socket
said = {"jsonrpc": "2.0", "id": 1, "method": "credential/issue", "params": {"secret": "granted"}}
line = json.dumps(said).encode() + b"\\n"
answers = 0
for _ in range(times // 50):
    sock.sendall(line * 50)
    for _ in range(50):
        answers += b'"denied"' in connections["c"].line()
result = answers
"""


@pytest.fixture
def broker(place: Path) -> Iterator[RunningBroker]:
    """Run a broker of a host that denies everybody but one user."""
    with start(place, config=CONFIG, mode="system", secrets={"granted": "made up"}) as running:
        yield running


def counted(broker: RunningBroker) -> Counter[int]:
    """Return how many denials of each user are on record, in records of their own and in counts."""
    found: Counter[int] = Counter()
    for record in broker.records():
        if record["event"] == "credential/denied":
            found[record["uid"]] += record.get("count", 1)
    return found


@pytest.mark.root
def test_a_storm_is_counted_to_the_last_denial(stage: Puppet, broker: RunningBroker) -> None:
    """Five thousand denials of one user are one burst of records and a few counts, and none is missing at the end."""
    puppet = stage.fork()
    puppet.become(12347)
    puppet.connect(broker.places.broker_socket)
    denied = puppet.run(ASK, times=STORM)
    broker.stop()
    records = [record for record in broker.records() if record["event"] == "credential/denied"]
    assert (STORM, STORM, True) == (denied, counted(broker)[12347], len(records) < BURST + 10)


@pytest.mark.root
def test_one_users_storm_hides_no_other(stage: Puppet, broker: RunningBroker) -> None:
    """While one user storms another one's denial has a record of its own, and a third gets what it is granted."""
    stormy, other, may = (stage.fork() for _ in range(3))
    for puppet, uid in ((stormy, 12347), (other, 12348), (may, 12346)):
        puppet.become(uid)
        puppet.connect(broker.places.broker_socket)
    stormy.run(ASK, times=STORM)
    with pytest.raises(AnswerError):
        other.call("credential/issue", secret="granted")
    got = may.call("credential/issue", secret="granted")["secret"]
    alone = until(
        lambda: [each for each in broker.records() if each.get("uid") == 12348], said="the record of the other's denial"
    )
    assert ("granted", ["credential/denied"], True) == (got, [each["event"] for each in alone], "count" not in alone[0])


def test_a_count_outlives_the_end(broker: RunningBroker) -> None:
    """What was counted and had no record yet when the broker was told to end is on record when it has ended."""
    with broker.connect() as connection:
        for _ in range(BURST + 30):
            with pytest.raises(AnswerError):
                connection.call("credential/issue", secret="granted")
        broker.stop()
    assert BURST + 30 == sum(counted(broker).values())

import logging
import math
import threading
import time
import uuid
from collections.abc import Mapping
from contextlib import ExitStack
from itertools import chain
from types import SimpleNamespace

import pytest
from kafka import KafkaAdminClient, TopicPartition
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from kafka.coordinator.base import Generation, MemberState
from kafka.coordinator.consumer import ConsumerCoordinator
from kafka.errors import KafkaTimeoutError

from consumer.kafka import joining
from consumer.kafka.assignment import Assignment
from consumer.kafka.client import Message, TopicShorter
from consumer.kafka.member import Member
from consumer.kafka.publisher import Publisher
from consumer.kafka.subscription import Subscription
from consumer.kafka.topics import read_topic, wait_for_topics
from consumer.settings import ConsumerSettings
from process.health import Health
from process.shutdown import Stopped
from tests.reading import read
from tests.services import wait_for

log = logging.getLogger("test")


@pytest.fixture
def settings(kafka: str) -> ConsumerSettings:
    return publish_a_hundred(kafka)


def publish_a_hundred(kafka: str) -> ConsumerSettings:
    made = ConsumerSettings(kafka_bootstrap_servers=kafka, kafka_topic=f"t{uuid.uuid4().hex[:8]}")
    wait_for_topics(made, threading.Event(), log)
    publisher = Publisher(made)
    for number in range(100):
        publisher.send(made.kafka_topic, b"%d" % number, b"one key, one partition")
    publisher.flush()
    publisher.close()
    return made


def read_all(settings: ConsumerSettings, starts: Mapping[int, int]) -> list[Message]:
    """What a new member of a group of its own reads, up to the last message."""
    with Subscription(settings, uuid.uuid4().hex, log, threading.Event()) as subscription:
        return read_up_to(b"99", subscription, starts)


def read_up_to(
    value: bytes, subscription: Subscription, starts: Mapping[int, int] | None = None
) -> list[Message]:
    """What a loop reads, up to the message of this value."""
    found: list[Message] = []

    def is_read() -> bool:
        found.extend(read(subscription, starts))
        return bool(found) and found[-1].value == value

    wait_for("the last message", is_read)
    return found


def test_the_dead_letter_topic_is_created_with_the_limits_of_a_broker_that_refuses_larger_ones(
    apache: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("consumer.kafka.topics.REQUEST_BYTES", -1)  # which each broker refuses
    made = ConsumerSettings(kafka_bootstrap_servers=apache, kafka_topic=f"t{uuid.uuid4().hex[:8]}")
    wait_for_topics(made, threading.Event(), log)
    publisher = Publisher(made)
    publisher.send(made.dead_letter_topic, b"a letter")
    publisher.flush()
    publisher.close()
    assert [each.value for each in read_topic(made, made.dead_letter_topic)] == [b"a letter"]
    assert f"Topic {made.dead_letter_topic} has no limits of its own" in caplog.text


def test_a_subscription_starts_where_its_owner_says(settings: ConsumerSettings) -> None:
    everything = read_all(settings, {})
    assert [int(each.value or b"") for each in everything] == list(range(100))


def test_a_member_that_joins_right_after_the_topic_was_made_is_given_its_partitions(
    apache: str,
) -> None:
    for _ in range(4):
        assert len(read_all(publish_a_hundred(apache), {})) == 100


def test_a_member_that_is_told_to_stop_while_it_waits_for_kafka_again_ends_without_an_error(
    settings: ConsumerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = threading.Event()
    with Subscription(settings, uuid.uuid4().hex, log, stop) as subscription:
        monkeypatch.setattr("consumer.kafka.member.STUCK_SECONDS", 0.0)
        stop.set()
        with pytest.raises(Stopped, match="waiting for Kafka"):
            subscription.poll(0.1)


def test_a_member_whose_rebalance_does_not_end_joins_anew_and_reads_on(
    settings: ConsumerSettings, caplog: pytest.LogCaptureFixture
) -> None:
    with Subscription(settings, uuid.uuid4().hex, log, threading.Event()) as subscription:
        read_up_to(b"99", subscription)
        long_ago = -math.inf  # as if the client's rebalance hung: no fault makes it do so
        subscription._member._joining_since = long_ago
        again = {each.value for each in read_up_to(b"99", subscription)}
    assert len(again) == 100
    assert "joining it again" in caplog.text


def test_a_member_to_whom_the_group_answers_between_two_polls_joins_once(
    embedded: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = publish_a_hundred(embedded)  # a broker that lets the first member wait for 3 s
    answers: list[bytes] = []
    join = ConsumerCoordinator._do_join_and_sync_async

    async def counted(self: ConsumerCoordinator) -> bytes:
        answers.append(await join(self))
        return answers[-1]

    monkeypatch.setattr(ConsumerCoordinator, "_do_join_and_sync_async", counted)
    with Subscription(settings, uuid.uuid4().hex, log, threading.Event()) as subscription:
        member = subscription._member.client._coordinator

        def gained() -> set[int]:
            found = set(subscription.poll(0.2).gained)
            wait_for("the answer", lambda: not member._join_task or member._join_task.is_done)
            return found

        assert wait_for("the partitions", gained) == {0, 1, 2, 3}
    assert len(answers) == 1


@pytest.mark.parametrize(
    ("state", "member", "age", "kept"),
    [
        (MemberState.REBALANCING, "me", 1.0, True),
        (MemberState.REBALANCING, "me", 3.5, False),  # the group may have given them away
        (MemberState.REBALANCING, "me again", 1.0, False),
        (MemberState.STABLE, "me", 1.0, False),  # a poll has taken it
        (MemberState.UNJOINED, "me", 1.0, False),
    ],
)
def test_an_answer_to_a_join_is_kept_while_the_group_knows_the_member(
    state: MemberState, member: str, age: float, kept: bool
) -> None:
    made = joining._Coordinator.__new__(joining._Coordinator)
    made.config, made.state = {"session_timeout_ms": 6_000}, state
    made._generation = Generation(1, member, "range")
    answer = joining._Answer(Generation(1, "me", "range"), b"all", time.monotonic() - age)
    assert made._is_open(answer) == kept


def test_a_member_that_has_waited_long_for_the_broker_gives_the_group_time_to_answer(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now, joined = [0.0], []

    def answers_late(*_: object, **__: object) -> object:
        now[0] += 60
        return SimpleNamespace(subscribe=lambda *_, **__: joined.append(now[0]))

    monkeypatch.setattr("consumer.kafka.member.until_it_answers", answers_late)
    monkeypatch.setattr("consumer.kafka.member.time", SimpleNamespace(monotonic=lambda: now[0]))
    stop, health = threading.Event(), Health()
    member = Member(ConsumerSettings(), "g", Assignment(), stop, log, health)
    member.join_anew_if_stuck()
    assert joined == [60.0]
    assert "has not answered" not in caplog.text


def test_a_member_that_was_busy_while_the_group_shares_anew_polls_before_it_calls_that_stuck(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = [0.0]
    client = SimpleNamespace(
        subscribe=lambda *_, **__: None,
        close=lambda **_: None,
        _coordinator=SimpleNamespace(request_rejoin=lambda: None),
    )
    monkeypatch.setattr("consumer.kafka.member.until_it_answers", lambda *_, **__: client)
    monkeypatch.setattr("consumer.kafka.member.time", SimpleNamespace(monotonic=lambda: now[0]))
    member = Member(ConsumerSettings(), "g", Assignment(), threading.Event(), log, Health())
    member.assigned(set())
    now[0] = 10.0  # a heartbeat in the middle of a long reading tells that others have joined
    member.revoked(set())
    now[0] = 100.0  # the reading is over
    member.join_anew_if_stuck()
    assert "has not answered" not in caplog.text
    for _ in range(70):
        now[0] += 0.5
        member.join_anew_if_stuck()
    assert caplog.text.count("has not answered") == 1


def test_members_that_stay_keep_the_partitions_that_they_have(kafka: str) -> None:
    settings = ConsumerSettings(kafka_bootstrap_servers=kafka, kafka_topic=f"t{uuid.uuid4().hex}")
    wait_for_topics(settings, threading.Event(), log)
    group = uuid.uuid4().hex
    with ExitStack() as stack:
        members = [
            stack.enter_context(Subscription(settings, group, log, threading.Event()))
            for _ in range(3)
        ]

        def shares() -> list[set[int]]:
            """What each member reads, if all partitions are read."""
            for member in members:
                read(member)
            found = [member.partitions() for member in members]
            return found if all(found) and sorted(chain(*found)) == [0, 1, 2, 3] else []

        before = wait_for("four partitions of three members", shares)
        gone = max(range(3), key=lambda number: len(before[number]))
        members.pop(gone).close()
        before.pop(gone)
        after = wait_for("four partitions of two members", shares)
    assert [len(share) for share in before] == [1, 1]
    assert all(own < share for own, share in zip(before, after, strict=True))


def test_a_member_of_an_older_version_shares_the_partitions_with_others(
    kafka: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ConsumerSettings(kafka_bootstrap_servers=kafka, kafka_topic=f"t{uuid.uuid4().hex}")
    wait_for_topics(settings, threading.Event(), log)
    group = uuid.uuid4().hex
    with ExitStack() as stack:
        with monkeypatch.context() as patch:  # what kafka-python takes where it is told nothing
            older = (RangePartitionAssignor, RoundRobinPartitionAssignor)
            patch.setattr("consumer.kafka.member.ASSIGNORS", older)
            first = Subscription(settings, group, log, threading.Event())
        members = [
            stack.enter_context(first),
            stack.enter_context(Subscription(settings, group, log, threading.Event())),
        ]

        def are_shared() -> bool:
            for member in members:
                read(member)
            return sorted(map(sorted, (m.partitions() for m in members))) == [[0, 1], [2, 3]]

        wait_for("two partitions of each member", are_shared)


def test_messages_of_partitions_that_wait_for_a_start_count_as_they_did_before(
    apache: str,
) -> None:
    settings = publish_a_hundred(apache)  # the embedded broker tells an end too late
    with Subscription(settings, uuid.uuid4().hex, log, threading.Event()) as subscription:
        wait_for("the partitions", lambda: subscription.poll(0.1).gained)
        assert subscription.lag() == 0  # nobody knows yet where to begin
        read_up_to(b"99", subscription)
        assert subscription.lag() == 0
        publisher = Publisher(settings)
        publisher.send(settings.kafka_topic, b"100", b"one key, one partition")
        publisher.flush()
        publisher.close()
        wait_for("one more", lambda: subscription.lag() == 1)
        member = subscription._member  # what the client tells when the group shares anew:
        member.assigned({TopicPartition(settings.kafka_topic, p) for p in range(4)})
        assert subscription.lag() == 1


def test_partitions_that_were_lost_are_told_also_while_the_broker_lets_the_member_in_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = SimpleNamespace(subscribe=lambda *_, **__: None)
    monkeypatch.setattr("consumer.kafka.member.until_it_answers", lambda *_, **__: client)
    subscription = Subscription(ConsumerSettings(), "g", log, threading.Event())
    monkeypatch.setattr(subscription._admission, "is_kept_out", lambda: True)
    assignment = subscription._assignment
    assignment.gain({0, 1})
    assignment.changes(ask=True)
    assert assignment.claim(0)
    assignment.lose({0, 1})
    assert subscription.has_lost
    assert subscription.poll(0.0).lost == {0, 1}
    assert not subscription.has_lost
    assert not subscription.poll(0.0).lost


def test_an_offset_beyond_the_topics_end_is_refused_not_read_from_the_start(
    settings: ConsumerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumer.kafka.subscription.SHORT_SECONDS", 0.5)
    with pytest.raises(TopicShorter, match="ends before offset 1000"):
        read_all(settings, dict.fromkeys(range(4), 1000))


def test_offsets_that_retention_has_deleted_are_named_in_the_log(
    apache: str, caplog: pytest.LogCaptureFixture
) -> None:
    settings = publish_a_hundred(apache)
    admin = KafkaAdminClient(bootstrap_servers=apache)
    partition = read_all(settings, {})[0].partition
    admin.delete_records({TopicPartition(settings.kafka_topic, partition): 40})
    admin.close()
    found = read_all(settings, {partition: 10})
    assert [int(each.value or b"") for each in found] == list(range(40, 100))
    assert f"deleted the offsets 10 to 39 of partition {partition} unread" in caplog.text
    with Subscription(settings, uuid.uuid4().hex, log, threading.Event()) as member:
        firsts = {each: member.first(each) for each in range(4)}
    assert firsts == {each: 40 if each == partition else 0 for each in range(4)}


def test_messages_of_partitions_that_are_lost_in_the_middle_of_a_poll_are_read_again(
    settings: ConsumerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Subscription(settings, uuid.uuid4().hex, log, threading.Event()) as subscription:
        member = subscription._member
        given: list[object] = []

        def poll(**arguments: int) -> object:
            polled = type(member.client).poll(member.client, **arguments)
            if polled and not given:
                given.append(polled)
                member.revoked(set(member.client.assignment()))
            return polled

        monkeypatch.setattr(member.client, "poll", poll)
        found = read_up_to(b"99", subscription)
    assert given
    assert [int(each.value or b"") for each in found] == list(range(100))


def test_a_heartbeat_that_fails_leaves_no_partition_paused(
    settings: ConsumerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Subscription(settings, uuid.uuid4().hex, log, threading.Event()) as subscription:
        wait_for("the messages", lambda: read(subscription))
        with monkeypatch.context() as patch:

            def away(**_: int) -> object:
                raise KafkaTimeoutError("the broker is away")

            patch.setattr(subscription._member.client, "poll", away)
            subscription.heartbeat()
        assert not subscription._member.client.paused()

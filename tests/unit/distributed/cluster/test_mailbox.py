import time
from concurrent.futures import ThreadPoolExecutor

from lola.distributed.cluster import mailbox
from lola.distributed.cluster.mailbox import Mailbox


def test_messages_arrive_in_order_and_once(monkeypatch):
    stored: dict[tuple[bytes, bytes], bytes] = {}
    monkeypatch.setattr(
        mailbox, "_internal_kv_put", lambda key, value, namespace: stored.update({(namespace, key): value})
    )
    monkeypatch.setattr(mailbox, "_internal_kv_get", lambda key, namespace: stored.get((namespace, key)))
    monkeypatch.setattr(mailbox, "_internal_kv_del", lambda key, namespace: stored.pop((namespace, key)))
    received, other = Mailbox(), Mailbox()
    sent = Mailbox(received.name)
    assert received.take() == []
    for step in range(11):
        sent.put({"step": step, "train/loss": float("nan")} if step == 10 else step)
    assert other.take() == []
    *numbers, last = received.take()
    assert numbers == [*range(10)]
    assert last["step"] == 10
    assert last["train/loss"] != last["train/loss"]
    sent.put("later")
    assert (received.take(), received.take()) == (["later"], [])
    assert stored == {}


def test_threads_that_send_at_once_lose_nothing(monkeypatch):
    """A training reports steps while another thread reports what it has stored."""
    stored: dict[bytes, bytes] = {}

    def put(key, value, namespace):
        time.sleep(0.001)  # in which another thread may send
        stored[key] = value

    monkeypatch.setattr(mailbox, "_internal_kv_put", put)
    monkeypatch.setattr(mailbox, "_internal_kv_get", lambda key, namespace: stored.get(key))
    monkeypatch.setattr(mailbox, "_internal_kv_del", lambda key, namespace: stored.pop(key))
    received = Mailbox()
    sent = Mailbox(received.name)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(sent.put, range(100)))
    assert sorted(received.take()) == [*range(100)]

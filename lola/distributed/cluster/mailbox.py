"""Messages from a task to the process that waits for it, through Ray's key-value store.

A message that was put arrives even if its sender is killed at once; those of a sender arrive in order.
"""

import dataclasses
import pickle
import threading
import uuid
from typing import Any

from ray.experimental.internal_kv import _internal_kv_del, _internal_kv_get, _internal_kv_put

NAMESPACE = b"lola"


@dataclasses.dataclass
class Mailbox:
    """The messages of one sender; sender and receiver have a copy each.

    Arguments:
        name: Its keys begin with this.
        count: How many messages this copy has put or taken.
    """

    name: str = dataclasses.field(default_factory=lambda: uuid.uuid4().hex)
    count: int = 0
    _lock: threading.Lock = dataclasses.field(default_factory=threading.Lock, repr=False)

    @property
    def _key(self) -> bytes:
        return f"{self.name}:{self.count}".encode()

    def put(self, message: Any) -> None:
        """Send a message, which is small; threads may send at once."""
        with self._lock:  # of two messages of one number one would be lost, and all later ones
            _internal_kv_put(self._key, pickle.dumps(message), namespace=NAMESPACE)
            self.count += 1

    def take(self) -> list[Any]:
        """The messages that have arrived since this was called last."""
        messages = []
        while (message := _internal_kv_get(self._key, namespace=NAMESPACE)) is not None:
            messages.append(pickle.loads(message))
            _internal_kv_del(self._key, namespace=NAMESPACE)
            self.count += 1
        return messages

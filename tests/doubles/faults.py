"""A TCP proxy that breaks connections on purpose, to stand between a client and any server.

with FaultProxy(mongod_port) as proxy:
    uri = f"mongodb://127.0.0.1:{proxy.port}/"
    proxy.then(Cut(100))          # the next connection only: close after 100 bytes from the client
    proxy.always(Delay(0.2))      # every later one
"""

import contextlib
import socket
import threading
from collections import deque
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True)
class Pass:
    """Carry everything."""


@dataclass(frozen=True)
class Cut:
    """Close both sides after `after` bytes have come from the client; 0 closes at once. The rest is never sent on."""

    after: int = 0


@dataclass(frozen=True)
class DropReply:
    """Carry the request whole, swallow the reply's first `skip`+1 bytes' rest: the server has done it, the client never hears."""

    skip: int = 0
    """Bytes of the reply that still pass."""


@dataclass(frozen=True)
class Delay:
    """Hold each piece of the reply for `seconds`."""

    seconds: float = 1.0


Fault = Pass | Cut | DropReply | Delay


class FaultProxy:
    """Listens on a free loopback port and carries to `target` (a loopback port). A fault is chosen when a connection opens."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.connections = 0
        self._mode: Fault = Pass()
        self._once: deque[Fault] = deque()
        self._lock = threading.Lock()
        self._live: set[socket.socket] = set()
        self._stop = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = int(self._listener.getsockname()[1])
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def then(self, *faults: Fault) -> None:
        """Use these for the next connections, one each, before the lasting mode."""
        with self._lock:
            self._once.extend(faults)

    def always(self, fault: Fault) -> None:
        """Use this for every later connection."""
        with self._lock:
            self._mode = fault

    def cut_all(self) -> int:
        """Break every open connection now; returns how many sockets that were."""
        with self._lock:
            live = list(self._live)
        for one in live:
            _close(one)
        return len(live)

    def stop(self) -> None:
        """Close the listener and everything open. A second call is a no-op."""
        self._stop.set()
        _close(self._listener)
        self.cut_all()
        for thread in self._threads:
            thread.join(2)
        self._listener.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _accept(self) -> None:
        while not self._stop.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self.connections += 1
                fault = self._once.popleft() if self._once else self._mode
            try:
                server = socket.create_connection(("127.0.0.1", self.target), 2)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            with self._lock:
                self._live |= {client, server}
            pair = _Pair(self, client, server)
            for thread in (
                threading.Thread(target=pair.up, args=(fault,), daemon=True),
                threading.Thread(target=pair.down, args=(fault,), daemon=True),
            ):
                self._threads = [t for t in self._threads if t.is_alive()] + [thread]
                thread.start()

    def forget(self, *sockets: socket.socket) -> None:
        """The connection is over."""
        with self._lock:
            self._live -= set(sockets)

    def wait(self, seconds: float) -> None:
        """Sleep, unless the proxy stops."""
        self._stop.wait(seconds)


class _Pair:
    """One carried connection: two directions, closed by the second one to end."""

    def __init__(self, proxy: FaultProxy, client: socket.socket, server: socket.socket) -> None:
        self.proxy, self.client, self.server = proxy, client, server
        self._lock = threading.Lock()
        self._running = 2

    def up(self, fault: Fault) -> None:
        """Client to server."""
        left = fault.after if isinstance(fault, Cut) else None
        with contextlib.suppress(OSError):
            while left is None or left > 0:
                data = self.client.recv(65536)
                if not data:
                    break
                self.server.sendall(data if left is None else data[:left])
                left = None if left is None else left - len(data)
        self._end()

    def down(self, fault: Fault) -> None:
        """Server to client."""
        left = fault.skip if isinstance(fault, DropReply) else None
        with contextlib.suppress(OSError):
            while data := self.server.recv(65536):
                if isinstance(fault, Delay):
                    self.proxy.wait(fault.seconds)
                self.client.sendall(data if left is None else data[:left])
                if left is not None and (left := left - len(data)) < 0:
                    break
        self._end()

    def _end(self) -> None:
        """Break both sides; the second direction to come here closes them."""
        _close(self.client)
        _close(self.server)
        with self._lock:
            self._running -= 1
            last = self._running == 0
        if last:
            self.proxy.forget(self.client, self.server)
            self.client.close()
            self.server.close()


def _close(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)

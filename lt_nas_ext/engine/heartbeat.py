"""Which of several processes are alive: each gives a sign a second in their common store, and watches the others'.

A broken connection says that somebody is gone, never who; and a process that stands still, or one that waits for a
device, breaks none at all.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.distributed import Store

BEAT = 1.0
"""Seconds between two signs."""

SILENT = 20.0
"""Seconds without a sign after which a process counts as gone."""

SILENT_AFTER_BREAK = 5.0
"""Likewise once a connection broke: that somebody is gone is then known."""

GRACE = 10.0
"""Seconds in which this process may end by itself after another one is gone; then it is ended."""


class Heartbeat:
    """The signs of this process, from here to its end, and what is known of the others.

    Args:
        store: common to all processes; a connection of its own, for calls wait for each other.
        rank, size: of this process, and how many there are.
        holder: who is gone where the store is, in words.
    """

    def __init__(self, store: Store, rank: int, size: int, holder: str) -> None:
        self._store, self._rank, self._size, self._holder = store, rank, size, holder
        self._others = [other for other in range(size) if other != rank]
        self._counts = dict.fromkeys(self._others, 0)
        self._heard = dict.fromkeys(self._others, time.monotonic())
        self._last_words: dict[int, str] = {}
        self._deaf = self._watching = False
        self._run = 0
        threading.Thread(target=self._beat, name="lt-nas heartbeat", daemon=True).start()

    def watch(self, wanted: bool) -> None:
        """Whether the others are needed: while they are, this process does not outlive one of them by long."""
        if wanted:
            now = time.monotonic()
            self._heard, self._last_words = dict.fromkeys(self._others, now), {}
            self._run += 1
        self._watching = wanted

    def say(self, words: str) -> None:
        """Tell the others why this process leaves the run, and wait a little until they know: it may hold the store."""
        until = time.monotonic() + SILENT_AFTER_BREAK
        try:
            self._store.set(self._words(self._rank), words)
            while time.monotonic() < until and len(self._last_words) < len(self._others):
                if self._store.add(f"{self._words(self._rank)} heard", 0) == len(self._others):
                    break
                time.sleep(BEAT / 10)
        except RuntimeError:  # nobody is left to hear it
            self._deaf = True

    def gone(self, silent: float = SILENT) -> str | None:
        """Who ended, in words; None: all are there."""
        for other, words in self._last_words.items():
            return f"{self._name(other)} ended: {words}"
        if self._deaf:
            return f"{self._holder} ended"
        now = time.monotonic()
        found = [other for other in self._others if now - self._heard[other] > silent]
        if not found:
            return None
        return f"{' and '.join(map(self._name, found))} ended without a word (killed, or the machine is gone)"

    def found(self) -> str | None:
        """Who ended, once a connection broke; None: all are there, so it was something else. It takes seconds."""
        until = time.monotonic() + 2 * SILENT_AFTER_BREAK
        while time.monotonic() < until:
            who = self.gone(SILENT_AFTER_BREAK)
            if who is not None:
                return who
            time.sleep(BEAT / 4)
        return None

    def _words(self, rank: int) -> str:
        """Where a process says why it leaves this run, of those that come one after the other."""
        return f"words {self._run} {rank}"

    def _name(self, rank: int) -> str:
        return f"process {rank} of {self._size}"

    def _beat(self) -> None:
        noticed = None
        while True:
            if not self._deaf:
                try:
                    self._look()
                except RuntimeError:
                    self._deaf = True
            who = self.gone() if self._watching else None
            if who is None:
                noticed = None
            elif noticed is None:
                noticed = time.monotonic()
            elif time.monotonic() - noticed > GRACE:
                # The main thread waits for what will never come, on a device perhaps: no exception reaches it there.
                print(f"lt-nas: error: {ended(who)}", file=sys.stderr, flush=True)
                os._exit(1)
            time.sleep(BEAT)

    def _look(self) -> None:
        self._store.add(f"beat {self._rank}", 1)
        for other in self._others:
            count = self._store.add(f"beat {other}", 0)
            if count != self._counts[other]:
                self._counts[other], self._heard[other] = count, time.monotonic()
            words = self._words(other)
            if other not in self._last_words and self._store.check([words]):
                self._last_words[other] = self._store.get(words).decode()
                self._store.add(f"{words} heard", 1)


def ended(who: str) -> str:
    """The message of a run that ends because another process did."""
    return (
        f"processes: {who}, and the others end with it. Every whole epoch is saved where the run has an out directory: "
        "start all processes again with --resume (resume=True)"
    )

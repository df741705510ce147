"""Reasoner answers on disk, found by what was asked."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from racro_pl.files import private
from racro_pl.reward.reasoner import Reply
from racro_pl.terminal import get_logger
from racro_pl.types import Messages, RacroError

log = get_logger(__name__)
_SCHEMA = "CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, text TEXT NOT NULL) WITHOUT ROWID"
_WAIT_S = 30.0
_RETRY_S = 0.02


class CacheError(RacroError):
    """The cache file cannot be used."""


def default_cache_path() -> Path:
    """``racro_pl/replies.sqlite`` in the user's cache folder (``XDG_CACHE_HOME``, else ``~/.cache``)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "racro_pl" / "replies.sqlite"


def reply_key(identity: str, messages: Messages, vote: int) -> str:
    """Address of an answer: SHA-256 over everything that it depends on."""
    canonical = json.dumps([identity, messages, vote], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


class ReplyCache:
    """A sqlite file of answers; several threads and processes may use it at once. It holds text only."""

    def __init__(self, path: Path) -> None:
        """
        Args:
            path: The file; made on first use, with its folder.
        """
        self.path = path
        self.hits = 0
        self.misses = 0
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._warned = False

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Answers to the user's questions: SQLite gives the files beside it this one's mode.
            os.close(private(str(self.path), os.O_CREAT | os.O_RDWR))
            self._connection = self._connect()
        return self._connection

    def _connect(self) -> sqlite3.Connection:
        end = time.monotonic() + _WAIT_S
        while True:
            connection = sqlite3.connect(self.path, timeout=_WAIT_S, isolation_level=None, check_same_thread=False)
            try:
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute("PRAGMA synchronous=NORMAL")
                connection.execute(_SCHEMA)
                return connection
            except sqlite3.Error as error:
                connection.close()
                # Where another process makes the file at this moment, the first of these fails without waiting.
                if _code(error) != sqlite3.SQLITE_BUSY or time.monotonic() >= end:
                    raise
            time.sleep(_RETRY_S)

    @contextmanager
    def _use(self) -> Iterator[sqlite3.Connection]:
        """The open file, for this thread alone; what goes wrong meanwhile is a CacheError."""
        with self._lock:
            try:
                yield self._open()
            except (sqlite3.Error, OSError, ValueError) as error:
                advice = (
                    "Its disk may be full: free some space; or set the scorer's cache_path to a file on another disk"
                    if _is_full(error)
                    else "If the file is damaged, delete it and its -wal and -shm neighbours; or set the scorer's "
                    "cache_path to another file"
                )
                raise CacheError(
                    f"the cache of reasoner answers {self.path} cannot be used ({error}). {advice}, or cache to off"
                ) from error

    def open(self) -> None:
        """Make sure that the file can be used.

        Raises:
            CacheError: it is damaged, locked for too long, or not writable.
        """
        with self._use():
            pass

    def get(self, key: str) -> Reply | None:
        """The answer stored under ``key``; counts a hit or a miss.

        Raises:
            CacheError: as ``open``.
        """
        with self._use() as connection:
            row = connection.execute("SELECT text FROM replies WHERE key = ?", (key,)).fetchone()
            reply = None if row is None else _read(json.loads(row[0]))
            self.hits += reply is not None
            self.misses += reply is None
            return reply

    def put(self, key: str, reply: Reply) -> None:
        """Store an answer; the first one stays, so that every reader sees the same.

        On a full disk it is not stored, with a warning the first time: it was paid for, and counts all the same.

        Raises:
            CacheError: as ``open``.
        """
        # JSON, because a model may emit lone surrogates, which sqlite's own text cannot hold.
        value = {"text": reply.text, "truncated": True} if reply.truncated else reply.text
        try:
            with self._use() as connection:
                connection.execute("INSERT OR IGNORE INTO replies VALUES (?, ?)", (key, json.dumps(value)))
        except CacheError as error:
            if not _is_full(error.__cause__):
                raise
            if not self._warned:
                self._warned = True
                log.warning("%s. Meanwhile answers count, but are not kept", error)

    def close(self) -> None:
        """Close the file; a later use opens it again."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None


def _code(error: BaseException | None) -> int:
    """SQLite's primary code of an error; 0 when it has none."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _is_full(error: BaseException | None) -> bool:
    """Whether a full disk, or a quota, may be why. SQLite calls some of that an I/O error."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return _code(error) in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)


def _read(value: Any) -> Reply:
    """A stored answer: its text, or an object with the text of one that the length limit cut."""
    if isinstance(value, str):
        return Reply(text=value)
    if isinstance(value, dict) and isinstance(value.get("text"), str):
        return Reply(text=value["text"], truncated=value.get("truncated") is True)
    raise ValueError("an entry is no answer")

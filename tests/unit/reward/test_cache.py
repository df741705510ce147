import contextlib
import resource
import sqlite3
import subprocess
import sys
import threading

import pytest

from racro_pl.reward import cache as cache_module
from racro_pl.reward.cache import CacheError, ReplyCache, default_cache_path, reply_key
from racro_pl.reward.reasoner import Reply

MESSAGES = [{"role": "user", "content": "Two?"}]


def test_what_was_put_is_found_again_also_after_closing(tmp_path):
    cache = ReplyCache(tmp_path / "new" / "replies.sqlite")
    assert cache.get("a") is None
    reply = Reply(text='é "\ud800" \n')
    cache.put("a", reply)
    cache.put("a", Reply(text="second"))  # the first one stays
    cache.put("cut", Reply(text="second", truncated=True))
    cache.close()
    assert cache.get("a") == reply
    assert (cache.hits, cache.misses) == (1, 1)
    assert ReplyCache(cache.path).get("a") == reply
    assert ReplyCache(cache.path).get("cut") == Reply(text="second", truncated=True)


def test_the_file_and_those_beside_it_are_their_owners_alone(tmp_path):
    cache = ReplyCache(tmp_path / "replies.sqlite")
    cache.put("a", Reply(text="an answer"))
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == dict.fromkeys(("replies.sqlite", "replies.sqlite-wal", "replies.sqlite-shm"), 0o600)


def test_an_entry_that_is_no_answer_is_an_error(tmp_path):
    cache = ReplyCache(tmp_path / "replies.sqlite")
    cache.open()
    for value in ("7", "null", '{"truncated": true}', '{"text": 7}', "{"):
        cache._connection.execute("INSERT OR REPLACE INTO replies VALUES ('a', ?)", (value,))
        with pytest.raises(CacheError, match="cannot be used"):
            cache.get("a")


def test_a_key_depends_on_all_that_an_answer_depends_on():
    other = [{"role": "user", "content": "Three?"}]
    keys = {
        reply_key("m", MESSAGES, 0),
        reply_key("n", MESSAGES, 0),
        reply_key("m", other, 0),
        reply_key("m", MESSAGES, 1),
    }
    assert len(keys) == 4
    turned = [{"content": "Two?", "role": "user"}]
    assert reply_key("m", turned, 0) == reply_key("m", MESSAGES, 0)


def test_many_threads_and_another_process(tmp_path):
    path = tmp_path / "replies.sqlite"
    code = (
        "import sys\nfrom pathlib import Path\nfrom racro_pl.reward import Reply, ReplyCache\n"
        "cache = ReplyCache(Path(sys.argv[1]))\nfor i in range(200): cache.put(f'p{i}', Reply(text=str(i)))"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(path)])
    cache = ReplyCache(path)

    def write(name):
        for i in range(100):
            cache.put(f"{name}{i}", Reply(text=str(i)))

    threads = [threading.Thread(target=write, args=(f"t{t}-",)) for t in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert process.wait(250) == 0
    assert all(cache.get(f"t{t}-{i}").text == str(i) for t in range(8) for i in range(100))
    assert all(cache.get(f"p{i}").text == str(i) for i in range(200))


def test_a_damaged_file_is_an_error_that_names_it(tmp_path):
    path = tmp_path / "replies.sqlite"
    path.write_bytes(b"this is no database, " * 100)
    with pytest.raises(CacheError, match=r"replies\.sqlite cannot be used .*delete it"):
        ReplyCache(path).open()
    with pytest.raises(CacheError, match="cannot be used"):
        ReplyCache(tmp_path).get("a")  # a folder


@pytest.fixture
def locked(tmp_path):
    """A new file that another process writes to as it makes it: what turns on WAL then fails without waiting."""
    with contextlib.closing(sqlite3.connect(tmp_path / "replies.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield other


def test_a_file_that_another_process_makes_is_waited_for(tmp_path, monkeypatch, locked):
    waits = []

    def wait(seconds):
        waits.append(seconds)
        if len(waits) == 3:
            locked.execute("ROLLBACK")

    monkeypatch.setattr("time.sleep", wait)
    cache = ReplyCache(tmp_path / "replies.sqlite")
    cache.put("a", Reply(text="an answer"))
    assert cache.get("a") == Reply(text="an answer")
    assert len(waits) == 3


@pytest.mark.usefixtures("locked")
def test_a_file_that_stays_locked_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(cache_module, "_WAIT_S", 0.05)
    with pytest.raises(CacheError, match="database is locked"):
        ReplyCache(tmp_path / "replies.sqlite").open()


@contextlib.contextmanager
def no_page_left(cache):
    (pages,) = cache._connection.execute("PRAGMA page_count").fetchone()
    cache._connection.execute(f"PRAGMA max_page_count = {pages}")
    yield
    cache._connection.execute(f"PRAGMA max_page_count = {2**30}")


@contextlib.contextmanager
def no_byte_written(cache):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))  # Python ignores the signal for it
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("full", [no_page_left, no_byte_written])
def test_on_a_full_disk_an_answer_is_not_kept_and_that_is_told_once(tmp_path, caplog, full):
    cache = ReplyCache(tmp_path / "replies.sqlite")
    cache.put("before", Reply(text="an answer"))
    with full(cache):
        for number in range(3):
            cache.put(f"lost {number}", Reply(text="long" * 10_000))
    (warning,) = caplog.messages
    assert "replies.sqlite cannot be used" in warning
    assert "disk may be full: free some space" in warning
    assert "answers count, but are not kept" in warning
    assert "delete" not in warning
    assert cache.get("before") == Reply(text="an answer")
    assert cache.get("lost 0") is None
    cache.put("after", Reply(text="an answer"))
    assert cache.get("after") == Reply(text="an answer")


def test_another_fault_of_the_file_is_not_passed_over(tmp_path):
    cache = ReplyCache(tmp_path / "replies.sqlite")
    cache.open()
    cache._connection.execute("DROP TABLE replies")
    with pytest.raises(CacheError, match="no such table"):
        cache.put("a", Reply(text="an answer"))


def test_the_default_lives_in_the_users_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_path() == tmp_path / "racro_pl" / "replies.sqlite"

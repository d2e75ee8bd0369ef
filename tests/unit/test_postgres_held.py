"""Statements that are kept until the next one or COMMIT carries them: Connection.hold()."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest
from fix_links import Links, rows
from flight_support import sent

from vinyl import _core

INSERT = "INSERT INTO kept (a, b) VALUES (%s, %s)"
DELETE = "DELETE FROM kept WHERE a IN (%s)"
OTHER = "INSERT INTO others (a) VALUES (%s)"
COUNT = "SELECT count(*) FROM kept"
HOLD = ("INSERT INTO kept ", "DELETE FROM kept ")


def execute(link: Any, sql: str, *params: Any) -> int:
    with link.cursor() as cursor:
        cursor.execute(sql, params or None)
        return cursor.rowcount


def make_link(pg: Links, **options: Any) -> Any:
    """A link in a transaction that has not begun, whose statements have run before."""
    link = pg.link(max_size=1, **options)
    rows(link, "DROP TABLE IF EXISTS kept, others")
    rows(
        link,
        "CREATE TABLE kept (a int PRIMARY KEY, b text,"
        " c int DEFAULT 1 REFERENCES kept DEFERRABLE INITIALLY DEFERRED)",
    )
    rows(link, "CREATE TABLE others (a int PRIMARY KEY)")
    rows(link, "INSERT INTO kept VALUES (1, 'one', 1)")
    link.autocommit = False
    for _ in range(2):
        execute(link, INSERT, 9, "x")
        execute(link, DELETE, 9)
        execute(link, OTHER, 9)
        rows(link, COUNT)
        link.rollback()
    assert link.hold(HOLD) is True
    return link


def know(link: Any) -> None:
    """It has run well on the connection in use."""
    link.release(False)
    for _ in range(2):
        execute(link, INSERT, 9, "x")
        link.rollback()
    link.hold(HOLD)


async def test_commit_carries_them(pg: Links, mode: str) -> None:
    def work() -> None:
        link = make_link(pg)
        with sent():
            assert execute(link, INSERT, 2, "two") == 0
            assert execute(link, DELETE, 1) == 0
            assert execute(link, INSERT, 1, "other") == 0
        assert link.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS
        assert "in a transaction" in repr(link)
        with pytest.raises(psycopg.ProgrammingError, match="a transaction is open"):
            link.autocommit = True
        with sent(4):
            link.commit()
        assert link.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        with sent():
            link.release(True)
            link.commit()
        assert rows(link, "SELECT a, b FROM kept ORDER BY a") == [(1, "other"), (2, "two")]
        link.close()

    await _core.run(work)


async def test_the_next_statement_carries_them(pg: Links, mode: str) -> None:
    def work() -> None:
        link = make_link(pg)
        execute(link, INSERT, 2, "two")
        with sent(2):
            assert rows(link, COUNT) == [(2,)]
        execute(link, INSERT, 3, "three")
        with sent(2):
            assert execute(link, OTHER, 1) == 1
        execute(link, DELETE, 2)
        with sent(2):
            execute(link, "SAVEPOINT s")
        execute(link, DELETE, 3)
        with sent(2):
            execute(link, "RELEASE SAVEPOINT s")
        execute(link, INSERT, 4, "four")
        # This one cannot go with others.
        with sent(1, 1):
            assert rows(link, "SELECT 5; SELECT 6") == [(5,)]
        with sent(1):
            link.commit()
        assert rows(link, "SELECT a FROM kept ORDER BY a") == [(1,), (4,)]
        link.rollback()
        link.release(True)
        link.close()

    await _core.run(work)


async def test_others_of_the_link_send_them(pg: Links, mode: str) -> None:
    def work() -> None:
        link = make_link(pg)
        execute(link, INSERT, 2, "two")
        with link.cursor("named") as cursor:
            cursor.execute(COUNT)
            assert cursor.fetchall() == [(2,)]
        execute(link, INSERT, 3, "three")
        with link.cursor() as cursor, cursor.copy("COPY kept (a) TO STDOUT") as copy:
            assert sorted(bytes(block) for block in copy) == [b"1\n", b"2\n", b"3\n"]
        execute(link, INSERT, 4, "four")
        (cursor, _) = link.execute_together([(COUNT, None), ("SELECT 1", None)])
        assert cursor.fetchall() == [(4,)]
        execute(link, INSERT, 5, "five")
        link.attach()
        assert pg.server.psql("SELECT 1") == "1"
        with sent(1):
            assert rows(link, COUNT) == [(5,)]
        execute(link, INSERT, 6, "six")
        with sent(1):
            link.release(True)
        assert execute(link, DELETE, 6) == 1
        link.rollback()
        link.close()

    await _core.run(work)


async def test_what_is_not_held(pg: Links, mode: str) -> None:
    def work() -> None:
        link = make_link(pg)
        assert link.hold(HOLD) is False
        with sent(1, 1, 1):
            assert execute(link, OTHER, 1) == 1
            assert execute(link, INSERT + " RETURNING a", 7, "x") == 1
            # It has not run here before.
            assert execute(link, "DELETE FROM kept WHERE a = %s", 7) == 1
        with sent():
            assert execute(link, "DELETE FROM kept WHERE a = %s", 1) == 0
        link.rollback()
        link.autocommit = True
        with sent(1):
            assert execute(link, INSERT, 7, "x") == 1
        link.autocommit = False
        with pytest.raises(psycopg.errors.DivisionByZero):
            execute(link, "SELECT 1/0")
        with pytest.raises(psycopg.errors.InFailedSqlTransaction):
            execute(link, INSERT, 8, "x")
        link.rollback()
        for wrong in ("text", (1,), None):
            with pytest.raises(TypeError, match=r"hold\(\) takes a tuple of str"):
                link.hold(wrong)
        link.release(False)
        with sent(1):
            assert execute(link, INSERT, 8, "x") == 1
        link.rollback()
        link.close()
        assert link.hold(HOLD) is False
        link.release(True)

    await _core.run(work)


async def test_many_are_sent_before_commit(pg: Links, mode: str) -> None:
    def work() -> None:
        link = make_link(pg)
        with sent(17):
            for number in range(100, 120):
                execute(link, INSERT, number, "x")
        with sent(4):
            link.commit()
        assert rows(link, COUNT) == [(21,)]
        link.close()

    await _core.run(work)


async def test_rollback_drops_them(pg: Links, mode: str) -> None:
    def work() -> None:
        link = make_link(pg)
        execute(link, INSERT, 2, "two")
        with sent():
            link.rollback()
        execute(link, INSERT, 3, "three")
        execute(link, "SAVEPOINT s")
        execute(link, INSERT, 4, "four")
        with sent(1):
            execute(link, "ROLLBACK TO SAVEPOINT s")
        with sent(1):
            link.commit()
        execute(link, INSERT, 5, "five")
        link.release(False)
        link.commit()
        assert link.hold(HOLD)
        assert rows(link, "SELECT a FROM kept ORDER BY a") == [(1,), (3,)]
        execute(link, INSERT, 6, "six")
        link.close()

    await _core.run(work)
    assert pg.server.psql("SELECT 1") == "1"


async def test_dropped_links(pg: Links, mode: str) -> None:
    def work() -> None:
        links = [make_link(pg)]
        execute(links[0], INSERT, 2, "x" * 100)
        pg.forget()
        with pytest.warns(ResourceWarning, match="inside a transaction"):
            links.clear()

    await _core.run(work)


async def test_errors_are_of_who_carries(pg: Links, mode: str) -> None:
    def work() -> None:
        link = make_link(pg)

        def fails(error: type[Exception], call: Any, *args: Any) -> Any:
            with pytest.raises(error) as caught:
                call(*args)
            assert link.info.transaction_status == psycopg.pq.TransactionStatus.INERROR
            link.rollback()
            assert rows(link, COUNT) == [(1,)]
            link.rollback()
            return caught.value

        duplicate = psycopg.errors.UniqueViolation
        for call, args in (
            (link.commit, ()),
            (rows, (link, COUNT)),
            (execute, (link, "SAVEPOINT s")),
            (rows, (link, "SELECT 5; SELECT 6")),
            (link.attach, ()),
        ):
            execute(link, INSERT, 2, "two")
            execute(link, INSERT, 1, "again")
            execute(link, INSERT, 3, "three")
            error = fails(duplicate, call, *args)
            assert error.diag.constraint_name == "kept_pkey"
        execute(link, INSERT, 1, "again")
        fails(duplicate, link.release, True)
        assert link.hold(HOLD)
        # Who carries has an error of its own.
        execute(link, INSERT, 2, "two")
        fails(psycopg.errors.UndefinedTable, rows, link, "SELECT * FROM missing")
        link.close()

    await _core.run(work)


async def test_constraints_checked_by_commit(pg: Links, mode: str) -> None:
    def work() -> None:
        link = make_link(pg)
        execute(link, INSERT, 2, "two")
        execute(link, DELETE, 1)
        with sent(3), pytest.raises(psycopg.errors.ForeignKeyViolation):
            link.commit()
        assert link.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        assert rows(link, "SELECT a FROM kept") == [(1,)]
        link.rollback()
        link.close()

    await _core.run(work)


async def test_prepared_statements_that_are_gone(pg: Links, mode: str) -> None:
    def work() -> None:
        link = make_link(pg)
        rows(
            link,
            "CREATE OR REPLACE FUNCTION lose() RETURNS void LANGUAGE plpgsql"
            " AS $$ BEGIN EXECUTE 'DEALLOCATE ALL'; END $$",
        )
        link.commit()
        know(link)
        rows(link, "SELECT lose()")
        link.rollback()
        # The flight begins the transaction: sent again, unseen.
        execute(link, INSERT, 2, "two")
        link.commit()
        assert rows(link, COUNT) == [(2,)]
        assert link.config.pooler
        # Behind a pooler nothing is prepared, and this is as ever.
        know(link)
        execute(link, INSERT, 3, "three")
        with sent(2):
            assert rows(link, COUNT) == [(3,)]
        link.rollback()
        link.close()

    await _core.run(work)


async def test_a_backend_that_is_killed(pg: Links, mode: str) -> None:
    def work() -> None:
        link = make_link(pg)

        def kill(pid: int) -> None:
            pg.server.psql(f"SELECT pg_terminate_backend({pid}, 10000)")

        def pid() -> int:
            return rows(link, "SELECT pg_backend_pid()")[0][0]

        # Before the transaction has begun on the server.
        victim = pid()
        link.rollback()
        execute(link, INSERT, 2, "two")
        kill(victim)
        with pytest.raises(psycopg.OperationalError):
            link.commit()
        link.rollback()
        assert rows(link, COUNT) == [(1,)]
        link.rollback()
        # Inside of it: what was taken for done is lost, and so is the transaction.
        for _ in range(2):
            know(link)
        victim = pid()
        execute(link, INSERT, 2, "two")
        kill(victim)
        with pytest.raises(psycopg.OperationalError):
            rows(link, COUNT)
        with pytest.raises(psycopg.OperationalError, match="its transaction with it"):
            execute(link, INSERT, 3, "three")
        with pytest.raises(psycopg.OperationalError, match="nothing was committed"):
            link.commit()
        link.rollback()
        assert rows(link, COUNT) == [(1,)]
        link.close()

    await _core.run(work)


@pytest.mark.modes("asyncio", "uvloop")
async def test_statements_of_another_fiber(pg: Links, mode: str) -> None:
    link = await _core.run(make_link, pg)
    await _core.run(link.release, False)
    turn = asyncio.Event()

    def one() -> None:
        link.hold(HOLD)
        execute(link, INSERT, 2, "two")
        _core.await_(turn.wait())
        with sent(2):
            execute(link, DELETE, 2)
            link.commit()
        link.release(True)

    def other() -> None:
        # Not held, and it finds done what is.
        with sent(2):
            assert execute(link, INSERT, 3, "three") == 1
        assert rows(link, COUNT) == [(3,)]
        turn.set()

    await asyncio.gather(_core.run(one), _core.run(other))
    assert await _core.run(rows, link, "SELECT a FROM kept ORDER BY a") == [(1,), (3,)]
    await _core.run(link.close)


@pytest.mark.modes("asyncio", "uvloop")
async def test_another_fiber_that_is_cancelled_before_it_sends_them(pg: Links, mode: str) -> None:
    """While its own statement is described: they are lost, and must not be missed by a COMMIT."""
    link = await _core.run(make_link, pg)

    def prepare() -> None:
        link.release(False)
        link.autocommit = True
        rows(link, "ALTER TABLE others ADD c bytea")
        link.autocommit = False
        know(link)
        link.release(False)

    await _core.run(prepare)
    turn = asyncio.Event()

    def one() -> None:
        link.hold(HOLD)
        execute(link, INSERT, 2, "two")
        _core.await_(turn.wait())
        link.release(True)
        with pytest.raises(psycopg.OperationalError, match="nothing was committed"):
            link.commit()
        link.rollback()

    owner = asyncio.ensure_future(_core.run(one))
    await asyncio.sleep(0)
    with sent():  # nothing but questions
        other = asyncio.ensure_future(_core.run(rows, link, "SELECT a, c FROM others"))
        await asyncio.sleep(0)
        other.cancel()
        with pytest.raises(asyncio.CancelledError):
            await other
    turn.set()
    await owner
    assert await _core.run(rows, link, "SELECT a FROM kept ORDER BY a") == [(1,)]
    await _core.run(link.close)


SLOW = """
    CREATE OR REPLACE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql
    AS $$ BEGIN PERFORM pg_sleep({seconds}); RETURN NEW; END $$;
    DROP TRIGGER IF EXISTS {name} ON kept;
    CREATE {kind} TRIGGER {name} {when} FOR EACH ROW EXECUTE FUNCTION {name}()
"""


BEFORE = "BEFORE INSERT ON kept"
AFTER = "AFTER INSERT ON kept DEFERRABLE INITIALLY DEFERRED"


def make_slow(admin: Any, seconds: float, *, on_insert: bool) -> None:
    """So many seconds are taken by each INSERT, or by COMMIT for each."""
    name = "slow_insert" if on_insert else "slow_commit"
    kind, when = ("", BEFORE) if on_insert else ("CONSTRAINT", AFTER)
    rows(admin, SLOW.format(name=name, seconds=seconds, kind=kind, when=when))
    admin.commit()


@pytest.mark.modes("asyncio", "uvloop")
@pytest.mark.parametrize("known", [False, True], ids=["unknown", "known"])
@pytest.mark.parametrize(("slow_insert", "seconds"), [(True, 60), (False, 0.02), (False, 60)])
async def test_cancelled_in_the_flight(
    pg: Links, mode: str, slow_insert: bool, seconds: float, known: bool
) -> None:
    """`known`: with a command_timeout each answer comes at once, so that only COMMIT's is open."""

    def prepare() -> Any:
        admin = make_link(pg)
        admin.release(False)
        admin.commit()
        config = pg.config(command_timeout=50) if known else None
        link = pg.link(config=config, max_size=1)
        link.autocommit = False
        know(link)
        pid = rows(link, "SELECT pg_backend_pid()")[0][0]
        link.rollback()
        make_slow(admin, seconds, on_insert=slow_insert)
        admin.close()
        return link, pid

    link, pid = await _core.run(prepare)

    def work() -> None:
        execute(link, INSERT, 2, "x")
        execute(link, INSERT, 3, "x")
        link.commit()

    def sleeps() -> bool:
        status = f"SELECT wait_event FROM pg_stat_activity WHERE pid = {pid}"
        return "PgSleep" in pg.server.psql(status)

    task = asyncio.ensure_future(_core.run(work))
    while not task.done() and not (known or seconds > 1 or sleeps()):
        await asyncio.sleep(0)
    while seconds > 1 and not sleeps():
        await asyncio.sleep(0)
    for _ in range(5):  # what the server has said is read
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])

    def after() -> None:
        committed = link.committed if task.cancelled() else task.exception() is None
        link.autocommit = True  # whatever has become of it, the transaction is over
        link.autocommit = False
        link.release(True)
        if seconds > 1 and known and not slow_insert:
            assert committed == -1
        else:
            # A machine that is busy may take longer than the cancel may: then nobody knows.
            found = rows(link, COUNT)
            assert committed < 0 or found == [(3 if committed else 1,)]
            assert seconds < 1 or committed <= 0
        link.close()

    await _core.run(after)
    pg.server.psql(f"SELECT pg_terminate_backend({pid}, 10000)")


async def test_a_limit_for_each_answer(pg: Links, mode: str) -> None:
    def work() -> None:
        admin = make_link(pg)
        admin.release(False)
        make_slow(admin, 0.3, on_insert=True)
        link = pg.link(config=pg.config(command_timeout=0.5), max_size=1)
        link.autocommit = False
        know(link)
        for number in (2, 3, 4):
            execute(link, INSERT, number, "x")
        with sent(4):
            link.commit()
        assert rows(link, COUNT) == [(4,)]
        link.rollback()
        # One takes too long: it is cancelled, and nothing was committed.
        make_slow(admin, 60, on_insert=True)
        execute(link, INSERT, 5, "x")
        with pytest.raises(psycopg.OperationalError, match="nothing was committed") as caught:
            link.commit()
        assert caught.value.sqlstate == "57014"
        link.rollback()
        assert rows(link, COUNT) == [(4,)]
        link.rollback()
        # COMMIT does.
        rows(admin, "DROP TRIGGER slow_insert ON kept")
        make_slow(admin, 60, on_insert=False)
        pid = rows(link, "SELECT pg_backend_pid()")[0][0]
        execute(link, INSERT, 5, "x")
        with pytest.raises(psycopg.OperationalError, match="not known; the connection was closed"):
            link.commit()
        pg.server.psql(f"SELECT pg_terminate_backend({pid}, 10000)")
        assert link.committed == -1
        assert not link.attached
        link.rollback()
        link.close()
        admin.close()

    await _core.run(work)

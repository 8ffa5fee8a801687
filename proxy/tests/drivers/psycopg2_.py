"""psycopg2 through pgstar: python psycopg2_.py DIRECT THROUGH."""

import io
import select
import sys
import threading

import psycopg2
import psycopg2.extensions
from ssb import BY_REGION, PARAMETERS, QUERIES, same

DIRECT, THROUGH = sys.argv[1:]


def ask(connection, sql, parameters=None):
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        described = [tuple(column) for column in cursor.description]
        return described, cursor.statusmessage, sorted(cursor.fetchall(), key=repr)


def both(direct, through, sql, parameters=None):
    same(ask(direct, sql, parameters), ask(through, sql, parameters), sql)


def queries(direct, through):
    for autocommit in (True, False):
        for connection in (direct, through):
            connection.autocommit = autocommit
        for sql in QUERIES.values():
            for _ in range(2):
                both(direct, through, sql)
        for parameters in PARAMETERS:
            both(direct, through, BY_REGION, parameters)
        for connection in (direct, through):
            connection.commit()


def named_cursor(connection):
    with connection.cursor(name="mine") as cursor:
        cursor.itersize = 5
        cursor.execute(QUERIES["q3.1"])
        found = list(cursor)
    connection.commit()
    return found


def copy(connection):
    with connection.cursor() as cursor:
        cursor.execute("CREATE TEMP TABLE copied (a int, b text) ON COMMIT DROP")
        lines = "".join(f"{n}\t{'x' * (n % 9)}\n" for n in range(5000))
        cursor.copy_expert("COPY copied FROM STDIN", io.StringIO(lines))
        back = io.StringIO()
        cursor.copy_expert("COPY (SELECT * FROM copied ORDER BY a) TO STDOUT", back)
        assert back.getvalue() == lines
    connection.commit()
    return len(lines)


def savepoints_and_errors(connection):
    found = []
    with connection.cursor() as cursor:
        cursor.execute("SAVEPOINT mine")
        try:
            cursor.execute("SELECT sum(nonsense) FROM lineorder")
        except psycopg2.errors.UndefinedColumn as error:
            found.append((error.pgcode, error.diag.statement_position, str(error)))
        try:
            cursor.execute(QUERIES["q1.1"])
        except psycopg2.errors.InFailedSqlTransaction as error:
            found.append(error.pgcode)
        cursor.execute("ROLLBACK TO SAVEPOINT mine")
        cursor.execute(QUERIES["q1.1"])
        found += cursor.fetchall()
    connection.rollback()
    return found


def notify(connection):
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("LISTEN bell; NOTIFY bell, 'ding'")
        while not connection.notifies:
            select.select([connection], [], [], 10)
            connection.poll()
        cursor.execute("UNLISTEN *")
    return [notice.payload for notice in connection.notifies]


def cancel(connection):
    timer = threading.Timer(0.3, connection.cancel)
    timer.start()
    try:
        ask(connection, "SELECT pg_sleep(20), count(*) FROM lineorder")
    except psycopg2.extensions.QueryCanceledError as error:
        return error.pgcode, ask(connection, QUERIES["q1.1"])
    finally:
        timer.join()
    raise AssertionError("it was not cancelled")


def settings(connection):
    with connection.cursor() as cursor:
        cursor.execute("SET TimeZone = 'Asia/Tokyo'")
    connection.set_client_encoding("LATIN1")
    found = ask(connection, QUERIES["q1.1"])
    connection.set_client_encoding("UTF8")
    connection.reset()
    return found, connection.encoding, connection.get_parameter_status("TimeZone")


direct, through = psycopg2.connect(DIRECT), psycopg2.connect(THROUGH)
queries(direct, through)
for step in (named_cursor, copy, savepoints_and_errors, notify, cancel, settings):
    same(step(direct), step(through), step.__name__)
both(direct, through, QUERIES["q4.1"])
direct.close()
through.close()
print("all done")

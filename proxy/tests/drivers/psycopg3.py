"""psycopg 3 through pgstar: python psycopg3.py DIRECT THROUGH."""

import sys
import threading
import time

import psycopg
from psycopg.rows import dict_row
from ssb import BY_REGION, PARAMETERS, QUERIES, same

DIRECT, THROUGH = sys.argv[1:]


def columns(cursor):
    return [
        (c.name, c.type_code, c.display_size, c.internal_size, c.precision, c.scale) for c in cursor.description
    ]


def ask(connection, sql, parameters=None, **options):
    with connection.cursor(**{k: options.pop(k) for k in ("binary", "row_factory") if k in options}) as cursor:
        cursor.execute(sql, parameters, **options)
        return columns(cursor), cursor.statusmessage, sorted(cursor.fetchall(), key=repr)


def both(direct, through, sql, parameters=None, **options):
    same(ask(direct, sql, parameters, **dict(options)), ask(through, sql, parameters, **dict(options)), sql)


def plain_and_parameters(direct, through):
    for sql in QUERIES.values():
        for _ in range(2):
            both(direct, through, sql)
            both(direct, through, sql, binary=True)
        both(direct, through, sql, row_factory=dict_row)
    for parameters in PARAMETERS:
        for binary in (False, True):
            both(direct, through, BY_REGION, parameters, binary=binary)


def prepared_after_five_executions(direct, through):
    for connection in (direct, through):
        connection.prepare_threshold = 5
    for round in range(12):
        both(direct, through, BY_REGION, PARAMETERS[round % len(PARAMETERS)])
    for _ in range(3):
        both(direct, through, QUERIES["q1.1"], prepare=True)
    both(direct, through, "SELECT count(*) FROM pg_prepared_statements")


def server_side_cursor(connection):
    with connection.transaction(), connection.cursor(name="mine") as cursor:
        cursor.execute(QUERIES["q3.1"])
        some, rest = cursor.fetchmany(7), cursor.fetchall()
        return some + rest


def pipeline(connection):
    with connection.pipeline(), connection.cursor() as one, connection.cursor() as two:
        one.execute(QUERIES["q1.1"])
        two.execute(BY_REGION, PARAMETERS[0])
        connection.execute("SELECT 1")
        return one.fetchall() + two.fetchall()


def failing_pipeline(connection):
    try:
        with connection.pipeline():
            connection.execute(QUERIES["q1.1"])
            connection.execute("SELECT sum(nonsense) FROM lineorder")
            connection.execute(QUERIES["q1.2"])
    except psycopg.Error as error:
        connection.rollback()
        return error.sqlstate, error.diag.message_primary, error.diag.statement_position
    raise AssertionError("no error")


def transactions(connection):
    found = []
    connection.autocommit = False
    found += connection.execute(QUERIES["q1.1"]).fetchall()
    try:
        with connection.transaction():
            connection.execute("SELECT 1/0 FROM lineorder GROUP BY lo_tax")
    except psycopg.errors.DivisionByZero as error:
        found.append(str(error))
    found += connection.execute(QUERIES["q1.2"]).fetchall()
    connection.rollback()
    connection.autocommit = True
    return found


def copy(connection):
    connection.execute("CREATE TEMP TABLE copied (a int, b text)")
    with connection.cursor() as cursor:
        with cursor.copy("COPY copied FROM STDIN") as sink:
            for n in range(20_000):
                sink.write_row((n, "x" * (n % 50)))
        cursor.execute("SELECT count(*), sum(a), sum(length(b)) FROM copied")
        found = cursor.fetchall()
        with cursor.copy("COPY (SELECT * FROM copied ORDER BY a) TO STDOUT (FORMAT binary)") as source:
            found.append(hash(b"".join(bytes(piece) for piece in source)))
        with cursor.copy(f"COPY ({QUERIES['q2.1']}) TO STDOUT") as source:
            found += sorted(source.rows())
        try:
            with cursor.copy("COPY copied FROM STDIN") as sink:
                sink.write("not a number\tx\n")
        except psycopg.errors.InvalidTextRepresentation as error:
            found.append(error.diag.context)
        found += cursor.execute("SELECT count(*) FROM copied").fetchall()
    connection.execute("DROP TABLE copied")
    return found


def notify(connection):
    connection.execute("LISTEN bell")
    connection.execute("NOTIFY bell, 'ding'")
    with psycopg.connect(DIRECT, autocommit=True) as other:
        other.execute("NOTIFY bell, 'dong'")
    heard = [notice.payload for notice in connection.notifies(timeout=10, stop_after=2)]
    connection.execute("UNLISTEN *")
    return heard


def notices(connection):
    heard = []
    connection.add_notice_handler(lambda diag: heard.append((diag.severity, diag.message_primary)))
    connection.execute("DO $$ BEGIN RAISE NOTICE 'hear hear'; RAISE WARNING 'oh'; END $$")
    return heard


def cancel(connection):
    timer = threading.Timer(0.3, connection.cancel_safe)
    timer.start()
    began = time.monotonic()
    try:
        connection.execute("SELECT pg_sleep(20), count(*) FROM lineorder")
    except psycopg.errors.QueryCanceled as error:
        assert time.monotonic() - began < 5
        return error.sqlstate, connection.execute("SELECT 1").fetchall()
    finally:
        timer.join()
    raise AssertionError("it was not cancelled")


def errors(connection):
    found = []
    for sql in (
        "SELECT sum(lo_revenue) FROM lineorder WHERE",
        "SELECT d_year, sum(lo_revenu)\nFROM lineorder, date GROUP BY 1",
        "SELECT sum(lo_revenue) FROM lineorder, date WHERE d_year = 'x'",
        "SELECT lo_tax, sum(lo_revenue) FROM lineorder GROUP BY lo_tax HAVING 1/(count(*) - count(*)) > 0",
    ):
        for parameters in (None, ()):
            try:
                connection.execute(sql, parameters)
            except psycopg.Error as error:
                diag = error.diag
                found.append((diag.sqlstate, diag.message_primary, diag.statement_position, diag.message_hint))
            else:
                raise AssertionError(sql)
    return found


def parameter_status(connection):
    info = connection.info
    names = ("server_version", "client_encoding", "TimeZone", "standard_conforming_strings", "is_superuser")
    return [info.parameter_status(name) for name in names] + [info.encoding, info.server_version]


with psycopg.connect(DIRECT, autocommit=True) as direct, psycopg.connect(THROUGH, autocommit=True) as through:
    plain_and_parameters(direct, through)
    prepared_after_five_executions(direct, through)
    for step in (
        parameter_status, server_side_cursor, pipeline, failing_pipeline, transactions, copy, notify, notices, cancel, errors,
    ):
        same(step(direct), step(through), step.__name__)
    both(direct, through, QUERIES["q4.1"])
print("all done")

"""psycopg 3: driver.py text | binary | pipeline."""

import contextlib
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))
import psycopg
from common import parameters, say, script, shown

MODE = sys.argv[1]
BINARY = MODE == "binary"
connection = psycopg.connect("", autocommit=True, cursor_factory=psycopg.RawCursor)
notices = []


def noticed(diagnostic):
    notices.append([diagnostic.severity, diagnostic.message_primary])
    if diagnostic.message_primary == "running":
        # The older call sends its request in clear, the newer one over TLS.
        connection.cancel_safe(timeout=30) if BINARY else connection.cancel()


connection.add_notice_handler(noticed)


def results(cursor):
    """Every result of the last execute."""
    while True:
        rows = [[shown(cell) for cell in row] for row in cursor.fetchall()] if cursor.description else None
        yield {"tag": cursor.statusmessage, "rows": rows}
        if not cursor.nextset():
            return


@contextlib.contextmanager
def reported(at):
    """Tells an error as the server told it, and the notices that came with the step."""
    try:
        yield
    except psycopg.Error as error:
        say(at, error=[error.diag.sqlstate, error.diag.message_primary])
    if notices:
        say(at, notices=list(notices))
        notices.clear()


def run(at, sql, values=None, **how):
    cursor = connection.cursor(binary=BINARY)
    cursor.execute(sql, values, binary=BINARY, **how)
    say(at, results=list(results(cursor)))


def many(at, calls):
    """Several executions: in one pipeline where the mode says so, else one after the other."""
    if MODE != "pipeline":
        for sql, values, how in calls:
            run(at, sql, values, **how)
        return
    with connection.pipeline():
        cursors = []
        for sql, values, how in calls:
            cursor = connection.cursor()
            cursor.execute(sql, values, **how)
            cursors.append(cursor)
    for cursor in cursors:
        say(at, results=list(results(cursor)))


for at, step in enumerate(script()):
    kind, sql = step["do"], step.get("sql")
    with reported(at):
        if kind in ("run", "several", "cancel"):
            # Binary results need the extended protocol, which takes one statement at a time.
            if kind == "several":
                cursor = connection.cursor()
                cursor.execute(sql)
                say(at, results=list(results(cursor)))
            else:
                run(at, sql, parameters(step["params"]) if "params" in step else None)
        elif kind == "prepared":
            many(at, [(sql, parameters(values), {"prepare": True}) for values in step["runs"]])
        elif kind == "pipeline":
            many(at, [(one["sql"], parameters(one["params"]), {}) for one in step["steps"]])
        elif kind == "transaction":
            with connection.transaction(force_rollback=step["end"] == "rollback"):
                many(at, [(one["sql"], parameters(one["params"]), {}) for one in step["steps"]])
        elif kind == "copy_in":
            with connection.cursor() as cursor:
                with cursor.copy(sql) as copy:
                    copy.write(step["data"])
                say(at, tag=cursor.statusmessage)
        elif kind == "copy_out":
            with connection.cursor() as cursor:
                with cursor.copy(sql) as copy:
                    data = b"".join(bytes(chunk) for chunk in copy).decode()
                say(at, tag=cursor.statusmessage, data=data)
        elif kind == "fetch":
            with connection.transaction(), connection.cursor(name="fetching") as cursor:
                cursor.execute(sql)
                while rows := cursor.fetchmany(step["size"]):
                    say(at, rows=[[shown(cell) for cell in row] for row in rows])
        else:
            raise SystemExit(f"unknown step {kind}")
connection.close()

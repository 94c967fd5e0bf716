"""libpq 18 as psycopg's wheel brings it: driver.py 'CONNECTION STRING' [HOW].

Connects with the libpq environment and the string, and prints one JSON line with what libpq says of the connection, and with
the answer to one query. A statement is then cancelled as HOW says: `clear` (PQcancel) or `secure` (PQcancelBlocking).
Where the server asks for a token, the program hands over $GATEBOOK_TOKEN through libpq's own hook (PQsetAuthDataHook).
"""

import ctypes
import glob
import json
import os
import sys

import psycopg
import psycopg_binary

WANTS_TOKEN = 1  # PQAUTHDATA_OAUTH_BEARER_TOKEN


class TokenRequest(ctypes.Structure):
    """PGoauthBearerRequest of libpq-fe.h."""

    _fields_ = [
        ("openid_configuration", ctypes.c_char_p),
        ("scope", ctypes.c_char_p),
        ("async_", ctypes.c_void_p),
        ("cleanup", ctypes.c_void_p),
        ("token", ctypes.c_char_p),
        ("user", ctypes.c_void_p),
    ]


asked = []
token = os.environb.get(b"GATEBOOK_TOKEN", b"")


@ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
def hook(kind, _connection, data):
    if kind != WANTS_TOKEN:
        return 0
    request = ctypes.cast(data, ctypes.POINTER(TokenRequest)).contents
    asked.append({"configuration": request.openid_configuration.decode(), "scope": (request.scope or b"").decode()})
    request.token = token
    return 1


beside = os.path.join(os.path.dirname(psycopg_binary.__file__), "..", "psycopg_binary.libs", "libpq-*")
library = ctypes.CDLL(glob.glob(beside)[0])
library.PQsetAuthDataHook(hook)
library.PQfullProtocolVersion.argtypes = [ctypes.c_void_p]
told = {"libpq": psycopg.pq.version()}
try:
    connection = psycopg.connect(sys.argv[1], autocommit=True)
    raw = connection.pgconn
    told["protocol"] = library.PQfullProtocolVersion(raw.pgconn_ptr)
    told["tls"] = raw.ssl_in_use
    told["row"] = connection.execute("SELECT current_user, 41 + 1").fetchone()
    if len(sys.argv) > 2:
        cancel = connection.cancel if sys.argv[2] == "clear" else lambda: connection.cancel_safe(timeout=30)
        connection.add_notice_handler(lambda notice: cancel())
        try:
            connection.execute("DO $$ BEGIN RAISE NOTICE 'running'; PERFORM pg_sleep(300); END $$")
        except psycopg.Error as error:
            told["cancelled"] = error.sqlstate
    connection.close()
except psycopg.OperationalError as error:
    told["error"] = str(error)
told["asked"] = asked
print(json.dumps(told))

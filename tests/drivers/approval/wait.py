"""psycopg, with a statement that waits for approval: wait.py wait | cancel | leave.

Prints each notice, then how the statement came out.
"""

import os
import sys
import threading

import psycopg

mode = sys.argv[1]
connection = psycopg.connect(autocommit=True)


def told(notice):
    print("notice", notice.sqlstate, notice.message_primary, flush=True)
    if mode == "cancel":
        threading.Thread(target=connection.cancel).start()
    if mode == "leave":
        os._exit(3)


connection.add_notice_handler(told)
try:
    cursor = connection.execute("INSERT INTO journal (id, worker, body) VALUES (%s, 0, 'psycopg')", [1])
    print("done", cursor.statusmessage, flush=True)
except psycopg.Error as error:
    print("failed", error.sqlstate, flush=True)
print("after", connection.execute("SELECT 7").fetchone()[0], flush=True)

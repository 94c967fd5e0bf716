"""asyncpg: driver.py cached | uncached (the size of its statement cache)."""

import asyncio
import io
import os
import ssl
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))
import asyncpg
from common import parameters, say, script, shown

MODE = sys.argv[1]


async def main():
    tls = ssl.create_default_context(cafile=os.environ["PGSSLROOTCERT"])
    size = 100 if MODE == "cached" else 0
    connection = await asyncpg.connect(host=os.environ["PGHOST"], ssl=tls, statement_cache_size=size, timeout=30)
    notices = []
    running = asyncio.Event()

    def noticed(_, message):
        notices.append([message.severity, message.message])
        if message.message == "running":
            running.set()

    connection.add_log_listener(noticed)

    def tell(at, rows):
        say(at, rows=[[shown(cell) for cell in row] for row in rows])

    async def run(at, step):
        kind, sql = step["do"], step.get("sql")
        if kind == "several" or step.get("simple"):
            say(at, tag=await connection.execute(sql))
        elif kind == "run":
            tell(at, await connection.fetch(sql, *parameters(step.get("params", []))))
        elif kind == "prepared":
            statement = await connection.prepare(sql)
            for values in step["runs"]:
                tell(at, await statement.fetch(*parameters(values)))
                say(at, tag=statement.get_statusmsg())
        elif kind == "pipeline":
            for one in step["steps"]:
                say(at, tag=await connection.execute(one["sql"], *parameters(one["params"])))
        elif kind == "transaction":
            transaction = connection.transaction()
            await transaction.start()
            for one in step["steps"]:
                say(at, tag=await connection.execute(one["sql"], *parameters(one["params"])))
            await (transaction.commit() if step["end"] == "commit" else transaction.rollback())
        elif kind == "copy_in":
            source = io.BytesIO(step["data"].encode())
            say(at, tag=await connection.copy_to_table(step["table"], columns=step["columns"], source=source))
        elif kind == "copy_out":
            out = io.BytesIO()
            tag = await connection.copy_from_table(step["table"], columns=step["columns"], output=out)
            say(at, tag=tag, data=out.getvalue().decode())
        elif kind == "fetch":
            async with connection.transaction():
                cursor = await connection.cursor(sql)
                while rows := await cursor.fetch(step["size"]):
                    tell(at, rows)
        elif kind == "cancel":
            task = asyncio.create_task(connection.execute(sql))
            await asyncio.wait_for(running.wait(), 30)
            task.cancel()
            try:
                await task
            except asyncio.CancelledError:
                say(at, cancelled=True)
        else:
            raise SystemExit(f"unknown step {kind}")

    for at, step in enumerate(script()):
        try:
            await run(at, step)
        except asyncpg.PostgresError as error:
            say(at, error=[error.sqlstate, error.message])
        if notices:
            say(at, notices=list(notices))
            notices.clear()
    await connection.close()


asyncio.run(main())

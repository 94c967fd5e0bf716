"""psql, fed on its standard input: driver.py plain.

Parameters become PREPARE and EXECUTE, which is how a person would write them.
"""

import os
import signal
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))
from common import say, script


def literal(value):
    if value is None:
        return "NULL"
    if isinstance(value, dict):
        return rf"'\x{value['bytes']}'"
    if isinstance(value, int):
        return str(value)
    return "'" + value.replace("'", "''") + "'"


def executed(sql, runs):
    """A statement with parameters, for each list of values."""
    if runs == [[]]:
        return [sql]
    calls = ["EXECUTE parametrised (%s)" % ", ".join(literal(value) for value in values) for values in runs]
    return [f"PREPARE parametrised AS {sql}", *calls, "DEALLOCATE parametrised"]


def lines(step):
    kind, sql = step["do"], step.get("sql")
    if kind in ("run", "several"):
        # "\;" would join statements into one query as -c does; here each is sent by itself.
        return [line + ";" for line in executed(sql, [step.get("params", [])])]
    if kind == "prepared":
        return [line + ";" for line in executed(sql, step["runs"])]
    if kind in ("pipeline", "transaction"):
        within = [line + ";" for one in step["steps"] for line in executed(one["sql"], [one["params"]])]
        return within if kind == "pipeline" else ["BEGIN;", *within, step["end"].upper() + ";"]
    if kind == "copy_in":
        return [sql + ";\n" + step["data"] + "\\."]
    if kind == "copy_out":
        return [sql + ";"]
    if kind == "fetch":
        return [rf"\set FETCH_COUNT {step['size']}", sql + ";", r"\unset FETCH_COUNT"]
    raise SystemExit(f"unknown step {kind}")


def psql():
    command = ["psql", "-X", "-v", "VERBOSITY=verbose", "-v", "SHOW_CONTEXT=never", "-P", "pager=off"]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8"
    )


def told(at, process, said):
    out, errors = said
    # Where in the server's source an error arose tells of the server's build, not of the conversation.
    errors = [line for line in errors.splitlines() if not line.startswith("LOCATION:")]
    say(at, out=out.splitlines(), errors=errors, status=process.returncode)


steps = script()
cancel = next(at for at, step in enumerate(steps) if step["do"] == "cancel")

process = psql()
text = "\n".join(line for step in steps[:cancel] for line in lines(step)) + "\n"
told(0, process, process.communicate(text, timeout=120))

process = psql()
process.stdin.write(steps[cancel]["sql"] + ";\nSELECT 'same connection';\n")
process.stdin.flush()
heard = []
for line in process.stderr:
    heard.append(line)
    if "running" in line:
        process.send_signal(signal.SIGINT)
        break
out, errors = process.communicate(timeout=120)
told(cancel, process, (out, "".join(heard) + errors))

process = psql()
text = "\n".join(line for step in steps[cancel + 1 :] for line in lines(step)) + "\n"
told(cancel + 1, process, process.communicate(text, timeout=120))

# One string with several statements, as -c sends it.
several = next(step for step in steps if step["do"] == "several")
said = subprocess.run(["psql", "-X", "-A", "-c", several["sql"]], capture_output=True, text=True, timeout=120)
say(len(steps), out=said.stdout.splitlines(), errors=said.stderr.splitlines())

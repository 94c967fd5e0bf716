"""What the Python driver programs share: the script, and how a transcript is written."""

import json
import os


def script():
    """The steps, each statement tagged by the harness."""
    with open(os.environ["GATEBOOK_SCRIPT"], encoding="utf-8") as file:
        return json.load(file)


def parameters(step):
    """A step's parameters as Python values."""
    return [bytes.fromhex(value["bytes"]) if isinstance(value, dict) else value for value in step]


def shown(value):
    """A cell as text that does not depend on the driver's taste."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).hex()
    return str(value)


def say(at, **what):
    """One line of the transcript."""
    print(json.dumps({"step": at, **what}, ensure_ascii=False), flush=True)

#!/usr/bin/env python3
"""Verifies a Gatebook ledger: a live directory, an export, or the bundle of one session.

It is a second verifier, written from docs/ledger-format.md and docs/export.md alone. It needs Python 3.8 and
the packages blake3 and cryptography. It reads files and writes nothing.

Exit status: 0 verified and anchored, 1 tampered with, 2 something is missing, 3 cannot be read or wrongly called,
4 nothing is wrong, but no key is pinned or nothing anchors it. Bring the key (--key) from a place that the ledger's
machine cannot write; a checkpoint that was kept elsewhere (--checkpoint), or a witness's key (--witness), anchors it.
"""
import argparse
import base64
import binascii
import bisect
import collections
import datetime
import fcntl
import hashlib
import json
import os
import re
import sys
import time

try:
    from blake3 import blake3
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
except ImportError as error:
    print(f"verify.py: {error}; pip install blake3 cryptography", file=sys.stderr)
    sys.exit(3)

BLOCK = 4096
NOTE_MAX = 64 * 1024
ENTRIES_MAX, PAYLOADS_MAX, FOOTER_MAX = 1 << 20, 128 << 20, 64 << 20
ENTRY_HEAD, ENTRY_MAX = 104, 65_535
FRAME_HEAD, FRAME_TAIL = 76, 100
ZERO = bytes(32)
OPENED, HEAD, KEYS, SEAL, REDACTION, SESSION_OPENED, SESSION_CLOSED = 1, 2, 4, 5, 7, 16, 17
LOOKS, PAUSE = 20, 0.05  # at the end of a ledger that is being written
ARCHIVED_MAX = 1_000_000
UNTOLD = "an epoch whose seal is missing with the frames of its segment"


class Bad(Exception):
    """Bytes that are not what they should be."""


def need(condition, what):
    if not condition:
        raise Bad(what)


def number(data):
    return int.from_bytes(data, "big")


def unbase64(text):
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Bad("it is not base64") from None
    need(base64.b64encode(data).decode() == text, "base64 is not in its one spelling")
    return data


def padded(length):
    return -(-length // BLOCK) * BLOCK


# Hashes and signatures: sections 1 and 2.

CRC_TABLE = []
for _byte in range(256):
    for _ in range(8):
        _byte = _byte >> 1 ^ (0x82F63B78 if _byte & 1 else 0)
    CRC_TABLE.append(_byte)


def crc32c(data):
    crc, table = 0xFFFFFFFF, CRC_TABLE
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
    return (crc ^ 0xFFFFFFFF).to_bytes(4, "big")


def derived(use, data):
    return blake3(data, derive_key_context=f"gatebook-ledger/v1 {use}").digest()


def leaf_hash(entry):
    return hashlib.sha256(b"\0" + entry).digest()


def node(left, right):
    return hashlib.sha256(b"\1" + left + right).digest()


EMPTY_ROOT = hashlib.sha256(b"").digest()

# Ed25519's field, and the y coordinates of its eight points of small order.
P = 2**255 - 19
SMALL = int.from_bytes(bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little")
SMALL_ORDER = {0, 1, P - 1, SMALL, P - SMALL}


def is_small(point):
    return (int.from_bytes(point, "little") & (1 << 255) - 1) % P in SMALL_ORDER


def public_key(data):
    need(len(data) == 32 and not is_small(data), "it is no key")
    return data


def verifies(key, message, signature):
    if len(signature) != 64 or is_small(key) or is_small(signature[:32]):
        return False
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
        return True
    except (InvalidSignature, ValueError):
        return False


def signed_message(use, origin, epoch, message):
    name = origin.encode()
    return b"gatebook-ledger/v1/" + use + b"\0" + bytes([len(name)]) + name + epoch.to_bytes(4, "big") + message


# The tree: RFC 6962.

class Range:
    """The tree so far, as its perfect subtrees from left to right."""

    def __init__(self):
        self.size, self.nodes = 0, []

    def push(self, leaf):
        height, at = 0, self.size
        self.size += 1
        while at & 1:
            leaf = node(self.nodes.pop()[1], leaf)
            height, at = height + 1, at >> 1
        self.nodes.append((height, leaf))

    def root(self):
        root = None
        for _, left in reversed(self.nodes):
            root = left if root is None else node(left, root)
        return EMPTY_ROOT if root is None else root


def root_from_inclusion(index, size, leaf, path):
    """The root that an inclusion proof leads to (RFC 9162, section 2.1.3.2); none where its shape is wrong."""
    if index >= size:
        return None
    last = size - 1
    for sibling in path:
        if last == 0:
            return None
        if index & 1 or index == last:
            leaf = node(sibling, leaf)
            while not index & 1 and index:
                index, last = index >> 1, last >> 1
        else:
            leaf = node(leaf, sibling)
        index, last = index >> 1, last >> 1
    return leaf if last == 0 else None


def is_consistent(old, new, path):
    """Whether one (size, root) is the beginning of another (RFC 9162, section 2.1.4.2)."""
    (old_size, old_root), (new_size, new_root) = old, new
    if old_size == 0:
        return old_root == EMPTY_ROOT and not path
    if old_size >= new_size:
        return old == new and not path
    path = list(path) if old_size & (old_size - 1) else [old_root, *path]
    if not path:
        return False
    at, last = old_size - 1, new_size - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    first = second = path[0]
    for sibling in path[1:]:
        if last == 0:
            return False
        if at & 1 or at == last:
            first, second = node(sibling, first), node(sibling, second)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            second = node(second, sibling)
        at, last = at >> 1, last >> 1
    return last == 0 and first == old_root and second == new_root


# Notes: C2SP signed-note, tlog-checkpoint, tlog-cosignature.

ORIGIN = re.compile(r'[!#-*,-\[\]-~]{1,255}')
NUMBER = re.compile(r"0|[1-9][0-9]{0,19}")


def key_id(name, algorithm, key):
    return hashlib.sha256(name.encode() + b"\n" + bytes([algorithm]) + key).digest()[:4]


class Vkey:
    """A verifier key; of type 1 for logs, of type 4 for witnesses."""

    def __init__(self, name, key, algorithm=1):
        self.name, self.key, self.algorithm = name, key, algorithm
        self.id = key_id(name, algorithm, key)

    @classmethod
    def parse(cls, text, algorithm):
        name, _, rest = text.partition("+")
        typed = unbase64(rest.partition("+")[2])
        need(len(typed) == 33 and typed[0] == algorithm and ORIGIN.fullmatch(name), "not a verifier key of its type")
        vkey = cls(name, public_key(typed[1:]), algorithm)
        need(str(vkey) == text, "not a verifier key: its id is not that of its name and key")
        return vkey

    def __str__(self):
        encoded = base64.b64encode(bytes([self.algorithm]) + self.key).decode()
        return f"{self.name}+{self.id.hex()}+{encoded}"


class Note:
    """A checkpoint, read and not yet believed."""

    def __init__(self, data):
        try:
            self._parse(data)
        except Bad as why:
            raise Bad(f"not a good checkpoint: {why}") from None

    def _parse(self, data):
        need(len(data) <= NOTE_MAX, "it is too long")
        try:
            text, _, lines = data.decode().partition("\n\n")
        except UnicodeDecodeError:
            raise Bad("it is not UTF-8") from None
        fields = text.split("\n")
        need(len(fields) == 3 and lines.endswith("\n"), "it has not three lines and signatures")
        self.origin, size, root = fields
        need(ORIGIN.fullmatch(self.origin) and NUMBER.fullmatch(size), "its origin or size is none")
        self.size, self.root = int(size), unbase64(root)
        need(self.size < 1 << 64 and len(self.root) == 32, "its size or root is none")
        self.text = (text + "\n").encode()
        self.lines = []
        for line in lines[:-1].split("\n"):
            dash, _, rest = line.partition(" ")
            name, _, encoded = rest.partition(" ")
            signature = unbase64(encoded)
            need(dash == "\u2014" and name and "+" not in name and len(signature) > 4, "a signature line is not one")
            self.lines.append((name, signature[:4], signature[4:]))

    def is_signed_by(self, vkey):
        return any((name, id) == (vkey.name, vkey.id) and verifies(vkey.key, self.text, signature)
                   for name, id, signature in self.lines)

    def epochs(self):
        """The epochs whose keys it says signed it; anybody may have added lines."""
        prefix = self.origin + "/epoch/"
        named = (name[len(prefix):] for name, _, _ in self.lines if name.startswith(prefix))
        return [int(text) for text in named if NUMBER.fullmatch(text) and int(text) < 1 << 32]

    def is_signed_by_epoch(self, number, key):
        name = f"{self.origin}/epoch/{number}"
        return self.is_signed_by(Vkey(name if ORIGIN.fullmatch(name) else self.origin, key))

    def cosigned_at(self, witness):
        """When a witness cosigned it; none where it did not. A false line under its name is tampering."""
        newest = None
        for name, id, data in self.lines:
            if (name, id) == (witness.name, witness.id):
                time = number(data[:8])
                message = b"cosignature/v1\ntime %d\n" % time + self.text
                need(len(data) == 72 and time < 1 << 63 and verifies(witness.key, message, data[8:]),
                     "a cosignature under a pinned witness's name is false")
                newest = time if newest is None else max(newest, time)
        return newest


# The manifest: section 3.

MANIFEST = ("# What this ledger is. The chain covers every byte of this file: a change makes it unverifiable.\n"
            "format = 1\norigin = \"%s\"\nroot_key = \"%s\"\nlog_key = \"%s\"\nepoch_key = \"%s\"\ncertificate = \"%s\"\n")


class Manifest:
    def __init__(self, data):
        try:
            fields = re.findall(r'^[a-z_]+ = "([^"\n]*)"$', data.decode("ascii"), re.M)
            need(len(fields) == 5 and MANIFEST % tuple(fields) == data.decode("ascii"), "it is not in its one spelling")
        except UnicodeDecodeError:
            raise Bad("ledger.toml is not a good manifest: it is not ASCII") from None
        self.origin = fields[0]
        need(ORIGIN.fullmatch(self.origin), "ledger.toml is not a good manifest: its origin is not one")
        self.root_key, self.log_key, self.epoch_key = (public_key(unbase64(field)) for field in fields[1:4])
        signed = signed_message(b"root", self.origin, 0, self.log_key + self.epoch_key)
        need(verifies(self.root_key, signed, unbase64(fields[4])),
             "ledger.toml is not a good manifest: its root key did not sign its other keys")
        self.genesis = derived("genesis", data)


# Entries: section 4.

Entry = collections.namedtuple("Entry", "bytes kind epoch seq time session session_seq prev commit body")
Epoch = collections.namedtuple("Epoch", "number first_seq since key certificate")


def decode_entry(data):
    need(ENTRY_HEAD <= len(data) <= ENTRY_MAX, "entry is shorter than its header or longer than 65,535 bytes")
    need(data[0] == 1 and data[1] in (0, 1), "entry is of an unknown version")
    return Entry(data, number(data[2:4]), number(data[4:8]), number(data[8:16]), number(data[16:24]),
                 number(data[24:32]), number(data[32:40]), data[40:72], data[72:104], data[104:])


def pairs(members):
    keys = [key for key, _ in members]
    need(all(before < after for before, after in zip(keys, keys[1:])), "body is not canonical JSON")
    need(all(key.isascii() and not re.search(r'["\\\x00-\x1f]', key) for key in keys), "body is not canonical JSON")
    return dict(members)


def integer(text):
    need(len(text) <= 17 and abs(int(text)) < 1 << 53 and text != "-0", "body holds an integer beyond 2^53")
    return int(text)


def no_float(_):
    raise Bad("body is not canonical JSON")


def depth(value):
    below = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if below is None else 1 + max(map(depth, below), default=0)


def canonical(body):
    """The value of a body; any spelling but one is refused."""
    try:
        value = json.loads(body.decode(), object_pairs_hook=pairs, parse_int=integer, parse_float=no_float,
                           parse_constant=no_float)
        again = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
        need(isinstance(value, dict) and again == body and depth(value) <= 33, "body is not canonical JSON")
    except (UnicodeError, ValueError, RecursionError):
        raise Bad("body is not canonical JSON") from None
    return value


# Epochs and orders: sections 8 and 9.

def certifies(epoch, following, origin):
    message = following.key + following.first_seq.to_bytes(8, "big") + following.since.to_bytes(8, "big")
    return verifies(epoch.key, signed_message(b"next-epoch", origin, epoch.number, message), following.certificate)


def after_seal(epoch, entry, body, origin):
    need(set(body) == {"certificate", "key"} and entry.session == 0, "epoch.seal is not as the format wants it")
    following = Epoch(epoch.number + 1, entry.seq + 1, entry.time, public_key(unbase64(body["key"])),
                      unbase64(body["certificate"]))
    need(certifies(epoch, following, origin), "epoch.seal names a key that its epoch did not certify")
    return following


# Keys in force: (orders, (number, root key), (number, log key), retiring: (number, log key, until) or none).
Authority = collections.namedtuple("Authority", "orders root log retiring")


def after_order(authority, body, time, manifest):
    wanted = {"cause", "certificate", "log_key", "number", "overlap_s", "root_key"}
    need(set(body) - {"cosignature", "possession"} == wanted, "keys.changed is not as the format wants it")
    cause = {"rotated": 0, "revoked": 1}.get(body["cause"])
    overlap, order = body["overlap_s"], body["number"]
    need(cause is not None and type(order) is int and type(overlap) is int and 0 <= overlap <= 10 * 366 * 86_400
         and (cause == 0 or overlap == 0), "keys.changed is not as the format wants it")
    root, log = public_key(unbase64(body["root_key"])), public_key(unbase64(body["log_key"]))
    need(order == authority.orders + 1 and order < 1 << 32, "keys.changed has another number than the next order's")
    message = order.to_bytes(4, "big") + bytes([cause]) + overlap.to_bytes(8, "big") + root + log
    signed = signed_message(b"keys", manifest.origin, 0, message)
    good = verifies(authority.root[1], signed, unbase64(body["certificate"]))
    changes_root, changes_log = root != authority.root[1], log != authority.log[1]
    if "cosignature" in body:
        good = good and changes_root and verifies(root, signed, unbase64(body["cosignature"]))
    else:
        good = good and not changes_root
    need(good, "keys.changed is not signed by the root key")
    possession = signed_message(b"log-key", manifest.origin, 0, manifest.genesis + message)
    held = verifies(log, possession, unbase64(body["possession"])) if "possession" in body else not changes_log
    need(held and changes_log == ("possession" in body), "keys.changed is not signed by the log key that it brings")
    retires = changes_log and cause == 0 and overlap > 0
    return Authority(order, (order, root) if changes_root else authority.root,
                     (order, log) if changes_log else authority.log,
                     (*authority.log, time + overlap * 10**9) if retires else None)


def log_keys(authority, origin, time):
    keys = [authority.log[1]]
    if authority.retiring and time <= authority.retiring[2]:
        keys.append(authority.retiring[1])
    return [Vkey(origin, key) for key in keys]


def redacted_spans(redactions):
    """From (entry, first, last): the spans of entries whose payloads may be gone, sorted and apart."""
    spans = []
    for first, last in sorted((first, last) for at, first, last in redactions if first <= last < at):
        if spans and first <= spans[-1][1]:
            spans[-1] = (spans[-1][0], max(spans[-1][1], last))
        else:
            spans.append((first, last))
    return spans


def is_within(spans, seq):
    behind = bisect.bisect_right(spans, (seq, 1 << 64))
    return behind > 0 and seq <= spans[behind - 1][1]


# Files.

def read_file(path, most):
    with open(path, "rb") as file:
        data = file.read(most + 1)
    need(len(data) <= most, f"{os.path.basename(path)} is longer than {most} bytes")
    return data


def tile_path(level, index, width):
    path = f"{index % 1000:03}"
    while index >= 1000:
        index //= 1000
        path = f"x{index % 1000:03}/{path}"
    return f"tile/{level}/{path}" + (f".p/{width}" if width < 256 else "")


def segment_name(at):
    return f"segments/{at:08}.seg"


class Findings:
    def __init__(self):
        self.problems, self.notes = [], []

    def add(self, what, missing=False, file=None, offset=None, entry=None):
        self.problems.append({"missing": missing, "file": file, "offset": offset, "entry": entry, "what": what})


class Claim:
    """A size and root that somebody signed."""

    def __init__(self, source, size, root, note=None, chain=None, epoch=None, brought=False):
        self.source, self.size, self.root, self.note = source, size, root, note
        self.chain, self.epoch, self.brought = chain, epoch, brought


Reached = collections.namedtuple("Reached", "root kind time epoch chain")


def members(value, names, optional=()):
    need(isinstance(value, dict) and set(names) <= set(value) <= set(names) | set(optional), "it has other members")
    return value


def digest(text):
    need(isinstance(text, str) and re.fullmatch("[0-9a-f]{64}", text), "it is not 64 lower-case hexadecimal digits")
    return bytes.fromhex(text)


def path_of(value):
    need(isinstance(value, list) and len(value) <= 64, "it is not a path")
    return [digest(text) for text in value]


def count(value):
    need(type(value) is int and 0 <= value < 1 << 64, "it is not a number")
    return value


def read_json(path, most):
    try:
        return json.loads(read_file(path, most).decode())
    except (UnicodeError, ValueError, RecursionError):
        raise Bad(f"{os.path.basename(path)} is not JSON") from None


class Cover:
    """What a bundle says that it covers: docs/export.md."""

    def __init__(self, ledger):
        value = members(read_json(ledger.at("bundle.json"), 1 << 16),
                        ["format", "origin", "root_key", "size", "root", "part"])
        need(value["format"] == "gatebook-bundle/1", "it is of an unknown format")
        self.size, self.root = count(value["size"]), digest(value["root"])
        need(value["origin"] == ledger.origin and value["root_key"] ==
             base64.b64encode(ledger.manifest.root_key).decode(), "it contradicts ledger.toml")
        part = value["part"]
        self.part = part if part == "ledger" else next(iter(members(part, [], ["range", "session"])), None)
        if self.part == "range":
            part = members(part["range"], ["first", "last"])
            self.first, self.last = count(part["first"]), count(part["last"])
            need(self.first <= self.last < self.size, "its range is not under the checkpoint")
        elif self.part == "session":
            part = members(part["session"], ["number", "entries", "last"])
            self.number, self.entries, self.last = (count(part[name]) for name in ("number", "entries", "last"))
        else:
            need(self.part == "ledger", "it is of no part that is known")


class Evidence:
    """A part of a ledger: everything hangs from the checkpoint, and that from the keys."""

    def __init__(self, ledger, cover):
        self.ledger, self.cover, self.findings = ledger, cover, ledger.findings
        self.note = Note(read_file(ledger.at("checkpoint"), NOTE_MAX))
        need(self.note.origin == ledger.origin and (self.note.size, self.note.root) == (cover.size, cover.root),
             "it contradicts the checkpoint")
        value = members(read_json(ledger.at("proof.json"), 64 << 20), ["opened", "epochs", "orders", "redactions"],
                        ["closed", "previous"])
        need(all(isinstance(value[name], list) for name in ("epochs", "orders", "redactions")), "proof.json is not one")
        self.closed = path_of(value["closed"]) if "closed" in value else None
        self.path = path_of(value["previous"]) if "previous" in value else None
        opened, _ = self.included(value["opened"])
        expected = b'{"format":1,"genesis":"%s"}' % ledger.manifest.genesis.hex().encode()
        need(opened.seq == 0 and opened.kind == OPENED and opened.body == expected,
             "the ledger's first entry is of another ledger.toml")
        self.latest = opened.time
        self.follow_epochs(value["epochs"], opened.time)
        self.follow_orders(value["orders"])
        redactions = []
        for item in value["redactions"]:
            entry, body = self.included(item)
            need(entry.kind == REDACTION and entry.session == 0, "a redaction is not one")
            redactions.append((entry.seq, count(body.get("first")), count(body.get("last"))))
        self.redacted = redacted_spans(redactions)
        need(self.epochs and self.epochs[-1].first_seq < cover.size, "the epochs do not lead to the checkpoint's")
        self.check_note(self.note)
        if self.path is not None:
            old = Note(read_file(ledger.at("previous.checkpoint"), NOTE_MAX))
            need(old.origin == ledger.origin, "previous.checkpoint is of another ledger")
            self.check_note(old)
            need(self.extends(old), "previous.checkpoint is not the beginning of this one")

    def included(self, item):
        members(item, ["entry", "path"])
        entry = decode_entry(unbase64(item["entry"]))
        body = canonical(entry.body)
        need(self.leads(entry.seq, leaf_hash(entry.bytes), path_of(item["path"])), "an entry is not under the checkpoint")
        return entry, body

    def leads(self, seq, leaf, path):
        return root_from_inclusion(seq, self.cover.size, leaf, path) == self.cover.root

    def follow_epochs(self, items, since):
        self.epochs = []
        for item in items:
            data = unbase64(item)
            need(len(data) == 116, "an epoch is not one")
            epoch = Epoch(number(data[:4]), number(data[4:12]), number(data[12:20]), public_key(data[20:52]), data[52:])
            if self.epochs:
                before = self.epochs[-1]
                good = epoch.number == before.number + 1 and certifies(before, epoch, self.ledger.origin)
            else:
                good = epoch == Epoch(0, 0, since, self.ledger.manifest.epoch_key, bytes(64))
            need(good, "an epoch's key is not certified by the one before")
            self.epochs.append(epoch)

    def follow_orders(self, items):
        self.authorities = list(self.ledger.authorities)
        for item in items:
            entry, body = self.included(item)
            since, authority = self.authorities[-1]
            need(entry.kind == KEYS and entry.session == 0 and entry.seq >= since, "an order is not one")
            self.authorities.append((entry.seq + 1, after_order(authority, body, entry.time, self.ledger.manifest)))
            self.latest = max(self.latest, entry.time)

    def check_note(self, note):
        """Which epoch must have signed it the entries tell; beyond the checkpoint it may be a later one."""
        if note.size <= self.cover.size:
            known = [epoch for epoch in self.epochs if epoch.first_seq < note.size][-1:]
        else:
            known = [self.epochs[at] if at < len(self.epochs) else None for at in note.epochs()]
        need(any(epoch is None or note.is_signed_by_epoch(epoch.number, epoch.key) for epoch in known),
             "not a good checkpoint: the key of its epoch did not sign it")
        authority = [authority for since, authority in self.authorities if since <= note.size][-1]
        need(note.is_signed_by(Vkey(self.ledger.origin, authority.log[1])),
             "not a good checkpoint: a signature that it needs is missing or false")

    def extends(self, old):
        return is_consistent((old.size, old.root), (self.note.size, self.note.root), self.path)

    def is_redacted(self, seq):
        return is_within(self.redacted, seq)

    def judge(self):
        try:
            (self.session if self.cover.part == "session" else self.range)()
        except FileNotFoundError as why:
            self.findings.add("file is missing", True, os.path.relpath(why.filename, self.ledger.path))
        self.conclude()

    # One session.

    def session(self):
        cover, ledger, fields = self.cover, self.ledger, ["entry", "payload", "salt"]
        entries, before, last, seq = 0, ZERO, None, None
        try:
            with open(ledger.at("session.jsonl"), "rb") as file:
                for line in iter(lambda: file.readline(140 << 20), b""):
                    need(line.endswith(b"\n"), "a line has no end, or is too long")
                    try:
                        record = members(json.loads(line.decode(), object_pairs_hook=no_doubles), fields)
                    except (UnicodeError, ValueError, RecursionError):
                        raise Bad("a line is not JSON") from None
                    raw, payload, salt = (unbase64(record[name]) for name in fields)
                    entry = decode_entry(raw)
                    body = canonical(entry.body)
                    need(entry.session == cover.number, "entry is of another session")
                    need((seq is None or entry.seq > seq) and last != SESSION_CLOSED
                         and (entry.session_seq, entry.prev) == (entries, before)
                         and (entry.kind == SESSION_OPENED) == (entries == 0),
                         "entry does not follow its session's entry before")
                    need(len(salt) == 16, "salt has another length")
                    if derived("payload", salt + payload) != entry.commit:
                        need(not any(salt) and not any(payload) and self.is_redacted(entry.seq),
                             "payload is not the one that its entry commits to")
                        ledger.redacted += 1
                        payload = None
                    self.latest = max(self.latest, entry.time)
                    entries, before, last, seq = entries + 1, leaf_hash(raw), entry.kind, entry.seq
                    ledger.show(entry, body, payload)
        except Bad as why:
            self.findings.add(str(why), file="session.jsonl", entry=seq)
            return
        if last != SESSION_CLOSED:
            self.findings.add("the session's close is missing", True, "session.jsonl")
        elif (entries, seq) != (cover.entries, cover.last):
            self.findings.add("it says another number of entries", file="bundle.json")
        elif self.closed is None or not self.leads(seq, before, self.closed):
            self.findings.add("the session's close is not under the checkpoint", file="session.jsonl", entry=seq)
        else:
            ledger.entries = entries
            self.findings.notes.append(f"session {cover.number} is complete: {entries} entries, from its opening to its close")

    # A range of entries.

    def range(self):
        cover, ledger = self.cover, self.ledger
        ledger.tiles(Claim("checkpoint", cover.size, cover.root), (cover.first, cover.last))
        if self.findings.problems:
            return
        numbers = ledger.segments()
        whole = next((at for at in range(1, len(numbers)) if numbers[at] != numbers[at - 1] + 1), len(numbers))
        ledger.within(self, numbers[:whole])
        if self.findings.problems:
            return
        if ledger.begins is None or ledger.begins > cover.first or ledger.next_seq <= cover.last:
            self.findings.add(f"not all entries from {cover.first} to {cover.last} are here", True, "bundle.json")
            return
        ledger.entries = ledger.next_seq - ledger.begins
        self.findings.notes.append(f"entries {cover.first} to {cover.last} of {cover.size} are here, and no others were asked for")

    # Pins, anchors, witnesses.

    def conclude(self):
        ledger = self.ledger
        agreeing = [Claim("checkpoint", self.note.size, self.note.root, self.note)]
        for source in ledger.arguments.checkpoint:
            try:
                note = Note(read_file(source, NOTE_MAX))
                need(note.origin == ledger.origin, "not a good checkpoint: it is of another ledger")
                size, wrong = None, None
                try:
                    size = self.anchor(note)
                except Bad as why:
                    wrong = why
                try:
                    self.check_note(note)
                except Bad as why:
                    need(size is not None, str(why))
                    self.findings.notes.append(f"{source} is not usable: {why}")
                    continue
                need(wrong is None, str(wrong))
            except Bad as why:
                self.findings.add(str(why), file=source)
                continue
            if size is None:
                self.findings.notes.append(f"{source} is of another size, and nothing here proves that one tree is the"
                                           " beginning of the other")
            else:
                ledger.anchored(source, size, self.latest // 10**9)
                agreeing.append(Claim(source, note.size, note.root, note))
        ledger.agreeing = [claim.note for claim in agreeing]
        ledger.authorities, ledger.authority, ledger.ends = self.authorities, self.authorities[-1][1], self.latest
        ledger.judge_pin()
        ledger.judge_witnesses(agreeing)

    def anchor(self, kept):
        """How much of what is here a checkpoint that was kept elsewhere covers; none where that cannot be told."""
        if kept.size == self.note.size:
            need(kept.root == self.note.root, "another tree of the same size was signed")
            return kept.size
        if self.path is not None and self.extends(kept):
            return kept.size
        if self.cover.part == "range" and kept.size < self.note.size:
            tree = Range()
            for index in range(-(-kept.size // 256)):
                path = self.ledger.at(tile_path(0, index, min(256, self.note.size - 256 * index)))
                for at in range(min(256, kept.size - 256 * index)):
                    with open(path, "rb") as file:
                        tree.push(file.read(8192)[32 * at:32 * at + 32])
            need(tree.root() == kept.root, f"the first {kept.size} entries are not those that were signed")
            return kept.size
        return None


def no_doubles(pairs_given):
    need(len(dict(pairs_given)) == len(pairs_given), "a line names something twice")
    return dict(pairs_given)


class Ledger:
    """One directory under verification; the segments are read once, from front to back."""

    def __init__(self, path, arguments):
        self.path, self.arguments, self.findings = path, arguments, Findings()
        self.live = self.has_writer()
        self.claims, self.reached, self.shown = [], {}, []
        self.entries = self.redacted = 0
        self.anchor, self.pinned, self.key = None, False, None
        self.unsettled, self.unwitnessed, self.holes, self.archived = False, False, [], self.read_archived()

    def at(self, name):
        return os.path.join(self.path, name)

    # Archived segments: docs/ledger-operations.md.

    def read_archived(self):
        """Which segments are elsewhere: (first, last, folder)."""
        try:
            text = read_file(self.at("archived"), 64 * 1024).decode()
        except FileNotFoundError:
            return []
        except UnicodeDecodeError:
            raise Bad("archived is not UTF-8") from None
        wrong = "archived does not say which segments went where"
        heading, *lines = text.split("\n")
        need(heading == "# Sealed segments of this ledger that are elsewhere: first, last, folder." and lines, wrong)
        spans = []
        for line in lines[:-1] if not lines[-1] else lines:
            match = re.fullmatch(r"([0-9]{1,19}) ([0-9]{1,19}) (/[^\x00-\x1f\x7f-\x9f]*)", line)
            need(match and int(match[1]) <= int(match[2]), wrong)
            spans.append((int(match[1]), int(match[2]), match[3]))
        need(sum(last - first + 1 for first, last, _ in spans) <= ARCHIVED_MAX, wrong)
        return spans

    def segments(self):
        """The numbers of all segments, here and elsewhere."""
        folder = self.at("segments")
        if not os.path.isdir(folder):
            return []
        names = (name for name in os.listdir(folder) if re.fullmatch(r"[0-9]{8,}\.seg", name))
        numbers = {int(name[:-4]) for name in names if f"{int(name[:-4]):08}.seg" == name}
        for first, last, _ in self.archived:
            numbers.update(range(first, last + 1))
        return sorted(numbers)

    def open_segment(self, at):
        path, flags = self.at(segment_name(at)), 0
        place = next((place for first, last, place in self.archived if first <= at <= last), None)
        if place is not None and not os.path.exists(path):
            path, flags = os.path.join(place, f"{at:08}.seg"), os.O_NOFOLLOW
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | flags), "rb")
        self.read = lambda offset, count: (file.seek(offset), file.read(count))[1]
        self.length = os.fstat(file.fileno()).st_size
        return file

    def has_writer(self):
        try:
            with open(self.at("lock"), "rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    def open_manifest(self):
        self.manifest_bytes = read_file(self.at("ledger.toml"), 4096)
        self.manifest = Manifest(self.manifest_bytes)
        self.origin = self.manifest.origin
        first = self.manifest
        self.authority = Authority(0, (0, first.root_key), (0, first.log_key), None)
        self.authorities = [(0, self.authority)]
        self.epochs = {0: first.epoch_key}

    def take_note(self, source, data, brought):
        try:
            note = Note(data)
            need(note.origin == self.origin, "not a good checkpoint: it is of another ledger")
            self.claims.append(Claim(source, note.size, note.root, note, None, None, brought))
        except Bad as why:
            self.findings.add(str(why), file=source)

    def open_claims(self):
        if os.path.exists(self.at("checkpoint")):
            self.take_note("checkpoint", read_file(self.at("checkpoint"), NOTE_MAX), False)
        else:
            self.findings.notes.append("nothing is published here: no checkpoint, no tiles")
        folder = self.at("cosigned")
        for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
            if not name.endswith(".new"):
                self.take_note("cosigned/" + name, read_file(os.path.join(folder, name), NOTE_MAX), False)
        for source in self.arguments.checkpoint:
            self.take_note(source, read_file(source, NOTE_MAX), True)

    # State: section 6.

    def open_state(self):
        if not os.path.exists(self.at("state")):
            self.findings.notes.append("no state file here: this is an export")
            return
        for _ in range(10 if self.live else 1):
            with open(self.at("state"), "rb") as file:
                data = file.read(2 * BLOCK + 1)
            slots = [data[:BLOCK], data[BLOCK:]]
            whole = [slot for slot in slots if len(slot) == BLOCK and slot[:8] == b"GBSTATE1"
                     and crc32c(slot[:100]) == slot[100:104] and not any(slot[104:])]
            damaged = len(data) != 2 * BLOCK or any(slot not in whole and any(slot) for slot in slots)
            if not damaged:
                break
        if damaged:
            what = "a slot of the state file is damaged" if whole else "neither slot of the state file is whole"
            self.findings.add(what, file="state")
        if whole:
            slot = max(whole, key=lambda slot: number(slot[8:16]))
            if number(slot[8:16]):
                self.claims.append(Claim("state", number(slot[16:24]), slot[24:56], None, slot[56:88],
                                         number(slot[96:100])))

    # Segments: section 5.

    def scan(self):
        numbers = self.segments()
        self.sizes = {claim.size for claim in self.claims}
        self.tree, self.chain, self.next_seq = Range(), self.manifest.genesis, 0
        self.epoch, self.latest, self.ends = None, 0, 0
        self.sealed = None  # the epoch that a seal just led to
        self.open, self.next_session = {}, 1
        self.zeroed, self.redactions = [], []
        self.broken = False
        self.hole = False  # whether segments are missing, and no footer behind them has told what they held
        self.begins_hole = False
        expected = 0
        for at in numbers or [None]:
            if at != expected:
                self.findings.add("segment is missing", True, segment_name(expected))
                self.hole, self.begins_hole, self.open = True, True, {}
                self.holes.append([self.next_seq, 1 << 64])
            if at is not None:
                self.segment(at, at == numbers[-1])
                expected = at + 1
        self.entries = self.next_seq

    def broke(self, what, name, offset, missing=False):
        self.findings.add(what, missing, name, offset, self.next_seq)
        self.broken = True

    def segment(self, at, last):
        name = segment_name(at)
        with self.open_segment(at) as file:
            block = self.read(0, BLOCK)
            epoch = None
            try:
                epoch = self.segment_header(block, at)
            except Bad as why:
                if not (last and self.live and not any(block)):
                    self.broke(str(why), name, 0)
            self.begins_hole = False
            offset, frames, sealed, looks = BLOCK, 0, False, 0
            self.gone = []
            while True:
                head = self.read(offset, FRAME_HEAD)
                try:
                    if head[:8] == b"GBFOOT01":
                        self.footer(offset, at, epoch, frames)
                        sealed = True
                        break
                    if self.data_end(offset) == offset:
                        if not last:
                            self.broke("sealed segment ends without a footer", name, offset, True)
                        break
                    offset = self.frame(offset, head, at, epoch, last)
                    frames, looks = frames + 1, 0
                except Bad as why:
                    if self.live and last and looks < LOOKS:
                        # The writer may be in the middle of this frame: no write takes as long as all these looks.
                        looks += 1
                        time.sleep(PAUSE)
                        self.length = os.fstat(file.fileno()).st_size
                        continue
                    if last and head[:8] != b"GBFOOT01" and self.is_torn(offset, head) and not self.goes_on(offset):
                        self.unfinished(name, offset)
                    else:
                        self.broke(str(why), name, offset)
                    break
        if sealed:
            self.zeroed += [seq for seq, _ in self.gone]
        else:
            for seq, where in self.gone:
                self.findings.add("payload is not the one that its entry commits to", False, name, where, seq)
        if self.sealed and not sealed and not last:
            self.broke("epoch.seal is not the last of its segment", name, offset)

    def unfinished(self, name, offset):
        rest = self.data_end(offset) - offset
        if self.live:
            self.unsettled = True
            self.findings.notes.append(f"{rest} bytes at the end are being written")
        else:
            self.broke(f"{rest} bytes at the end are an unfinished write; opening the ledger cuts them off", name, offset,
                       True)

    def segment_header(self, block, at):
        need(len(block) == BLOCK and block[:8] == b"GBSEGM01", "segment has no header")
        need(crc32c(block[:204]) == block[204:208] and not any(block[208:]),
             "segment header does not match its checksum")
        need(number(block[8:16]) == at and block[56:88] == self.manifest.genesis,
             "segment header contradicts what is before it")
        epoch = Epoch(number(block[88:92]), number(block[92:100]), number(block[100:108]), public_key(block[108:140]),
                      block[140:204])
        if self.broken:
            return epoch
        if self.begins_hole:
            self.pass_hole(epoch, number(block[16:24]), block[24:56])
            return epoch
        need(number(block[16:24]) == self.next_seq and block[24:56] == self.chain,
             "segment header contradicts what is before it")
        if self.sealed is UNTOLD and epoch.number == self.epoch.number + 1 and certifies(self.epoch, epoch, self.origin):
            self.sealed = epoch
        expected = (self.epoch if self.sealed is UNTOLD else self.sealed or self.epoch) or Epoch(0, 0, epoch.since, self.manifest.epoch_key, bytes(64))
        need(epoch == expected, f"segment is of epoch {epoch.number}, and is not what epoch {expected.number} leads to")
        if self.sealed or not self.epoch:
            self.latest = epoch.since
        self.epoch, self.sealed = epoch, None
        self.epochs[epoch.number] = epoch.key
        return epoch

    def pass_hole(self, epoch, first, chain):
        """Goes on behind segments that are missing, with what the next one's header says."""
        need(first >= self.next_seq, "segment header contradicts what is before it")
        self.next_seq, self.chain = first, chain
        before = self.epoch if self.sealed is UNTOLD else self.sealed or self.epoch
        if before and epoch.number <= before.number:
            need(epoch == before, f"epoch {epoch.number} is not the one that was begun")
        else:
            known = before or Epoch(0, 0, 0, self.manifest.epoch_key, bytes(64))
            need(epoch.number != known.number or epoch.key == known.key, "epoch 0 has another key")
            need(epoch.number != known.number + 1 or certifies(known, epoch, self.origin),
                 "segment header names a key that the epoch before did not certify")
            self.latest = epoch.since
        if self.sealed:
            self.latest = epoch.since
        self.epoch, self.sealed = epoch, None
        self.epochs[epoch.number] = epoch.key

    def data_end(self, offset):
        end, at = offset, offset
        while True:
            part = self.read(at, 1 << 20)
            if not part:
                return end
            kept = part.rstrip(b"\0")
            if kept:
                end = at + len(kept)
            at += len(part)

    def is_torn(self, offset, head):
        """Whether this looks like a write that a crash cut off: its end is missing."""
        end = self.data_end(offset)
        if len(head) < FRAME_HEAD or head[:8] != b"GBFRAME1" or crc32c(head[:72]) != head[72:76]:
            return end <= offset + FRAME_HEAD
        content = FRAME_HEAD + number(head[8:12]) + 4 * number(head[16:20]) + FRAME_TAIL + number(head[12:16])
        return end + 16 <= offset + content

    def goes_on(self, offset):
        """Whether a whole frame or a footer stands behind."""
        for at in range(offset + BLOCK, self.length, BLOCK):
            head = self.read(at, FRAME_HEAD)
            if head[:8] == b"GBFOOT01":
                return True
            try:
                self.frame_parts(at, head)
                return True
            except Bad:
                pass
        return False

    def frame_parts(self, offset, head):
        """A frame's layout, with all that is checked without knowing what is before it."""
        need(len(head) == FRAME_HEAD and head[:8] == b"GBFRAME1", "no frame begins here")
        need(crc32c(head[:72]) == head[72:76], "frame header does not match its checksum")
        entries_length, payloads_length, count = (number(head[at:at + 4]) for at in (8, 12, 16))
        need(count and entries_length <= ENTRIES_MAX and payloads_length <= PAYLOADS_MAX
             and count * (2 + ENTRY_HEAD) <= entries_length and count * 16 <= payloads_length,
             "frame header has impossible lengths")
        signed = FRAME_HEAD + entries_length + 4 * count
        length = signed + FRAME_TAIL + payloads_length
        data = self.read(offset, padded(length))
        need(len(data) == padded(length), "frame is cut off")
        need(crc32c(data[:signed + 96]) == data[signed + 96:signed + 100], "frame does not match its checksum")
        need(not any(data[length:]), "frame's padding is not zero")
        chain_out = data[signed:signed + 32]
        need(derived("frame", data[:signed]) == chain_out, "frame does not match its chain value")
        at, entries = FRAME_HEAD, []
        table = FRAME_HEAD + entries_length
        for _ in range(count):
            need(at + 2 <= table, "frame holds fewer entries than it says")
            size = number(data[at:at + 2])
            entries.append(data[at + 2:at + 2 + size])
            at += 2 + size
        need(at == table, "frame's entries have another length than it says")
        at, payloads = signed + FRAME_TAIL, []
        for index in range(count):
            size = number(data[table + 4 * index:table + 4 * index + 4])
            payloads.append((data[at:at + 16], data[at + 16:at + 16 + size]))
            at += 16 + size
        need(at == length, "frame's payloads have another length than it says")
        return data, chain_out, data[signed + 32:signed + 96], entries, payloads, offset + padded(length), length

    def frame(self, offset, head, at, epoch, last):
        data, chain_out, signature, entries, payloads, end, length = self.frame_parts(offset, head)
        name, first = segment_name(at), number(data[24:32])
        tell = lambda what, entry=None, missing=False: self.findings.add(what, missing, name, offset,
                                                                        self.next_seq if entry is None else entry)
        if not self.broken:
            if first != self.next_seq:
                tell("entries are missing before this frame")
                self.broken = True
            if data[40:72] != self.chain:
                tell("frame does not follow the one before")
        self.next_seq = first
        frame_epoch = number(data[20:24])
        signed = signed_message(b"frame", self.origin, frame_epoch, chain_out)
        if epoch is None or frame_epoch != epoch.number or not verifies(epoch.key, signed, signature):
            tell("frame is not signed by the key of its epoch")
        if self.sealed:
            tell("frame stands behind the seal of its epoch")
        torn = last and self.data_end(offset) + 16 <= offset + length
        for raw, (salt, payload) in zip(entries, payloads):
            try:
                entry = decode_entry(raw)
                if derived("payload", salt + payload) != entry.commit:
                    if torn and self.live:
                        self.unsettled = True
                        self.findings.notes.append("payloads at the end are being written")
                    elif not torn and not any(salt) and not any(payload):
                        self.gone.append((self.next_seq, offset))
                    else:
                        tell("payload is not the one that its entry commits to", missing=torn)
                    payload = None
                self.show(entry, self.entry(entry, data, epoch, tell), payload)
            except Bad as why:
                tell(str(why))
            self.next_seq += 1
            self.tree.push(leaf_hash(raw))
            if self.next_seq in self.sizes:
                kind, time, of = number(raw[2:4]), number(raw[16:24]), number(raw[4:8])
                root = None if self.broken or self.hole else self.tree.root()
                self.reached[self.next_seq] = Reached(root, kind, time, of, None)
        self.chain = derived("link", chain_out + signature)
        if self.next_seq in self.reached:
            self.reached[self.next_seq] = self.reached[self.next_seq]._replace(chain=self.chain)
        return end

    def entry(self, entry, data, epoch, tell):
        count = number(data[16:20])
        need(entry.seq == self.next_seq and entry.epoch == number(data[20:24]),
             "entry has another number or epoch than its place")
        body = canonical(entry.body)
        if entry.kind == OPENED or entry.seq == 0:
            expected = b'{"format":1,"genesis":"%s"}' % self.manifest.genesis.hex().encode()
            need(entry.kind == OPENED and entry.seq == 0 and entry.body == expected,
                 "ledger.opened is not the first entry, or of another ledger")
            need(epoch is None or epoch.since == entry.time, "epoch 0 does not begin with the first entry")
        if entry.kind == HEAD:
            need(count == 1 and entry.body == b'{"chain":"%s"}' % data[40:72].hex().encode(),
                 "chain.head does not name the chain that it stands in")
        if epoch is not None and entry.time < epoch.since:
            tell("entry is older than its epoch")
        if entry.kind == SEAL and epoch is not None:
            need(count == 1 and entry.time >= self.latest,
                 "epoch.seal is not alone in its frame, or older than its epoch's entries")
            self.sealed = after_seal(epoch, entry, body, self.origin)
        self.latest = max(self.latest, entry.time)
        self.ends = entry.time
        if entry.kind == KEYS:
            need(entry.session == 0, "keys.changed is of a session")
            if not self.broken and not self.hole:
                self.authority = after_order(self.authority, body, entry.time, self.manifest)
                self.authorities.append((entry.seq + 1, self.authority))
        if entry.kind == REDACTION:
            first, end = body.get("first"), body.get("last")
            need(entry.session == 0, "redaction is of a session")
            need(type(first) is int and type(end) is int and 0 <= first and 0 <= end,
                 "redaction is not as the format wants it")
            self.redactions.append((entry.seq, first, end))
        self.session(entry)
        return body

    def session(self, entry):
        leaf = leaf_hash(entry.bytes)
        if entry.session == 0:
            need(entry.kind not in (SESSION_OPENED, SESSION_CLOSED), "a session's entry names no session")
            need(entry.session_seq == 0 and entry.prev == ZERO, "entry without a session links to one")
            return
        known = self.open.get(entry.session)
        if entry.kind == SESSION_CLOSED:
            self.open.pop(entry.session, None)
        else:
            self.open[entry.session] = (entry.session_seq + 1, leaf)
        if entry.kind == SESSION_OPENED:
            need(entry.session_seq == 0 and entry.prev == ZERO, "session is opened, but not by its first entry")
            expected, self.next_session = self.next_session, entry.session + 1
            need(self.broken or self.hole or entry.session == expected,
                 "session is opened out of its order: sessions before it are missing")
        else:
            need(self.broken or self.hole and known is None or known == (entry.session_seq, entry.prev),
                 "entry does not follow its session's entry before")

    def footer(self, offset, at, epoch, frames):
        length = self.length - offset
        need(length <= padded(FOOTER_MAX), "segment footer is too long")
        data = self.read(offset, length)
        size = number(data[8:12])
        signed, end = 16 + size, 16 + size + 68
        need(size <= FOOTER_MAX and len(data) == padded(end + 16), "segment footer has impossible lengths")
        need(crc32c(data[:end - 4]) == data[end - 4:end], "segment footer does not match its checksum")
        need(not any(data[end:-16]) and number(data[-16:-8]) == offset and data[-8:] == b"GBSEALED",
             "segment does not end as a sealed one")
        message = signed_message(b"seal", self.origin, number(data[12:16]), data[:signed])
        need(epoch is not None and verifies(epoch.key, message, data[signed:signed + 64]),
             "segment footer is not signed by its epoch")
        wrong = "segment footer contradicts its segment"
        body = data[16:signed]
        need(len(body) > 113, wrong)
        told = [number(body[8 * index:8 * index + 8]) for index in range(6)]
        if frames == 0 and told[2] > 0 and not self.broken:
            self.findings.add("the frames of this segment are missing: it was cut down to its footer", True,
                              segment_name(at), offset, self.next_seq)
            self.next_seq, self.chain = told[1], body[49:81]
            self.learn(body, told)
            self.sealed = UNTOLD if body[48] else None
            return
        if self.broken:
            return
        if self.hole:
            need(told[:3] == [at, self.next_seq, frames] and body[48] == (1 if self.sealed else 0)
                 and body[49:81] == self.chain and number(data[12:16]) == epoch.number, wrong)
            self.learn(body, told)
            return
        numbers = [at, self.next_seq, frames, told[3], self.next_session, self.latest]  # told[3]: only the writer knew
        rest = bytes([1 if self.sealed else 0]) + self.chain + self.tree.root()
        authority = self.authority
        rest += authority.orders.to_bytes(4, "big")
        for told_number, key in (authority.root, authority.log):
            rest += told_number.to_bytes(4, "big") + key
        rest += bytes([1 if authority.retiring else 0])
        if authority.retiring:
            was, key, until = authority.retiring
            rest += was.to_bytes(4, "big") + key + until.to_bytes(8, "big")
        begin = 48 + len(rest)
        levels, _ = self.levels(body, begin)
        rest += levels + len(self.open).to_bytes(4, "big")
        for session in sorted(self.open):
            count, leaf = self.open[session]
            rest += session.to_bytes(8, "big") + count.to_bytes(8, "big") + leaf
        need(told == numbers and body[48:] == rest and number(data[12:16]) == epoch.number, wrong)

    def learn(self, body, told):
        """Takes what a footer, which its epoch signed, says of all before it."""
        wrong = "segment footer contradicts itself"
        root, at = body[81:113], 113
        orders, root_number, root_key = number(body[at:at + 4]), number(body[at + 4:at + 8]), body[at + 8:at + 40]
        log_number, log_key, retires = number(body[at + 40:at + 44]), body[at + 44:at + 76], body[at + 76:at + 77]
        at += 77
        retiring = None
        if retires == b"\1":
            retiring = (number(body[at:at + 4]), body[at + 4:at + 36], number(body[at + 36:at + 44]))
            at += 44
        nodes, end = self.nodes(body, at, told[1], root)
        self.tree = Range()
        self.tree.size, self.tree.nodes = told[1], nodes
        self.authority = Authority(orders, (root_number, root_key), (log_number, log_key), retiring)
        self.authorities.append((told[1], self.authority))
        sessions = number(body[end:end + 4])
        need(len(body) == end + 4 + 48 * sessions, wrong)
        self.open = {}
        for at in range(end + 4, len(body), 48):
            self.open[number(body[at:at + 8])] = (number(body[at + 8:at + 16]), body[at + 16:at + 48])
        self.next_session, self.latest, self.hole = told[4], told[5], False
        if self.holes and self.holes[-1][1] == 1 << 64:
            self.holes[-1][1] = told[1]

    def levels(self, body, begin):
        """The footer's partial tiles, as they stand there, where they are those of the tree."""
        nodes, end = self.nodes(body, begin, self.next_seq, self.tree.root())
        return body[begin:end], nodes

    def nodes(self, body, begin, size, root):
        """The perfect subtrees that the footer's partial tiles come to, and where they end."""
        wrong = "segment footer contradicts its segment"
        need(begin < len(body), wrong)
        at, nodes = begin + 1, []
        for level in range(body[begin]):
            need(at < len(body), wrong)
            width = body[at]
            hashes = [body[at + 1 + 32 * index:at + 33 + 32 * index] for index in range(width)]
            at += 1 + 32 * width
            need(at <= len(body) and width == (size >> 8 * level) % 256, wrong)
            part = Range()
            for value in hashes:
                part.push(value)
            nodes = [(8 * level + height, value) for height, value in part.nodes] + nodes
        tree = Range()
        tree.nodes = nodes
        need(size >> 8 * body[begin] == 0 and tree.root() == root, wrong)
        return nodes, at

    # A range of entries: docs/export.md.

    def within(self, evidence, numbers):
        """Reads the segments of a range, each entry against the tiles that were just checked."""
        self.sizes, self.tree, self.chain, self.next_seq = set(), Range(), None, None
        self.begins, self.broken, self.sealed = None, True, None
        self.latest = self.ends = 0
        self.open, self.next_session, self.zeroed, self.redactions = {}, 1, [], []
        size, leaves = evidence.cover.size, (None, b"")
        for at in numbers:
            name = segment_name(at)
            with self.open_segment(at):
                offset, frames = BLOCK, 0
                try:
                    epoch = self.segment_header(self.read(0, BLOCK), at)
                    block = self.read(0, BLOCK)
                    first, chain = number(block[16:24]), block[24:56]
                    need(self.next_seq in (None, first) and self.chain in (None, chain)
                         and (epoch in evidence.epochs or first >= size), "segment header contradicts what is before it")
                    self.next_seq, self.chain = first, chain
                    self.begins = first if self.begins is None else self.begins
                    while True:
                        head = self.read(offset, FRAME_HEAD)
                        if head[:8] == b"GBFOOT01":
                            self.footer_within(offset, at, epoch, frames)
                            break
                        if self.data_end(offset) == offset:
                            break
                        data, chain_out, signature, entries, payloads, end, _ = self.frame_parts(offset, head)
                        signed = signed_message(b"frame", self.origin, epoch.number, chain_out)
                        need(number(data[20:24]) == epoch.number and verifies(epoch.key, signed, signature)
                             and data[40:72] == self.chain and number(data[24:32]) == self.next_seq,
                             "frame does not follow the one before, or is not signed by its epoch")
                        for raw, (salt, payload) in zip(entries, payloads):
                            entry = decode_entry(raw)
                            body = canonical(entry.body)
                            need(entry.seq == self.next_seq and entry.epoch == epoch.number,
                                 "entry has another number or epoch than its place")
                            if derived("payload", salt + payload) != entry.commit:
                                need(not any(salt) and not any(payload) and evidence.is_redacted(entry.seq),
                                     "payload is not the one that its entry commits to")
                                self.redacted += 1
                                payload = None
                            if entry.seq < size:
                                index = entry.seq // 256
                                if leaves[0] != index:
                                    path = tile_path(0, index, min(256, size - 256 * index))
                                    leaves = (index, read_file(self.at(path), 8192))
                                place = 32 * (entry.seq % 256)
                                need(leaves[1][place:place + 32] == leaf_hash(raw), "entry is not the one under the checkpoint")
                            self.show(entry, body, payload)
                            self.next_seq += 1
                        self.chain = derived("link", chain_out + signature)
                        offset, frames = end, frames + 1
                except Bad as why:
                    self.findings.add(str(why), file=name, offset=offset, entry=self.next_seq)
                    return

    def footer_within(self, offset, at, epoch, frames):
        data = self.read(offset, self.length - offset)
        size = number(data[8:12])
        signed, end = 16 + size, 16 + size + 68
        need(size <= FOOTER_MAX and len(data) == padded(end + 16) and crc32c(data[:end - 4]) == data[end - 4:end]
             and not any(data[end:-16]) and number(data[-16:-8]) == offset and data[-8:] == b"GBSEALED",
             "segment does not end as a sealed one")
        message = signed_message(b"seal", self.origin, epoch.number, data[:signed])
        told = [number(data[16 + 8 * index:24 + 8 * index]) for index in range(3)]
        need(verifies(epoch.key, message, data[signed:signed + 64]) and number(data[12:16]) == epoch.number
             and told == [at, self.next_seq, frames] and data[65:97] == self.chain,
             "segment footer contradicts its segment, or is not signed by its epoch")

    def show(self, entry, body, payload):
        """Prints an entry that was read, as one JSON object; what it is worth, the verdict says."""
        if not self.arguments.show:
            return
        value = {"seq": entry.seq, "time_ns": str(entry.time), "kind": entry.kind, "session": entry.session,
                 "session_seq": entry.session_seq, "body": body}
        if payload is None:
            value["redacted"] = True
        elif payload:
            try:
                value["payload"] = json.loads(payload.decode())
            except (UnicodeError, ValueError, RecursionError):
                value["payload_base64"] = base64.b64encode(payload).decode()
        print(json.dumps(value))

    # Tiles and bundles: C2SP tlog-tiles.

    def tiles(self, claim, only=None):
        """Checks the published tiles against the checkpoint, and bundles of entries against the tiles."""
        bundled = only is not None or os.path.isdir(self.at("tile/entries"))
        size, above, tree = claim.size, None, Range()
        for level in range(8):
            roots = []
            for index in range(-(-size // 256)):
                width = min(256, size - 256 * index)
                path = tile_path(level, index, width)
                try:
                    try:
                        data = read_file(self.at(path), 256 * 32)
                    except FileNotFoundError:
                        if not self.live:
                            raise
                        data = read_file(self.at(tile_path(level, index, 256)), 256 * 32)[:32 * width]
                except FileNotFoundError:
                    self.findings.add("tile is missing; opening the ledger makes it anew", True, path)
                    return
                except Bad:
                    self.findings.add("tile is too long", file=path)
                    return
                hashes = [data[at:at + 32] for at in range(0, len(data), 32)]
                if len(data) != 32 * width or above is not None and above[256 * index:256 * index + width] != hashes:
                    self.findings.add("tile is not the one that the entries lead to", file=path)
                    return
                if level == 0:
                    for value in hashes:
                        tree.push(value)
                    if bundled and (only is None or 256 * index <= only[1] and 256 * index + width > only[0]):
                        self.entry_bundle(index, hashes)
                if width == 256:
                    part = Range()
                    for value in hashes:
                        part.push(value)
                    roots.append(part.root())
            size, above = size // 256, roots
            if size == 0:
                break
        if tree.root() != claim.root:
            self.findings.add("the tiles do not lead to the checkpoint's root", file="tile/0")

    def entry_bundle(self, index, leaves):
        path = tile_path("entries", index, len(leaves))
        try:
            data = read_file(self.at(path), 256 * (2 + ENTRY_MAX))
        except FileNotFoundError:
            self.findings.add("bundle of entries is missing", True, path)
            return
        at = 0
        for seq, leaf in enumerate(leaves, 256 * index):
            size = number(data[at:at + 2])
            if leaf_hash(data[at + 2:at + 2 + size]) != leaf or at + 2 + size > len(data):
                self.findings.add("bundle does not hold the entry that was signed", file=path, entry=seq)
                return
            at += 2 + size
        if at != len(data):
            self.findings.add("bundle is longer than its entries", file=path)

    # Judgement: sections 6 and 11.

    def authority_at(self, size):
        return [authority for since, authority in self.authorities if since <= size][-1]

    def judge_redactions(self):
        spans = redacted_spans(self.redactions)
        for seq in self.zeroed:
            if is_within(spans, seq):
                self.redacted += 1
            else:
                # What says so may be in a segment that is missing.
                self.findings.add("payload is gone, and no redaction says so", bool(self.holes), entry=seq)

    def judge_pin(self):
        self.key = Vkey(self.origin, self.authority.log[1])
        pinned = self.arguments.key
        if pinned is None:
            self.findings.notes.insert(0, "no key is pinned: whoever wrote this ledger may be anybody")
            return
        in_force = str(pinned) in map(str, log_keys(self.authority, self.origin, self.ends))
        was_ours = any(str(Vkey(self.origin, before.log[1])) == str(pinned) for _, before in self.authorities)
        unknown = bool(self.holes) and self.holes[-1][1] == 1 << 64
        if not in_force and not was_ours and not unknown:
            self.findings.add("the key pinned is not this ledger's log key")
        elif not any(note.is_signed_by(pinned) for note in self.agreeing):
            # Whoever makes up a ledger can name any key in it.
            self.findings.notes.insert(0, "no note that the pinned key signed is here, or was brought:"
                                          " nothing says whose ledger this is")
        elif in_force:
            self.pinned = True
        else:
            self.findings.notes.insert(0, f"the key pinned was replaced; pin {self.key}")

    def check_note(self, claim):
        if claim.note is None:
            return
        reached = self.reached.get(claim.size)
        epochs = claim.note.epochs() if reached is None else [reached.epoch]
        signed = (claim.note.is_signed_by_epoch(epoch, self.epochs[epoch]) if epoch in self.epochs
                  else claim.size > self.next_seq for epoch in epochs)
        need(any(signed), "not a good checkpoint: the key of its epoch did not sign it")
        need(claim.note.is_signed_by(Vkey(self.origin, self.authority_at(claim.size).log[1])),
             "not a good checkpoint: a signature that it needs is missing or false")

    def judge_claims(self):
        good = []
        for claim in self.claims:
            if any(behind < claim.size <= end for behind, end in self.holes):
                self.findings.notes.append(f"{claim.source} cannot be compared behind what is missing")
                continue
            reached = self.reached.get(claim.size)
            try:
                self.check_note(claim)
            except Bad as why:
                if claim.brought and reached and reached.root == claim.root:
                    # Whoever carried it may have lost or garbled a line; what it says is so, and it proves nothing.
                    self.findings.notes.append(f"{claim.source} is not usable: {why}")
                else:
                    self.findings.add(str(why), file=claim.source)
                continue
            if claim.size > self.next_seq:
                self.findings.add(f"{claim.size} entries were signed, and {self.next_seq} are here: the end was cut off,"
                                  " or an older copy put back", True, claim.source, entry=self.next_seq)
                continue
            if reached is None or reached.root is None:
                if reached is not None:
                    self.findings.notes.append(f"{claim.source} cannot be compared behind what is broken")
                continue
            if (reached.root != claim.root or claim.chain not in (None, reached.chain) or reached.kind != HEAD
                    or claim.epoch not in (None, reached.epoch)):
                self.findings.add(f"the first {claim.size} entries are not those that were signed", file=claim.source)
                continue
            good.append(claim)
            if claim.brought:
                self.anchored(claim.source, claim.size, reached.time // 10**9)
        self.agreeing = [claim.note for claim in good if claim.note]
        self.judge_witnesses(good)

    def anchored(self, source, size, time):
        if self.anchor is None or (size, time) > (self.anchor[1], self.anchor[2]):
            self.anchor = (source, size, time)

    def judge_witnesses(self, good):
        """Every witness that is pinned must have cosigned something that is here."""
        for witness in self.arguments.witness:
            newest = None
            for claim in good:
                try:
                    when = claim.note and claim.note.cosigned_at(witness)
                except Bad as why:
                    self.findings.add(str(why), file=claim.source)
                    continue
                if when is not None and (newest is None or (claim.size, when) > newest):
                    newest = (claim.size, when)
            if newest is None:
                self.unwitnessed = True
                self.findings.notes.append(f"the witness {witness.name} has cosigned nothing that is here")
            else:
                self.anchored(f"witness {witness.name}", *newest)

    def verify(self):
        try:
            self.open_manifest()
        except Bad as why:
            self.findings.add(str(why), file="ledger.toml")
            return
        if os.path.exists(self.at("bundle.json")):
            cover, proof, self.evidence = {}, None, None
            try:
                cover = Cover(self)
                proof = Evidence(self, cover)
            except Bad as why:
                self.findings.add(str(why), file="bundle.json")
                return
            except FileNotFoundError as why:
                self.findings.add("file is missing", True, os.path.relpath(why.filename, self.path))
                return
            if cover.part != "ledger":
                proof.judge()
                return
        self.open_claims()
        self.open_state()
        self.scan()
        for claim in self.claims:
            if claim.source == "checkpoint":
                self.tiles(claim)
        self.judge_redactions()
        self.judge_claims()
        self.judge_pin()

    def verdict(self):
        problems = self.findings.problems
        if any(not problem["missing"] for problem in problems):
            return 1
        if problems:
            return 2
        settled = not self.unwitnessed and not self.unsettled
        return 0 if self.pinned and self.anchor and settled else 4


VERDICTS = {0: "verified and anchored", 1: "TAMPERED", 2: "INCOMPLETE",
            4: "nothing is wrong, but no key is pinned or nothing anchors it"}


def instant(time):
    """A time for people, and how long ago it was."""
    try:
        when = datetime.datetime.fromtimestamp(time, datetime.timezone.utc)
    except (OverflowError, ValueError, OSError):
        return f"{time} s after 1970"
    ago = datetime.datetime.now(datetime.timezone.utc) - when
    return f"{when:%Y-%m-%dT%H:%M:%SZ}, {ago.days} days and {ago.seconds // 60} minutes ago"


def safe(text):
    """Text from a stranger, made harmless for a terminal."""
    return "".join(char if char.isprintable() else f"\\u{{{ord(char):04x}}}" for char in text)


def print_report(ledger, as_json):
    verdict, findings = ledger.verdict(), ledger.findings
    if as_json:
        print(json.dumps({"verdict": verdict, "entries": ledger.entries, "redacted": ledger.redacted,
                          "key_pinned": ledger.pinned, "anchor": ledger.anchor,
                          "problems": findings.problems, "notes": findings.notes}))
        return verdict
    print(f"{ledger.entries} entries, {ledger.redacted} payloads redacted")
    print(f"log key   {ledger.key}   {'pinned by you' if ledger.pinned else 'not pinned'}")
    if ledger.anchor:
        source, size, time = ledger.anchor
        print(safe(f"anchored  {source} at {size}, signed {instant(time)}; {max(0, ledger.entries - size)} entries are newer"))
    for problem in findings.problems[:200]:
        place = "".join(f", {name} {problem[name]}" for name in ("entry", "offset") if problem[name] is not None)
        print(safe(f"x {problem['file'] or 'ledger'}{place}: {problem['what']}"))
    for note in findings.notes:
        print(safe(f"- {note}"))
    print(VERDICTS[verdict])
    return verdict


def key_argument(algorithm):
    def parse(text):
        try:
            if os.path.exists(text):
                text = read_file(text, NOTE_MAX).decode().strip()
            return Vkey.parse(text, algorithm)
        except (Bad, OSError, UnicodeError) as why:
            raise argparse.ArgumentTypeError(str(why)) from None
    return parse


class Parser(argparse.ArgumentParser):
    def error(self, message):
        self.print_usage(sys.stderr)
        print(f"verify.py: {message}", file=sys.stderr)
        sys.exit(3)


def main():
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dir", help="a ledger's directory, an export, or a session's bundle")
    parser.add_argument("--key", metavar="VKEY|FILE", type=key_argument(1), help="the log key, pinned")
    parser.add_argument("--checkpoint", metavar="FILE", action="append", default=[],
                        help="a checkpoint that was kept elsewhere")
    parser.add_argument("--witness", metavar="VKEY|FILE", type=key_argument(4), action="append", default=[],
                        help="a witness's key: it must have cosigned")
    parser.add_argument("--show", action="store_true", help="print the entries too, one JSON object a line")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    arguments = parser.parse_args()
    try:
        ledger = Ledger(arguments.dir, arguments)
        ledger.verify()
        sys.exit(print_report(ledger, arguments.json))
    except (OSError, Bad) as why:
        print(safe(f"verify.py: {why}"), file=sys.stderr)
        sys.exit(3)


if __name__ == "__main__":
    main()

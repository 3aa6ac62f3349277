#!/usr/bin/env python3
"""Checks Dayfly's audit log as an outsider: Python's standard library, and nothing of Dayfly's.

  verify.py KEY log URL CA-FILE [CHECKPOINT...]   the log at URL (https://HOST:PORT/log): its newest checkpoint, every leaf's
                                                  hash, and that each earlier CHECKPOINT (a file) grew into it
  verify.py KEY export FILE [CHECKPOINT...]       an export of all events, by the checkpoints in it and beside it
  verify.py KEY proof FILE                        what `dayfly audit prove -o json` printed

KEY is a verifier key, NAME+HASH+BASE64. Prints what was checked; fails with a message that says what is wrong."""
import base64, hashlib, json, ssl, sys, urllib.request

b64 = lambda text: base64.b64decode(text, validate=True)
read = lambda file: open(file, encoding="utf-8").read()
sha256 = lambda *parts: hashlib.sha256(b"".join(parts)).digest()
node = lambda left, right: sha256(b"\1", left, right)

def need(holds, message):
    if not holds:
        sys.exit(f"WRONG: {message}")

# Ed25519 (RFC 8032, section 5.1.7), by the book.
P, L = 2**255 - 19, 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
def add(a, b):
    (x1, y1, z1, t1), (x2, y2, z2, t2) = a, b
    e, f, g, h = (y1 - x1) * (y2 - x2), (y1 + x1) * (y2 + x2), 2 * t1 * t2 * D, 2 * z1 * z2
    e, f, g, h = f - e, h - g, h + g, f + e
    return e * f % P, g * h % P, f * g % P, e * h % P
def times(n, point):
    sum = (0, 1, 1, 0)
    while n:
        sum, point, n = add(sum, point) if n & 1 else sum, add(point, point), n >> 1
    return sum
def point(encoded):
    y, sign = int.from_bytes(encoded, "little") & (1 << 255) - 1, encoded[31] >> 7
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    x = x if x * x % P == square else x * pow(2, (P - 1) // 4, P) % P
    need(y < P and x * x % P == square and (x or not sign), "no point of the curve")
    x = x if x & 1 == sign else P - x
    return x, y, 1, x * y % P
BASE = point((4 * pow(5, -1, P) % P).to_bytes(32, "little"))
def signed(key, message, signature):
    r, s = signature[:32], int.from_bytes(signature[32:], "little")
    k = int.from_bytes(hashlib.sha512(r + key + message).digest(), "little") % L
    (x1, y1, z1, _), (x2, y2, z2, _) = times(s, BASE), add(point(r), times(k, point(key)))
    return len(signature) == 64 and s < L and (x1 * z2 - x2 * z1) % P == 0 == (y1 * z2 - y2 * z1) % P

def checkpoint(note, key):
    """The size, the root and the store of a signed checkpoint (C2SP signed-note, tlog-checkpoint)."""
    name, hash, public = key.split("+", 2)
    public, (text, lines) = b64(public), note.rsplit("\n\n", 1)
    need(public[0] == 1 and sha256(name.encode(), b"\n", public)[:4].hex() == hash, "KEY is no verifier key")
    ours = [b64(line.split(" ")[2]) for line in lines.splitlines() if line.startswith(f"\u2014 {name} ")]
    ours = [signature[4:] for signature in ours if signature[:4].hex() == hash]
    need(ours, f"no signature of {name}+{hash} is under the checkpoint")
    need(all(signed(public[1:], f"{text}\n".encode(), one) for one in ours), "the checkpoint's signature is not of its text")
    origin, size, root, *more = text.split("\n")
    need(origin == name, f"the checkpoint is of {origin}, not {name}")
    return int(size), b64(root), more

def includes(leaf, at, size, hashes, root):  # RFC 9162, section 2.1.3.2
    last = size - 1
    for other in hashes:
        if at & 1 or at == last:
            leaf = node(other, leaf)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            leaf = node(leaf, other)
        at, last = at >> 1, last >> 1
    return last == 0 and leaf == root

def extends(old, was, new, now, hashes):  # RFC 9162, section 2.1.4.2
    if old == new:
        return was == now and not hashes
    hashes = ([was] if old & (old - 1) == 0 else []) + hashes
    at, last = old - 1, new - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    earlier = later = hashes[0]
    for other in hashes[1:]:
        if at & 1 or at == last:
            earlier, later = node(other, earlier), node(other, later)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            later = node(later, other)
        at, last = at >> 1, last >> 1
    return last == 0 and (earlier, later) == (was, now)

def root_of(leaves):
    """The root of a tree (RFC 9162, section 2.1.1), from the perfect subtrees that are there after each leaf."""
    stack = []
    for n, leaf in enumerate(leaves):
        while n & 1:
            leaf, n = node(stack.pop(), leaf), n >> 1
        stack.append(leaf)
    root = stack.pop() if stack else sha256()
    while stack:
        root = node(stack.pop(), root)
    return root

def field(bytes, wanted):
    """A field of a message of protobuf that has numbers and bytes alone."""
    at = 0
    def number():
        nonlocal at
        value = shift = 0
        while True:
            value, shift, at = value | (bytes[at] & 127) << shift, shift + 7, at + 1
            if bytes[at - 1] < 128:
                return value
    while at < len(bytes):
        tag = number()
        value = number()
        if tag & 7 == 2:
            value, at = bytes[at:at + value], at + value
        if tag >> 3 == wanted:
            return value

def event(record):
    """An event's record: its leaf has its hash, is of its position, and binds its detail, as far as those are there."""
    position, hash = record["position"], b64(record["leaf_hash"])
    if record.get("leaf"):
        leaf = b64(record["leaf"])
        need(sha256(b"\0", leaf) == hash, f"event {position} was changed: its leaf has another hash")
        need(field(leaf, 2) == position, f"event {field(leaf, 2)} stands as event {position}")
        if record.get("salt"):
            bound = sha256(b64(record["salt"]), b64(record.get("detail") or ""))
            need(bound == field(leaf, 5), f"event {position} was changed: its leaf does not bind its detail and salt")
    return position, hash

def log(key, url, ca_file, *earlier):
    context = ssl.create_default_context(cafile=ca_file)
    get = lambda path: urllib.request.urlopen(url + path, context=context).read()
    size, root, store = checkpoint(get("/checkpoint").decode(), key)
    leaves = b""
    for tile in range((size + 255) // 256):
        path, rest = f"{tile % 1000:03}", tile // 1000
        while rest:
            path, rest = f"x{rest % 1000:03}/{path}", rest // 1000
        width = min(256, size - 256 * tile)
        leaves += get(f"/tile/0/{path}" + (f".p/{width}" if width < 256 else ""))
    leaves = [leaves[at:at + 32] for at in range(0, len(leaves), 32)]
    need(len(leaves) == size and root_of(leaves) == root, "the tiles do not have the checkpoint's root")
    for file in earlier:
        old, was, of = checkpoint(read(file), key)
        need(of == store, f"{file} is of another store or incarnation: {of}, now {store}")
        need(old <= size, f"events {size + 1} to {old} are missing: {file} has them")
        proof = json.loads(get(f"/proof/consistency?from={old}&to={size}"))["hashes"]
        need(extends(old, was, size, root, [b64(hash) for hash in proof]), f"{file} did not grow into the newest checkpoint")
        need(root_of(leaves[:old]) == was, f"one of the first {old} events was changed since {file}")
    print(f"{size} events, every leaf's hash, and {len(earlier)} earlier checkpoints")

def export(key, file, *checkpoints):
    notes, leaves = [read(file) for file in checkpoints], []
    for line in map(json.loads, filter(str.strip, open(file, encoding="utf-8"))):
        if "checkpoint" in line:
            notes.append(line["checkpoint"])
            continue
        position, hash = event(line.get("record") or line["unmapped"]["dayfly"]["record"])
        need(position == len(leaves) + 1, f"event {position} stands where event {len(leaves) + 1} belongs")
        leaves.append(hash)
    need(notes, "there is no checkpoint to compare with")
    for size, root, _ in (checkpoint(note, key) for note in notes):
        need(size <= len(leaves), f"events {len(leaves) + 1} to {size} are missing")
        need(root_of(leaves[:size]) == root, f"one of the first {size} events was changed")
    print(f"{len(leaves)} events, by {len(notes)} checkpoints")

def proof(key, file):
    said = json.loads(read(file))
    (size, root, _), (position, hash) = checkpoint(said["checkpoint"], key), event(said)
    need(0 < position <= size, f"the checkpoint is of {size} events")
    need(includes(hash, position - 1, size, [b64(one) for one in said["hashes"]], root), f"event {position} is not in the log")
    print(f"event {position} is in the log of {size} events")

if __name__ == "__main__":
    if len(sys.argv) < 4 or sys.argv[2] not in ("log", "export", "proof"):
        sys.exit(__doc__)
    {"log": log, "export": export, "proof": proof}[sys.argv[2]](sys.argv[1], *sys.argv[3:])

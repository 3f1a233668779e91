#!/usr/bin/env python3
"""Reads one object of a breakglass repository (format version 1), from docs/formats.md alone.
usage: container_reader.py OBJECT NAME SECRET_HEX > plain        SECRET_HEX: the 32 bytes of an identity's secret key
       container_reader.py --keys KEYFILE                        prints the identities' secrets; passphrase on stdin
Needs python3-cryptography, and the zstd program for compressed objects. Writes nothing unless all of it is right."""
import hashlib, hmac, json, struct, subprocess, sys
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

def check(ok, what):
    if not ok: sys.exit("damaged: " + what)

def hkdf(salt, key, info, length=32):
    return HKDF(algorithm=SHA256(), length=length, salt=salt, info=info).derive(key)

def unwrap(key, sealed):
    return AESGCM(key).decrypt(bytes(12), sealed, None)

def identities(path, passphrase):
    from argon2.low_level import hash_secret_raw, Type
    k = json.load(open(path)); p = k["passphrase"]; repo = bytes.fromhex(k["repository"]); salt = bytes.fromhex(p["salt"])
    slow = hash_secret_raw(passphrase, salt, p["passes"], p["memory_kib"], p["lanes"], 32, Type.ID)
    ring = unwrap(hkdf(salt, slow, b"breakglass keys 1 passphrase" + repo), bytes.fromhex(p["sealed"]))
    for i in k["identities"]:
        public = bytes.fromhex(i["public"])
        print(unwrap(hkdf(public, ring, b"breakglass keys 1 identity" + repo), bytes.fromhex(i["sealed"])).hex())

def read(data, name, secret):
    check(data[:8] == b"\x89BGO\r\n\x1a\n" and data[8:10] == b"\0\1", "not an object of version 1")
    core_len, = struct.unpack(">H", data[10:12]); core = data[:core_len]
    kind, cipher, kdf, compression, chunk_size, frame_size = struct.unpack(">BBBBII", core[12:24])
    salt = core[24:56]; name_len, = struct.unpack(">H", core[96:98])
    check((cipher, kdf) == (1, 1) and core[98:98 + name_len].decode() == name, "name or algorithms")
    at = core_len + 2; stanzas = []
    for _ in range(*struct.unpack(">H", data[core_len:at])):
        t, n = struct.unpack(">HH", data[at:at + 4]); stanzas.append((t, data[at + 4:at + 4 + n])); at += 4 + n
    core_hash = hashlib.sha256(core).digest(); private = X25519PrivateKey.from_private_bytes(secret)
    public = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw); key = None
    for t, body in stanzas:
        if body[:32] != public: continue
        if t == 1:
            shared = private.exchange(X25519PublicKey.from_public_bytes(body[32:64]))
            key = unwrap(hkdf(body[32:64] + public, shared, b"breakglass container 1 x25519" + core_hash), body[64:])
        elif t == 2:
            key = unwrap(hkdf(salt, secret, b"breakglass container 1 own" + core_hash), body[32:])
    if key is None: sys.exit("no key for this object")
    mac = hmac.new(hkdf(salt, key, b"breakglass container 1 header"), data[:at], hashlib.sha256).digest()
    check(hmac.compare_digest(mac, data[at:at + 32]), "header")
    check(hashlib.sha256(data[:at + 32]).digest()[:8] == data[at + 32:at + 40], "header checksum"); at += 40
    okm = hkdf(salt, key, b"breakglass container 1 payload" + core_hash, 39); gcm, prefix = AESGCM(okm[:32]), okm[32:]
    chunks, foot, packed, n = data[at:-80], data[-80:], b"", 0
    while n * (chunk_size + 16) < len(chunks):
        chunk = chunks[n * (chunk_size + 16):(n + 1) * (chunk_size + 16)]
        last = (n + 1) * (chunk_size + 16) >= len(chunks)
        packed += gcm.decrypt(prefix + struct.pack(">IB", n, last), chunk, None); n += 1
    plain, lengths, at = [], b"", 0
    while packed[at] != 2:
        kind_of, plain_len, packed_len = struct.unpack(">BII", packed[at:at + 9]); body = packed[at + 9:at + 9 + packed_len]
        plain.append(body if kind_of == 0 else subprocess.run(["zstd", "-dcq"], input=body, capture_output=True).stdout)
        check(len(plain[-1]) == plain_len <= frame_size, "frame"); lengths += struct.pack(">I", packed_len); at += 9 + packed_len
    count = len(plain); plain = b"".join(plain); digest = hashlib.sha256(plain).digest()
    check(packed[at + 1:] == lengths + struct.pack(">QQ", count, len(plain)) + digest, "index or totals")
    tag = hmac.new(salt, digest, hashlib.sha256).digest() if kind in (1, 2, 3) else bytes(32)
    head = b"\x89BGE\r\n\x1a\n" + struct.pack(">Q", len(chunks)) + tag
    check(foot == head + hashlib.sha256(core + chunks + head).digest(), "footer")
    return plain

if __name__ == "__main__":
    if sys.argv[1] == "--keys": identities(sys.argv[2], sys.stdin.buffer.read())
    else: sys.stdout.buffer.write(read(open(sys.argv[1], "rb").read(), sys.argv[2], bytes.fromhex(sys.argv[3])))

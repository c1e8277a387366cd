"""Reads an encrypted repository by what docs/reference/repository-format.md says alone.

It takes nothing from the program.
"""

import base64
import json
import struct

import zstandard
from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESSIV
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, MLKEM768X25519PrivateKey, Suite
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

SEGMENT = 64 * 1024
CHUNK = 256 * 1024
HPKE = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


def key_for(secret, purpose, length=32):
    context = f"virtbackup-async 2026-11 repository 2: {purpose}"
    return blake3(secret, derive_key_context=context).digest(length)


def written(text):
    data = base64.b32decode(text.replace("-", ""))
    return data[:32]


def halves(letters):
    """The private and the public half of a recovery key."""
    context = "virtbackup-async 2026-11 recovery key"
    seed = blake3(written(letters), derive_key_context=context).digest(96)
    mlkem = MLKEM768PrivateKey.from_seed_bytes(seed[:64])
    x25519 = X25519PrivateKey.from_private_bytes(seed[64:])
    public = mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()
    return MLKEM768X25519PrivateKey(mlkem, x25519), public


class DocumentReader:
    """Reads an encrypted target as the document describes it."""

    wrapping = 1

    def __init__(self, target):
        self.target = target
        self.repository = target / ".virtbackup-repository"
        line, checksum = (self.repository / "repository").read_bytes().split(b"\n")[:2]
        assert blake3(line).hexdigest() == checksum.decode()
        self.facts = json.loads(line)
        self.id = bytes.fromhex(self.facts["id"])

    def slots(self, kind):
        for path in (self.repository / "keys").iterdir():
            slot = json.loads(path.read_bytes().split(b"\n")[0])
            if slot["kind"] == kind:
                words = ("virtbackup key slot", "1", kind, slot["label"], slot["created"])
                bound = b"\0".join([*map(str.encode, words), self.id + bytes.fromhex(slot["keys"])])
                yield slot, bytes.fromhex(slot["sealed"]), bound

    def open_by_key_file(self, path):
        (line,) = [each for each in path.read_text().split("\n") if each and each[0] != "#"]
        kind, _, letters = line.partition(":")
        assert kind == "virtbackup-key-1"
        ((_, sealed, bound),) = self.slots("key-file")
        return AESSIV(key_for(written(letters), "key file", 64)).decrypt(sealed, [bound])

    def open_by_passphrase(self, passphrase):
        ((slot, sealed, bound),) = self.slots("passphrase")
        cost = slot["argon2id"]
        kdf = Argon2id(
            salt=bytes.fromhex(cost["salt"]),
            length=64,
            iterations=cost["iterations"],
            lanes=cost["lanes"],
            memory_cost=cost["memory_kib"],
        )
        return AESSIV(kdf.derive(passphrase)).decrypt(sealed, [bound])

    def open_by_recovery_key(self, letters):
        ((slot, sealed, bound),) = self.slots("recovery")
        private, public = halves(letters)
        assert slot["public"] == public.hex()
        return HPKE.decrypt(sealed, private, bound)

    def use(self, master):
        """Derive the keys from the first master secret."""
        self.master = master
        assert self.facts["encryption"]["keys"] == key_for(master, "id of the keys", 16).hex()
        mac = self.facts.pop("mac")
        line = json.dumps(self.facts, separators=(",", ":")).encode()
        assert blake3(line, key=key_for(master, "description")).hexdigest() == mac

    def path(self, name):
        """Where a file with a clear name is."""
        path, above = self.target, ""
        for step in name.split("/"):
            if above or step != ".virtbackup-repository":
                path /= self.sealed_step(above, step)
            else:
                path /= step
            above = f"{above}/{step}" if above else step
        return path

    def sealed_step(self, above, step):
        parent = above.rpartition("/")[2]
        short = step.replace(parent, "\1").encode() if parent else step.encode()
        padded = short + bytes(-len(short) % 16)
        siv = AESSIV(key_for(self.master, "names of files", 64))
        sealed = siv.encrypt(padded, [b"name" + self.id, above.encode()])
        return base64.b32hexencode(sealed).decode().rstrip("=").lower()

    def file(self, name):
        """The content of a sealed file."""
        data = self.path(name).read_bytes()
        head, body = data[:48], data[48:]
        magic, version, generation, zeros = struct.unpack("<8sHH4s", head[:16])
        assert (magic, version, generation, zeros) == (b"vbk-file", 2, 1, bytes(4))
        key = blake3(head + self.id + name.encode(), key=key_for(self.master, "files"))
        cipher, segment = AESGCM(key.digest()), SEGMENT + 16
        parts = [body[at : at + segment] for at in range(0, len(body), segment)]
        return b"".join(
            cipher.decrypt(struct.pack("<QI", number, number == len(parts) - 1), part, None)
            for number, part in enumerate(parts)
        )

    def chunks(self, pack):
        """The chunks of a pack by their ids, found by reading the pack alone."""
        data = pack.read_bytes()
        head, tail = data[:64], data[-32:]
        assert head[:12] == b"vbk-pack" + struct.pack("<HH", 2, 0)
        assert (head[16:32], head[32:48].hex()) == (self.id, pack.stem)
        assert struct.unpack("<8sQ", tail[:16]) == (b"vbk-tail", len(data) - 32)
        at, found = 64, {}
        while at < len(data) - 32:
            id_, chunk, length = self.blob(data[at:])
            found[id_] = chunk
            at += length
        assert at == len(data) - 32
        return found

    def blob(self, data):
        head = AESSIV(key_for(self.master, "heads of blobs", 64)).decrypt(
            data[:128], [b"blob head"]
        )
        method, wrapping, generation, length, stored, number = struct.unpack("<BBHIII", head[:16])
        assert (wrapping, generation) == (self.wrapping, 1)
        id_, wrapped, check = head[16:48], head[48:96], head[96:112]
        end = 128 + -(-stored // 16) * 16 + 16
        payload, nonce = data[128:end], number.to_bytes(12, "little")
        check_key = blake3(wrapped, key=key_for(self.master, "checks of blobs")).digest()
        AESGCM(check_key).decrypt(nonce, check, payload)
        key = self.pack_key(wrapped)
        bound = b"blob" + key_for(self.master, "id of the keys", 16)
        bound += struct.pack("<BII", method, length, stored) + id_
        opened = AESGCM(key).decrypt(nonce, payload, bound)[:stored]
        chunk = zstandard.ZstdDecompressor().decompress(opened) if method == 1 else opened
        assert len(chunk) == length
        return id_, chunk, end

    def pack_key(self, wrapped):
        return AESSIV(key_for(self.master, "keys of packs", 64)).decrypt(wrapped, [b"pack key"])

    def image(self, name):
        """An image, from its map and the packs."""
        packs = [self.chunks(pack) for pack in self.repository.glob("packs/*/*.pack")]
        chunks = {id_: chunk for pack in packs for id_, chunk in pack.items()}
        data = self.file(name)
        assert data[16:32] == self.id
        (size,) = struct.unpack("<Q", data[32:40])
        image = bytearray(size)
        for at in range(48, len(data) - 32, 48):
            number, _, leaf = struct.unpack("<QQ32s", data[at : at + 48])
            id_ = blake3(leaf, key=key_for(self.master, "ids of chunks")).digest()
            image[number * CHUNK : (number + 1) * CHUNK] = chunks[id_]
        return bytes(image)

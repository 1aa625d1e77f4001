#!/usr/bin/env python3
"""A client of segld, written from docs/PROTOCOL.md alone: ssl, socket and cbor2.

It keeps one request in flight at a time, which is all that a script needs; ids tell answers apart all the same.

    segl_client.py --address HOST:PORT --ca CA.pem --cert CLIENT.pem --key CLIENT.key demo
    segl_client.py ... sign --key-name seal --algorithm ecdsa-p256-sha256 --digest-hex 00ff...
    segl_client.py ... sign-assertion --key-name login --signature-method URI assertion.xml
    segl_client.py ... sign-assertion --key-name login --signature-method URI one.xml another.xml
    segl_client.py ... sign-jws --key-name tokens --algorithm ES256 claims.json
    segl_client.py ... keys
"""

import argparse
import base64
import hashlib
import json
import os
import socket
import ssl
import struct
import sys

import cbor2
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils

HEADER = struct.Struct(">IBBHQ")

HELLO, PING, PONG = 0x01, 0x02, 0x03
LIST_KEYS, KEYS = 0x10, 0x11
SIGN, SIGNED = 0x12, 0x13
SIGN_BATCH, SIGNED_BATCH = 0x14, 0x15
SIGN_ASSERTION, SIGNED_ASSERTION = 0x16, 0x17
SIGN_ASSERTION_BATCH, SIGNED_ASSERTION_BATCH = 0x18, 0x19
SIGN_JWS, SIGNED_JWS = 0x1A, 0x1B
CANCEL, GO_AWAY, ERROR = 0x20, 0x21, 0x7F

HELLO_MAX = 4096
ANSWER_MAX = 16 * 1024 * 1024

CLASSES = {"login": 0, "signature": 1, "bulk": 2}
DER, RAW = 0, 1
KEY_INFO = {"none": 0, "leaf": 1, "chain": 2, "thumbprint": 3}
CITIZEN = 0
SHA256_URI = "http://www.w3.org/2001/04/xmlenc#sha256"

CODES = {
    1: "malformed", 2: "unknown_type", 3: "frame_too_long", 4: "bad_id", 5: "bad_input", 6: "not_granted",
    7: "purpose_violated", 8: "algorithm_not_allowed", 9: "class_not_allowed", 10: "bad_batch",
    11: "policy_violation", 12: "malformed_document", 20: "expired",
    21: "too_many_in_flight", 22: "overloaded", 23: "key_unavailable", 24: "token_failed", 25: "audit_unavailable",
    26: "cancelled", 27: "draining", 28: "tenant_limit", 29: "key_refused", 40: "internal",
}  # fmt: skip

HASHES = {"sha256": hashes.SHA256, "sha384": hashes.SHA384, "sha512": hashes.SHA512}


class SeglError(Exception):
    """The server's other answer."""

    def __init__(self, body):
        self.code = CODES.get(body[1], "internal")
        self.fault = ("client", "server", "token")[body[2]]
        self.signed = ("no", "unknown")[body[3]]
        self.retry = ("never", "here", "elsewhere")[body[4]]
        self.retry_after_ms = body.get(5)
        self.message = body[6]
        self.violations = [
            {"rule": violation[1], "place": violation.get(2), "text": violation[3]} for violation in body.get(7, [])
        ]
        super().__init__(f"{self.code}: {self.message} (signed: {self.signed}, retry: {self.retry})")


class ProtocolError(Exception):
    """The server did not keep to the specification."""


class Gone(Exception):
    """The server is leaving: requests above `last_id` were not looked at."""

    def __init__(self, body):
        self.last_id, self.reason, self.message = body[1], body[2], body[3]
        super().__init__(f"the server leaves after request {self.last_id}: {self.message}")


class SeglClient:
    """One connection to segld."""

    def __init__(self, address, ca, cert, key, server_name=None, timeout_s=10):
        host, _, port = address.rpartition(":")
        host = host.strip("[]")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_verify_locations(ca)
        context.load_cert_chain(cert, key)
        context.set_alpn_protocols(["segl/1"])
        tcp = socket.create_connection((host, int(port)), timeout_s)
        tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = context.wrap_socket(tcp, server_hostname=server_name or host)
        if self.socket.selected_alpn_protocol() != "segl/1":
            raise ProtocolError("the server does not speak segl/1")
        self.timeout_s = timeout_s
        self.last_id = 0
        self.going = None
        self.body_max = HELLO_MAX
        kind, frame_id, body = self._read()
        if kind != HELLO or frame_id != 0:
            raise ProtocolError(f"the server begins with a frame of type {kind:#04x}")
        names = ("server", "frame_max", "in_flight_max", "batch_max", "message_max", "timeout_max_ms", "idle_ms",
                 "document_max")  # fmt: skip
        self.hello = {name: body[number] for number, name in enumerate(names, start=1)}
        self.body_max = ANSWER_MAX

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def list_keys(self, timeout_ms=5000):
        """What this client may use, as a list of dictionaries."""
        body = self._request(LIST_KEYS, KEYS, self._meta(timeout_ms, "login"), timeout_ms)
        names = ("name", "purpose", "type", "bits", "algorithms", "spki", "certificates", "state")
        keys = [{name: key[number] for number, name in enumerate(names, start=1)} for key in body[1]]
        names = ("name", "phase", "active_from", "spki", "certificates", "state")
        for key, raw in zip(keys, body[1], strict=True):
            versions = raw.get(9, [])
            key["versions"] = [{name: of[number] for number, name in enumerate(names, start=1)} for of in versions]
        return keys

    def sign(
        self, key, algorithm, digest=None, message=None, encoding=DER, timings=False, timeout_ms=5000,
        class_="signature", reference=None, on_behalf_of=None, capacity=None,
    ):  # fmt: skip
        """One signature: (bytes, timings or None)."""
        body = self._meta(timeout_ms, class_, reference, on_behalf_of, capacity)
        body |= {10: key, 11: algorithm, 12: encoding, 13: timings} | _payload(digest, message)
        return _signed(self._request(SIGN, SIGNED, body, timeout_ms))

    def sign_batch(
        self, key, algorithm, items, encoding=DER, timings=False, timeout_ms=10000, class_="bulk",
        reference=None, on_behalf_of=None, capacity=None,
    ):  # fmt: skip
        """Many signatures; items are dictionaries with digest or message, and reference if there is one.

        For each item (bytes, timings or None), or its SeglError."""
        if not 1 <= len(items) <= min(self.hello["batch_max"], self.hello["in_flight_max"]):
            raise ValueError(f"a batch of {len(items)} is not allowed here")
        body = self._meta(timeout_ms, class_, reference, on_behalf_of, capacity)
        body |= {10: key, 11: algorithm, 12: encoding, 13: timings, 16: [_item(**item) for item in items]}
        answer = self._request(SIGN_BATCH, SIGNED_BATCH, body, timeout_ms)
        if len(answer[1]) != len(items):
            raise ProtocolError(f"{len(answer[1])} answers to a batch of {len(items)}")
        return [_signed(item[1]) if 1 in item else SeglError(item[2]) for item in answer[1]]

    def sign_assertion(
        self, key, signature_method, document, digest_method=SHA256_URI, key_info="leaf", element_only=False,
        timings=False, timeout_ms=5000, class_="login", reference=None, on_behalf_of=None, capacity=None,
    ):  # fmt: skip
        """The signed document, or with element_only (offset, ds:Signature)."""
        body = self._meta(timeout_ms, class_, reference, on_behalf_of, capacity)
        body |= _assertion_how(key, signature_method, digest_method, key_info, element_only, timings) | {20: document}
        return _signed_assertion(self._request(SIGN_ASSERTION, SIGNED_ASSERTION, body, timeout_ms))

    def sign_assertion_batch(
        self, key, signature_method, items, digest_method=SHA256_URI, key_info="leaf", element_only=False,
        timings=False, timeout_ms=10000, class_="bulk", reference=None, on_behalf_of=None, capacity=None,
    ):  # fmt: skip
        """Many assertions; items are dictionaries with document, and reference and capacity if there are any.

        For each item what sign_assertion returns, or its SeglError."""
        body = self._meta(timeout_ms, class_, reference, on_behalf_of, capacity)
        body |= _assertion_how(key, signature_method, digest_method, key_info, element_only, timings)
        body[16] = [_assertion_item(**item) for item in items]
        answer = self._request(SIGN_ASSERTION_BATCH, SIGNED_ASSERTION_BATCH, body, timeout_ms)
        if len(answer[1]) != len(items):
            raise ProtocolError(f"{len(answer[1])} answers to a batch of {len(items)}")
        return [_signed_assertion(item[1]) if 1 in item else SeglError(item[2]) for item in answer[1]]

    def sign_jws(
        self, key, algorithm, payload, header=None, key_info="none", timings=False, timeout_ms=5000,
        class_="login", reference=None, on_behalf_of=None, capacity=None,
    ):  # fmt: skip
        """A JWS in compact serialisation; payload and header are the bytes of JSON objects."""
        body = self._meta(timeout_ms, class_, reference, on_behalf_of, capacity)
        body |= {10: key, 11: algorithm, 13: timings, 18: KEY_INFO[key_info], 22: payload}
        body |= {} if header is None else {21: header}
        return self._request(SIGN_JWS, SIGNED_JWS, body, timeout_ms)[1].decode("ascii")

    def ping(self, data=b"segl"):
        """Asks whether the server lives."""
        self._write(PING, 0, {1: data})
        kind, frame_id, body = self._next()
        if (kind, frame_id, body) != (PONG, 0, {1: data}):
            raise ProtocolError("a Pong is not its Ping")

    def goaway(self):
        """Tells the server that we leave, and waits until it closes."""
        self._write(GO_AWAY, 0, {1: 0, 2: 0, 3: "done"})
        while True:
            try:
                self._next()
            except Gone:
                continue
            except EOFError:
                return

    def _meta(self, timeout_ms, class_, reference=None, on_behalf_of=None, capacity=None):
        body = {1: timeout_ms, 2: CLASSES[class_], 3: reference, 4: on_behalf_of, 5: capacity}
        return {key: value for key, value in body.items() if value is not None}

    def _request(self, kind, answer_kind, body, timeout_ms):
        if self.going:
            raise self.going
        self.last_id += 1
        request_id = self.last_id
        self._write(kind, request_id, body)
        # The way there and back comes on top of the request's own time.
        self.socket.settimeout(timeout_ms / 1000 + 2)
        try:
            while True:
                try:
                    got, frame_id, answer = self._next()
                except Gone as going:
                    if request_id > going.last_id:
                        raise
                    continue
                if got == ERROR and frame_id in (request_id, 0):
                    raise SeglError(answer)
                if (got, frame_id) == (answer_kind, request_id):
                    return answer
                # A request that timed out earlier may be answered still.
                if frame_id == 0 or frame_id > request_id:
                    raise ProtocolError(f"unexpected frame of type {got:#04x} with id {frame_id}")
        except TimeoutError:
            self._write(CANCEL, request_id, {})
            raise
        finally:
            self.socket.settimeout(self.timeout_s)

    def _next(self):
        """The next frame that is not about the connection itself."""
        while True:
            kind, frame_id, body = self._read()
            if kind == PING:
                self._write(PONG, frame_id, body)
            elif kind == GO_AWAY:
                self.going = Gone(body)
                raise self.going
            else:
                return kind, frame_id, body

    def _write(self, kind, frame_id, body):
        body = cbor2.dumps(body, canonical=True)
        if len(body) > self.hello["frame_max"]:
            raise ValueError(f"a body of {len(body)} bytes is too long here")
        self.socket.sendall(HEADER.pack(len(body), kind, 0, 0, frame_id) + body)

    def _read(self):
        length, kind, flags, reserved, frame_id = HEADER.unpack(self._read_exactly(HEADER.size))
        if flags or reserved:
            raise ProtocolError("flags or reserved bytes are not 0")
        if length > self.body_max:
            raise ProtocolError(f"a body of {length} bytes")
        encoded = self._read_exactly(length)
        body = cbor2.loads(encoded)
        if cbor2.dumps(body, canonical=True) != encoded:
            raise ProtocolError("the server's CBOR is not deterministic")
        return kind, frame_id, body

    def _read_exactly(self, length):
        parts = []
        while length:
            part = self.socket.recv(min(length, 65536))
            if not part:
                raise EOFError("the server closed the connection")
            parts.append(part)
            length -= len(part)
        return b"".join(parts)


def _payload(digest, message):
    if (digest is None) == (message is None):
        raise ValueError("either a digest or a message")
    return {14: digest} if message is None else {15: message}


def _item(digest=None, message=None, reference=None):
    return _payload(digest, message) | ({} if reference is None else {3: reference})


def _assertion_how(key, signature_method, digest_method, key_info, element_only, timings):
    return {
        10: key, 11: signature_method, 13: timings, 17: digest_method, 18: KEY_INFO[key_info], 19: int(element_only),
    }  # fmt: skip


def _assertion_item(document, reference=None, capacity=None):
    item = {3: reference, 5: capacity, 20: document}
    return {key: value for key, value in item.items() if value is not None}


def _signed_assertion(body):
    return (body[4], body[1]) if 4 in body else body[1]


def _signed(body):
    timings = {"queue_us": body[2][1], "token_us": body[2][2]} if 2 in body else None
    return body[1], timings


def verify(spki, algorithm, signature, digest=None, message=None, encoding=DER):
    """Raises InvalidSignature unless the signature is the key's, by the cryptography library."""
    public = serialization.load_der_public_key(spki)
    if isinstance(public, ed25519.Ed25519PublicKey):
        return public.verify(signature, message)
    hash_ = HASHES[algorithm.rpartition("-")[2]]()
    if digest is None:
        data, prehashed = message, hash_
    else:
        data, prehashed = digest, utils.Prehashed(hash_)
    if isinstance(public, rsa.RSAPublicKey):
        if algorithm.startswith("rsa-pss-"):
            scheme = padding.PSS(padding.MGF1(hash_), hash_.digest_size)
        else:
            scheme = padding.PKCS1v15()
        return public.verify(signature, data, scheme, prehashed)
    assert isinstance(public, ec.EllipticCurvePublicKey)
    if encoding == RAW:
        half = (public.curve.key_size + 7) // 8
        if len(signature) != 2 * half:
            raise InvalidSignature
        r, s = (int.from_bytes(part, "big") for part in (signature[:half], signature[half:]))
        signature = utils.encode_dss_signature(r, s)
    return public.verify(signature, data, ec.ECDSA(prehashed))


def to_sign(algorithm, data):
    """The data as the algorithm wants it: hashed here, or whole."""
    if algorithm == "ed25519":
        return {"message": data}
    return {"digest": hashlib.new(algorithm.rpartition("-")[2], data).digest()}


def demo(client):
    """Signs with every key for digests, in every way, and verifies. True if all was well."""
    client.ping()
    print(f"connected to {client.hello['server']}")
    verified = failed = 0

    def check(what, key, algorithm, signature, payload, encoding=DER):
        nonlocal verified, failed
        try:
            verify(key["spki"], algorithm, signature, encoding=encoding, **payload)
            verified += 1
        except InvalidSignature:
            failed += 1
            print(f"FALSE SIGNATURE: {key['name']} {what}")

    usable = [key for key in client.list_keys() if key["purpose"] == "digest" and key["state"] == 0]
    for key in usable:
        for algorithm in key["algorithms"]:
            payload = to_sign(algorithm, os.urandom(100))
            signature, timings = client.sign(
                key["name"], algorithm, timings=True, reference="python", capacity="12345678", **payload
            )
            check(algorithm, key, algorithm, signature, payload)
            print(f"{key['name']}: {algorithm}, {len(signature)} bytes, {timings['token_us']} us in the token")
            if algorithm.startswith("ecdsa-"):
                signature, _ = client.sign(key["name"], algorithm, encoding=RAW, **payload)
                check(f"{algorithm} raw", key, algorithm, signature, payload, RAW)
            items = [to_sign(algorithm, os.urandom(10)) for _ in range(min(8, client.hello["batch_max"]))]
            for item, result in zip(items, client.sign_batch(key["name"], algorithm, items), strict=True):
                if isinstance(result, SeglError):
                    failed += 1
                    print(f"{key['name']} in a batch: {result}")
                else:
                    check(f"{algorithm} in a batch", key, algorithm, result[0], item)
    try:
        client.sign("no-such-key", "ed25519", message=b"x")
        failed += 1
        print("an unknown key was not refused")
    except SeglError as error:
        if (error.code, error.signed) != ("not_granted", "no"):
            failed += 1
            print(f"an unknown key was refused as {error}")
    client.goaway()
    print(f"{verified} signatures with {len(usable)} keys verified, {failed} failures")
    return verified > 0 and failed == 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--address", required=True, help="host:port")
    parser.add_argument("--server-name", help="the name in the server's certificate, if it is not the host")
    parser.add_argument("--ca", required=True, help="PEM: the CA of the server")
    parser.add_argument("--cert", required=True, help="PEM: our certificate chain")
    parser.add_argument("--key", required=True, help="PEM: our key")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("demo", help="sign with every key for digests and verify; exit 0 if all was well")
    commands.add_parser("keys", help="what we may use, as JSON")
    commands.add_parser("ping", help="ask whether the server lives")
    sign = commands.add_parser("sign", help="print a signature in base64")
    sign.add_argument("--key-name", required=True)
    sign.add_argument("--algorithm", required=True)
    payload = sign.add_mutually_exclusive_group(required=True)
    payload.add_argument("--digest-hex", type=bytes.fromhex)
    payload.add_argument("--message", type=str.encode)
    sign.add_argument("--raw", action="store_true", help="an ECDSA signature as r || s")
    sign.add_argument("--timeout-ms", type=int, default=5000)
    sign.add_argument("--class", dest="class_", choices=CLASSES, default="signature")
    sign.add_argument("--reference")
    sign.add_argument("--on-behalf-of")
    sign.add_argument("--cvr", help="for the company with this number")
    sign.add_argument("--verify", action="store_true", help="with the public key that the server shows")
    assertion = commands.add_parser(
        "sign-assertion", help="print the signed assertion; of several, sent in one frame, each as a line of JSON"
    )
    assertion.add_argument("--key-name", required=True)
    assertion.add_argument("--signature-method", required=True, help="URI")
    assertion.add_argument("--digest-method", default=SHA256_URI, help="URI")
    assertion.add_argument("--key-info", choices=("none", "leaf", "chain"), default="leaf")
    assertion.add_argument("--cvr", help="for the company with this number; else for a citizen")
    assertion.add_argument("--element-only", action="store_true", help="put the signature into the document here")
    assertion.add_argument("document", type=argparse.FileType("rb"), nargs="+")
    jws = commands.add_parser("sign-jws", help="print the JWS in compact serialisation")
    jws.add_argument("--key-name", required=True)
    jws.add_argument("--algorithm", required=True, help="such as ES256")
    jws.add_argument("--header", type=str.encode, help="a JSON object")
    jws.add_argument("--key-info", choices=KEY_INFO, default="none")
    jws.add_argument("payload", type=argparse.FileType("rb"))
    arguments = parser.parse_args()

    try:
        with SeglClient(
            arguments.address, arguments.ca, arguments.cert, arguments.key, arguments.server_name
        ) as client:
            return run(client, arguments)
    except (SeglError, Gone, ProtocolError, OSError, EOFError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        for violation in getattr(error, "violations", []):
            print(f"  {violation['rule']} at {violation['place']}: {violation['text']}", file=sys.stderr)
        return 1


def sign_assertions(client, arguments):
    documents = [document.read() for document in arguments.document]
    how = {
        "digest_method": arguments.digest_method, "key_info": arguments.key_info, "capacity": arguments.cvr or CITIZEN,
        "element_only": arguments.element_only,
    }  # fmt: skip

    def whole(document, signed):
        if not arguments.element_only:
            return signed
        offset, element = signed
        return document[:offset] + element + document[offset:]

    if len(documents) == 1:
        signed = client.sign_assertion(arguments.key_name, arguments.signature_method, documents[0], **how)
        sys.stdout.buffer.write(whole(documents[0], signed))
        return 0
    items = [{"document": document} for document in documents]
    answers = client.sign_assertion_batch(arguments.key_name, arguments.signature_method, items, **how)
    for document, answer in zip(documents, answers, strict=True):
        if isinstance(answer, SeglError):
            print(json.dumps({"code": answer.code, "violations": answer.violations}))
        else:
            print(json.dumps({"document": whole(document, answer).decode()}))
    return 0


def run(client, arguments):
    if arguments.command == "demo":
        return 0 if demo(client) else 1
    if arguments.command == "ping":
        client.ping()
        print(json.dumps(client.hello))
        return 0
    if arguments.command == "keys":
        text = lambda value: base64.b64encode(value).decode() if isinstance(value, bytes) else value  # noqa: E731
        for key in client.list_keys():
            for shown in (key, *key["versions"]):
                shown["certificates"] = [text(certificate) for certificate in shown["certificates"]]
            key["versions"] = [{name: text(value) for name, value in of.items()} for of in key["versions"]]
            print(json.dumps({name: text(value) for name, value in key.items()}))
        return 0
    if arguments.command == "sign-assertion":
        return sign_assertions(client, arguments)
    if arguments.command == "sign-jws":
        payload = arguments.payload.read()
        print(client.sign_jws(arguments.key_name, arguments.algorithm, payload, arguments.header, arguments.key_info))
        return 0
    payload = {"digest": arguments.digest_hex, "message": arguments.message}
    encoding = RAW if arguments.raw else DER
    signature, _ = client.sign(
        arguments.key_name, arguments.algorithm, encoding=encoding, timeout_ms=arguments.timeout_ms,
        class_=arguments.class_, reference=arguments.reference, on_behalf_of=arguments.on_behalf_of,
        capacity=arguments.cvr, **payload,
    )  # fmt: skip
    if arguments.verify:
        spki = next(key["spki"] for key in client.list_keys() if key["name"] == arguments.key_name)
        try:
            verify(spki, arguments.algorithm, signature, encoding=encoding, **payload)
        except InvalidSignature:
            print("the signature does not verify", file=sys.stderr)
            return 1
    print(base64.b64encode(signature).decode())
    return 0


if __name__ == "__main__":
    sys.exit(main())

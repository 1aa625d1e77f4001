"""Verifies JWS with jwcrypto: the tokens and the JWK set come as JSON on standard input."""

import base64
import json
import sys

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from jwcrypto.jwk import JWK, JWKSet
from jwcrypto.jws import JWS, InvalidJWSSignature

questions = json.load(sys.stdin)
keys = JWKSet.from_json(json.dumps(questions["jwks"]))
verified = refused = 0


def unpadded(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


for question in questions["tokens"]:
    token = JWS()
    token.deserialize(question["compact"])
    header = token.jose_header
    assert header["alg"] == question["alg"] and header["typ"] == "JWT", header
    key = keys.get_key(header["kid"])
    token.verify(key, alg=question["alg"])
    assert token.payload == base64.b64decode(question["payload"]), token.payload

    # The certificate in the header is that of the published key, and so is its thumbprint.
    der = base64.b64decode(header["x5c"][0])
    certificate = x509.load_der_x509_certificate(der)
    pem = certificate.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    assert JWK.from_pem(pem).thumbprint() == key.thumbprint()
    assert header["x5t#S256"] == unpadded(certificate.fingerprint(hashes.SHA256()))
    verified += 1

    protected, payload, signature = question["compact"].split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    claims["exp"] += 1
    changed = JWS()
    changed.deserialize(".".join([protected, unpadded(json.dumps(claims).encode()), signature]))
    try:
        changed.verify(key, alg=question["alg"])
    except InvalidJWSSignature:
        refused += 1

print(f"{verified} verified, {refused} changed ones refused")

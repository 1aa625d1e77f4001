"""Looks at what the broker published and made, as those do who get it: what is asked comes as JSON on standard input.

    {"jwks": {...}, "compact": "..."}: jwcrypto finds the key by the JWS's `kid` and verifies the JWS.
    {"encrypted": "...", "private_key": PEM, "key_descriptors": {...}}: python-xmlsec decrypts an assertion and verifies
    its signature with one of the published keys.
"""

import base64
import json
import sys

import xmlsec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from jwcrypto.jwk import JWKSet
from jwcrypto.jws import JWS
from lxml import etree

SAML = "{urn:oasis:names:tc:SAML:2.0:assertion}"
DSIG11 = "{http://www.w3.org/2009/xmldsig11#}"


def jws(question):
    token = JWS()
    token.deserialize(question["compact"])
    header = token.jose_header
    key = JWKSet.from_json(json.dumps(question["jwks"])).get_key(header["kid"])
    assert key is not None, f"{header['kid']} is not published"
    token.verify(key, alg=header["alg"])
    return header["kid"]


def public_keys(descriptors):
    """As PEM, from the ds:KeyValue of keys on P-256."""
    for described in descriptors["keys"]:
        point = etree.fromstring(described["key_descriptor"]).findtext(f".//{DSIG11}PublicKey")
        if point is not None:
            key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), base64.b64decode(point))
            info = serialization.PublicFormat.SubjectPublicKeyInfo
            yield described["key"], key.public_bytes(serialization.Encoding.PEM, info)


def encrypted(question):
    root = etree.fromstring(question["encrypted"].encode())
    wrapper = root if root.tag == SAML + "EncryptedAssertion" else root.find(SAML + "EncryptedAssertion")
    manager = xmlsec.KeysManager()
    manager.add_key(xmlsec.Key.from_memory(question["private_key"], xmlsec.constants.KeyDataFormatPem))
    data = xmlsec.tree.find_node(wrapper, "EncryptedData", xmlsec.constants.EncNs)
    xmlsec.EncryptionContext(manager).decrypt(data)
    assertion = wrapper.find(SAML + "Assertion")
    xmlsec.tree.add_ids(assertion, ["ID"])
    signature = xmlsec.tree.find_node(assertion, "Signature", xmlsec.constants.DSigNs)
    for name, pem in public_keys(question["key_descriptors"]):
        context = xmlsec.SignatureContext()
        context.key = xmlsec.Key.from_memory(pem, xmlsec.constants.KeyDataFormatPem)
        try:
            context.verify(signature)
        except xmlsec.VerificationError:
            continue
        return f"{assertion.get('ID')} by {name}"
    raise SystemExit("the signature is none of the published keys'")


question = json.load(sys.stdin)
print(jws(question) if "compact" in question else encrypted(question))

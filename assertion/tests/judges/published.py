"""Compares published keys with the keys themselves: JWK set and md:KeyDescriptors come as JSON on standard input."""

import base64
import json
import sys

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from jwcrypto.jwk import JWKSet
from lxml import etree

DER, SPKI = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
DS = "{http://www.w3.org/2000/09/xmldsig#}"

question = json.load(sys.stdin)
published = JWKSet.from_json(question["jwks"])
for asked in question["keys"]:
    spki = base64.b64decode(asked["spki"])
    key = published.get_key(asked["kid"])
    assert key is not None, asked["kid"]
    assert serialization.load_pem_public_key(key.export_to_pem()).public_bytes(DER, SPKI) == spki
    assert key.thumbprint() == asked["kid"]
    members = json.loads(key.export_public())
    assert members["use"] == "sig" and members["alg"] == asked["alg"], members
    descriptor = etree.fromstring(asked["descriptor"])
    assert descriptor.tag == "{urn:oasis:names:tc:SAML:2.0:metadata}KeyDescriptor" and descriptor.get("use") == "signing"
    certificate = descriptor.findtext(f"{DS}KeyInfo/{DS}X509Data/{DS}X509Certificate")
    assert members["x5c"] == [certificate]
    carried = x509.load_der_x509_certificate(base64.b64decode(certificate)).public_key()
    assert carried.public_bytes(DER, SPKI) == spki
print(f"{len(question['keys'])} keys agree")

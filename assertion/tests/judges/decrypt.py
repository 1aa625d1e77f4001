"""Decrypts an EncryptedAssertion in place with the xmlsec library and verifies the signature in it.

What it needs comes as JSON on standard input.
"""

import base64
import json
import sys

import xmlsec
from lxml import etree

SAML = "{urn:oasis:names:tc:SAML:2.0:assertion}"

question = json.load(sys.stdin)
root = etree.fromstring(base64.b64decode(question["encrypted"]))
wrapper = root if root.tag == SAML + "EncryptedAssertion" else root.find(SAML + "EncryptedAssertion")
data = xmlsec.tree.find_node(wrapper, "EncryptedData", xmlsec.constants.EncNs)

manager = xmlsec.KeysManager()
manager.add_key(xmlsec.Key.from_memory(question["private_key"], xmlsec.constants.KeyDataFormatPem))
xmlsec.EncryptionContext(manager).decrypt(data)
assertion = wrapper.find(SAML + "Assertion")


def verify():
    xmlsec.tree.add_ids(assertion, ["ID"])
    context = xmlsec.SignatureContext()
    context.key = xmlsec.Key.from_memory(question["certificate"], xmlsec.constants.KeyDataFormatCertPem)
    context.verify(xmlsec.tree.find_node(assertion, "Signature", xmlsec.constants.DSigNs))


verify()
value = assertion.find(f".//{SAML}AttributeValue")
value.text = value.text + "x"
try:
    verify()
except xmlsec.VerificationError:
    print("decrypted and verified; a changed one refused")

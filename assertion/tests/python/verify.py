"""Verifies signed documents with signxml: one JSON object a line on standard input, with the document and the
certificate it is signed with. Tells how many were accepted; the first that is not ends it."""

import json
import sys

from lxml import etree
from signxml import XMLVerifier

count = 0
for line in sys.stdin:
    case = json.loads(line)
    verified = XMLVerifier().verify(case["xml"].encode(), x509_cert=case["certificate"])
    signed = etree.QName(verified.signed_xml).localname
    if signed != "Assertion" or verified.signed_xml.get("ID") != case["id"]:
        sys.exit(f"what was signed is {signed} {verified.signed_xml.get('ID')}")
    count += 1
print(count)

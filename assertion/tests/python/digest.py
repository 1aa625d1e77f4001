"""Digests signed assertions as a verifier does: one JSON object a line on standard input, with the document and whether
its DigestValue is claimed to be right. What is no XML to libxml2 has no digest, so it is not right."""

import base64
import hashlib
import json
import sys

from lxml import etree

DS = "{http://www.w3.org/2000/09/xmldsig#}"
EC = "{http://www.w3.org/2001/10/xml-exc-c14n#}"
PARSER = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False)


def verifies(xml):
    try:
        root = etree.fromstring(xml.encode(), PARSER)
    except etree.XMLSyntaxError:
        return False
    signature = root.find(f".//{DS}Signature")
    reference = signature.find(f"{DS}SignedInfo/{DS}Reference")
    assertion = signature.getparent()
    if "#" + assertion.get("ID", "") != reference.get("URI"):
        return False
    prefixes = reference.find(f".//{EC}InclusiveNamespaces")
    prefixes = prefixes.get("PrefixList").split() if prefixes is not None else None
    # What follows the signature stays when it goes.
    tail, before = signature.tail or "", signature.getprevious()
    assertion.remove(signature)
    before.tail = (before.tail or "") + tail
    canonical = etree.tostring(
        assertion, method="c14n", exclusive=True, with_comments=False, inclusive_ns_prefixes=prefixes, with_tail=False
    )
    digest = base64.b64encode(hashlib.sha256(canonical).digest()).decode()
    return digest == reference.findtext(f"{DS}DigestValue")


count = 0
for line in sys.stdin:
    case = json.loads(line)
    if verifies(case["xml"]) != case["verifies"]:
        sys.exit(f"claimed to verify: {case['verifies']}; {case['changed']}\n{case['xml']}")
    count += 1
print(count)

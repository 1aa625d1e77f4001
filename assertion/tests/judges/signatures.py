"""Verifies signed documents with libxmlsec1 (python-xmlsec) and with signxml: one JSON object a line on standard input,
with the document, the certificate of the key, the ID of the assertion, and what ds:KeyInfo is to say.

Tells how many both accepted; the first that one of them does not ends it.
"""

import json
import sys

import xmlsec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from lxml import etree
from signxml import DigestAlgorithm, SignatureConfiguration, SignatureMethod, XMLVerifier

DS = "{http://www.w3.org/2000/09/xmldsig#}"


def libxmlsec(document, certificate):
    root = etree.fromstring(document)
    xmlsec.tree.add_ids(root, ["ID"])
    context = xmlsec.SignatureContext()
    context.key = xmlsec.Key.from_memory(certificate, xmlsec.constants.KeyDataFormatCertPem)
    try:
        context.verify(xmlsec.tree.find_node(root, "Signature", xmlsec.constants.DSigNs))
    except xmlsec.Error:
        return False
    return True


def shown(document):
    certificates = etree.fromstring(document).iterfind(f".//{DS}Signature/{DS}KeyInfo/{DS}X509Data/{DS}X509Certificate")
    return ["".join(certificate.text.split()) for certificate in certificates]


def der(pem):
    return "".join(pem.splitlines()[1:-1])


count = 0
for line in sys.stdin:
    case = json.loads(line)
    document, certificate = case["xml"].encode(), case["certificate"]
    only = SignatureConfiguration(
        require_x509=bool(case["shown"]),
        signature_methods=frozenset({SignatureMethod(case["method"])}),
        digest_algorithms=frozenset({DigestAlgorithm(case["digest"])}),
    )
    verified = XMLVerifier().verify(document, x509_cert=certificate, expect_config=only)
    if etree.QName(verified.signed_xml).localname != "Assertion" or verified.signed_xml.get("ID") != case["id"]:
        sys.exit(f"what was signed is {verified.signed_xml.tag} {verified.signed_xml.get('ID')}")
    if not libxmlsec(document, certificate):
        sys.exit(f"libxmlsec1 refuses {document!r}")
    if libxmlsec(document.replace(b"OIO-SAML-3.0", b"OIO-SAML-3.1"), certificate):
        sys.exit("libxmlsec1 accepts what was changed")
    if shown(document) != [der(pem) for pem in case["shown"]]:
        sys.exit(f"ds:KeyInfo shows other certificates: {document!r}")
    # Each certificate that is shown was issued by the next, the last by one that the provider has.
    chain = [x509.load_pem_x509_certificate(pem.encode()) for pem in case["shown"] + case["issuers"]]
    for issued, issuer in zip(chain, chain[1:]):
        issued.verify_directly_issued_by(issuer)
    if chain and chain[0].public_bytes(Encoding.PEM).decode().split() != certificate.split():
        sys.exit("the first certificate is not the key's")
    count += 1
print(count)

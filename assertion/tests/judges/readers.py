"""Reads assertions as service providers do, and compares with what the policy reads: one JSON object a line on standard
input, with the document and the reading. What is no assertion to a reader is not read differently by it.

Tells how many were read; the first that somebody reads differently ends it.
"""

import base64
import json
import sys
import xml.dom.minidom
from xml.etree import ElementTree

import saml2
from lxml import etree
from onelogin.saml2.response import OneLogin_Saml2_Response
from onelogin.saml2.settings import OneLogin_Saml2_Settings
from saml2 import saml, samlp

SAML = "urn:oasis:names:tc:SAML:2.0:assertion"
SAMLP = "urn:oasis:names:tc:SAML:2.0:protocol"
NS = {"saml": SAML, "samlp": SAMLP}


class Tree:
    """By namespace, the first of several: `text` says how an element's text is taken."""

    def __init__(self, root, text):
        self.root, self.text = root, text

    def all(self, path, of):
        return of.findall("/".join(f"{{{SAML}}}{step}" for step in path.split("/")))

    def assertion(self):
        return self.root if self.root.tag == f"{{{SAML}}}Assertion" else self.root.find(f"{{{SAML}}}Assertion")

    def read(self):
        assertion = self.assertion()
        name_id = self.all("Subject/NameID", assertion)[0]
        statement = self.all("AuthnStatement", assertion)[0]
        conditions = self.all("Conditions", assertion)[0]
        return {
            "id": assertion.get("ID"),
            "issue_instant": assertion.get("IssueInstant"),
            "issuer": self.text(self.all("Issuer", assertion)[0]),
            "name_id": [self.text(name_id), name_id.get("Format"), name_id.get("SPNameQualifier")],
            "confirmations": [
                [one.get("Method")] + [data.get(name) for name in ["Recipient", "NotOnOrAfter", "InResponseTo"]]
                for one in self.all("Subject/SubjectConfirmation", assertion)
                for data in self.all("SubjectConfirmationData", one)
            ],
            "conditions": [conditions.get("NotBefore"), conditions.get("NotOnOrAfter")],
            "audiences": [self.text(one) for one in self.all("Conditions/AudienceRestriction/Audience", assertion)],
            "session": [statement.get("SessionIndex"), statement.get("SessionNotOnOrAfter")],
            "class_ref": [self.text(one) for one in self.all("AuthnContext/AuthnContextClassRef", statement)],
            "attributes": [
                [one.get("Name"), one.get("FriendlyName"), [self.value(value) for value in self.all("AttributeValue", one)]]
                for one in self.all("AttributeStatement/Attribute", assertion)
            ],
        }

    def value(self, value):
        return None if any(isinstance(child.tag, str) for child in value) else self.text(value)


# What stands once in an assertion.
ONE = ["Issuer", "Subject/NameID", "Conditions", "AuthnStatement"]


class LocalNames(Tree):
    """By local names alone, in whatever namespace, and the last of several."""

    def all(self, path, of):
        found = of.xpath("/".join(f"*[local-name()='{step}']" for step in path.split("/")))
        return found[::-1] if path in ONE else found

    def assertion(self):
        return self.root.xpath("(//*[local-name()='Assertion'])[last()]")[0]


class Dom(Tree):
    """minidom: descendants of any depth by local name, an element's text that of its first child."""

    def __init__(self, document):
        self.root = xml.dom.minidom.parseString(document)

    def all(self, path, of):
        found = [of]
        for step in path.split("/"):
            found = [child for one in found for child in one.getElementsByTagNameNS("*", step)]
        return [Element(one) for one in found]

    def assertion(self):
        return Element(self.root.getElementsByTagNameNS(SAML, "Assertion")[0])

    def text(self, element):
        return element.firstChild.nodeValue if element.firstChild else ""

    def value(self, value):
        return None if value.getElementsByTagNameNS("*", "*") else self.text(value)


class Element:
    def __init__(self, element):
        self.element = element

    def get(self, name):
        return self.element.getAttribute(name) if self.element.hasAttribute(name) else None

    def __getattr__(self, name):
        return getattr(self.element, name)


def pysaml2(document):
    wrapped = b"Response" in document[:400]
    read = samlp.response_from_string(document) if wrapped else saml.assertion_from_string(document)
    if read is None:
        return None
    assertion = read.assertion[0] if wrapped else read
    value = lambda one: None if one.extension_elements else one.text or ""
    name_id, statement = assertion.subject.name_id, assertion.authn_statement[0]
    return {
        "id": assertion.id,
        "issue_instant": assertion.issue_instant,
        "issuer": assertion.issuer.text,
        "name_id": [name_id.text, name_id.format, name_id.sp_name_qualifier],
        "confirmations": [
            [one.method, data.recipient, data.not_on_or_after, data.in_response_to]
            for one in assertion.subject.subject_confirmation
            for data in [one.subject_confirmation_data]
            if data is not None
        ],
        "conditions": [assertion.conditions.not_before, assertion.conditions.not_on_or_after],
        "audiences": [
            audience.text for one in assertion.conditions.audience_restriction for audience in one.audience
        ],
        "session": [statement.session_index, statement.session_not_on_or_after],
        "class_ref": [statement.authn_context.authn_context_class_ref.text],
        "attributes": [
            [one.name, one.friendly_name, [value(text) for text in one.attribute_value]]
            for one in assertion.attribute_statement[0].attribute
        ],
    }


SETTINGS = OneLogin_Saml2_Settings(
    {
        "strict": False,
        "sp": {"entityId": "https://sp.example", "assertionConsumerService": {"url": "https://sp.example/acs"}},
        "idp": {
            "entityId": "https://saml.nemlog-in.example",
            "singleSignOnService": {"url": "https://saml.nemlog-in.example/sso"},
            "certFingerprint": "00",
        },
    }
)


def python3_saml(document, reading):
    """What it tells of a Response, held against the reading."""
    response = OneLogin_Saml2_Response(SETTINGS, base64.b64encode(document).decode())
    name_id = response.get_nameid_data()
    said = {
        # It tells the Response's own too.
        "issuer": next(iter({reading["issuer"]} & set(response.get_issuers())), None),
        "name_id": [name_id["Value"], name_id.get("Format"), name_id.get("SPNameQualifier")],
        "audiences": response.get_audiences(),
        "class_ref": response.get_authn_contexts(),
        "session": [response.get_session_index(), reading["session"][1]],
    }
    attributes = response.get_attributes()
    friendly = response.get_friendlyname_attributes()
    for name, friendly_name, values in reading["attributes"]:
        # Of values made of elements it takes the NameIDs alone; it cuts white space off, and an empty one is nothing.
        if None not in values:
            texts = [value.strip() for value in values if value.strip()]
            if attributes[name] != texts:
                return {"attribute": attributes[name]}, {"attribute": texts}
            if friendly_name is not None and friendly[friendly_name] != attributes[name]:
                return {"friendly": friendly[friendly_name]}, {"friendly": attributes[name]}
    if len(attributes) != len(reading["attributes"]):
        return {"attributes": list(attributes)}, {"attributes": [name for name, *_ in reading["attributes"]]}
    return said, {name: reading[name] for name in said}


def joined(element):
    return "".join(element.itertext())


def first(element):
    return element.text or ""


PARSER = etree.XMLParser(resolve_entities=False, no_network=True)


def readings(document, reading):
    root = etree.fromstring(document, PARSER)
    yield "lxml", Tree(root, first).read(), reading
    yield "lxml, all text", Tree(etree.fromstring(document, etree.XMLParser(remove_comments=True)), joined).read(), reading
    yield "local names", LocalNames(root, first).read(), reading
    yield "ElementTree", Tree(ElementTree.fromstring(document), first).read(), reading
    yield "minidom", Dom(document).read(), reading
    try:
        said = pysaml2(document)
    except (ValueError, saml2.SAMLError):
        said = None
    if said is not None:
        yield "pysaml2", said, reading
    if root.tag == f"{{{SAMLP}}}Response":
        yield "python3-saml", *python3_saml(document, reading)


count = 0
for line in sys.stdin:
    case = json.loads(line)
    for reader, theirs, ours in readings(case["xml"].encode(), case["reading"]):
        for name in ours:
            if theirs[name] != ours[name]:
                sys.exit(f"{reader} reads {name} as {theirs[name]!r}, not {ours[name]!r}:\n{case['xml']}")
    count += 1
print(count)

"""Service providers, by python3-saml in its strict mode and by pysaml2, which holds a Response against SAML's schema too.

One JSON object a line on standard input: a Response with a signed assertion, the issuer's certificate, and what it is to
say. Tells how many both took (pysaml2 where its xmlsec1 knows the algorithm); the first that one of them does not, or reads differently, ends it.
"""

import base64
import json
import sys
from urllib.parse import urlsplit

from onelogin.saml2.response import OneLogin_Saml2_Response
from onelogin.saml2.settings import OneLogin_Saml2_Settings
from saml2 import BINDING_HTTP_POST
from saml2.client import Saml2Client
from saml2.config import SPConfig

ISSUER = "https://saml.nemlog-in.example"


def python3_saml(case):
    certificate = "".join(case["certificate"].splitlines()[1:-1])
    settings = OneLogin_Saml2_Settings(
        {
            "strict": True,
            "sp": {"entityId": case["audience"], "assertionConsumerService": {"url": case["recipient"]}},
            "idp": {
                "entityId": ISSUER,
                "singleSignOnService": {"url": ISSUER + "/sso"},
                "x509cert": certificate,
            },
            "security": {"wantAssertionsSigned": True, "rejectDeprecatedAlgorithm": True},
        }
    )
    place = urlsplit(case["recipient"])
    # Its own address as the library sees it has no query.
    request = {"https": "on", "http_host": place.netloc, "script_name": place.path, "get_data": {}, "post_data": {}}
    taken = OneLogin_Saml2_Response(settings, base64.b64encode(case["response"].encode()).decode())
    taken.is_valid(request, request_id=case["in_response_to"], raise_exceptions=True)
    return taken.get_nameid(), taken.get_attributes()


def pysaml2(case):
    certificate = "".join(case["certificate"].splitlines()[1:-1])
    metadata = f"""<EntityDescriptor xmlns="urn:oasis:names:tc:SAML:2.0:metadata" entityID="{ISSUER}">
        <IDPSSODescriptor protocolSupportEnumeration="urn:oasis:names:tc:SAML:2.0:protocol">
        <KeyDescriptor use="signing"><KeyInfo xmlns="http://www.w3.org/2000/09/xmldsig#"><X509Data><X509Certificate>
        {certificate}</X509Certificate></X509Data></KeyInfo></KeyDescriptor>
        <SingleSignOnService Binding="urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect" Location="{ISSUER}/sso"/>
        </IDPSSODescriptor></EntityDescriptor>"""
    provider = {
        "endpoints": {"assertion_consumer_service": [(case["recipient"], BINDING_HTTP_POST)]},
        "want_assertions_signed": True,
        "want_response_signed": False,
    }
    config = SPConfig().load(
        {
            "entityid": case["audience"],
            "service": {"sp": provider},
            "metadata": {"inline": [metadata]},
            "allow_unknown_attributes": True,
        }
    )
    response = base64.b64encode(case["response"].encode()).decode()
    asked = {case["in_response_to"]: "/"}
    taken = Saml2Client(config=config).parse_authn_request_response(response, BINDING_HTTP_POST, outstanding=asked)
    return taken.get_subject().text, taken.get_identity()


count = 0
for line in sys.stdin:
    case = json.loads(line)
    wanted = case["name_id"], case["attributes"]
    for taken in [python3_saml, pysaml2][: 1 + case["pysaml2"]]:
        try:
            said = taken(case)
        except Exception as error:
            sys.exit(f"{taken.__name__} refuses: {error!r}\n{case['response']}")
        if said != wanted:
            sys.exit(f"{taken.__name__} reads {said}, not {wanted}")
    count += 1
print(count)

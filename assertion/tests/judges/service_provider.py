"""A service provider, by python3-saml in its strict mode: takes a Response with an EncryptedAssertion, or says why not.

What it needs to know comes as JSON on standard input.
"""

import base64
import json
import sys
from urllib.parse import urlsplit

from onelogin.saml2.response import OneLogin_Saml2_Response
from onelogin.saml2.settings import OneLogin_Saml2_Settings

question = json.load(sys.stdin)
audience = question["audience"]
acs = audience + "/saml/acs"
response = base64.b64decode(question["response"])
settings = OneLogin_Saml2_Settings(
    {
        "strict": True,
        "sp": {
            "entityId": audience,
            "assertionConsumerService": {"url": acs},
            "x509cert": question["sp_certificate"],
            "privateKey": question["sp_key"],
        },
        "idp": {
            "entityId": "https://saml.nemlog-in.example",
            "singleSignOnService": {"url": "https://saml.nemlog-in.example/sso"},
            "x509cert": question["idp_certificate"],
        },
        "security": {
            "wantAssertionsSigned": True,
            "wantAssertionsEncrypted": True,
            "wantNameId": True,
            "rejectDeprecatedAlgorithm": True,
        },
    }
)
place = urlsplit(acs)
request = {"https": "on", "http_host": place.netloc, "script_name": place.path, "get_data": {}, "post_data": {}}
taken = OneLogin_Saml2_Response(settings, base64.b64encode(response).decode())
taken.is_valid(request, request_id="_q71b22f3c9d0d4f6fb8e5c1f0a2b3c4d5", raise_exceptions=True)
attributes = taken.get_attributes()
name = attributes["https://data.gov.dk/model/core/eid/fullName"][0]
level = attributes["https://data.gov.dk/concept/core/nsis/loa"][0]
sys.stdout.buffer.write(f"taken: {name}, {level}\n".encode())

"""Compares canonical forms with libxml2's: one JSON object a line on standard input, with the document, the number of
the element, the PrefixList and the form that is claimed."""

import json
import sys

from lxml import etree

PARSER = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, strip_cdata=False)

count = 0
for line in sys.stdin:
    case = json.loads(line)
    root = etree.fromstring(case["xml"].encode(), PARSER)
    element = list(root.iter(etree.Element))[case["element"]]
    theirs = etree.tostring(
        element if case["element"] else root.getroottree(),
        method="c14n",
        exclusive=True,
        with_comments=False,
        inclusive_ns_prefixes=case["inclusive"] or None,
    ).decode()
    if theirs != case["canonical"]:
        sys.exit(f"element {case['element']} of {case['xml']!r} with {case['inclusive']}:\nlibxml2: {theirs!r}\n   ours: {case['canonical']!r}")
    count += 1
print(count)

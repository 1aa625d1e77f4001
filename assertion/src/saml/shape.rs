//! That a tree is one assertion to be signed, of a shape that all readers understand alike.
//!
//! Of SAML 2.0's schema (saml-core-2.0-os) this takes what a login needs. Left out, and refused: Advice, statements of
//! authorisation decisions, extension points whose meaning no policy can know, and everything encrypted. In the
//! assertion text and elements never mix, so what the policy reads as a value is what every service provider reads.
//! Attributes of other namespaces are refused, since readers that look at local names take them for the schema's, and so
//! is more of anything than assertions in use have, so that what follows costs little.
//!
//! Namespaces: a prefix that everybody knows means what everybody thinks, and no prefix changes its meaning inside its
//! scope, since readers that look at prefixes (and people, who all do) would read another document. The default
//! namespace may change: real assertions hold a KeyInfo with a default namespace of its own.

mod foreign;

use super::{
    Limits, Malformed, Rule,
    characters::{is_ncname, is_space},
    instant::unix_ms,
    tree::{Kind, Namespace, Node, NodeId, Spelling, Tree},
};

type Result<T> = std::result::Result<T, Malformed>;

/// What was found on the way.
pub(super) struct Found<'a> {
    pub(super) assertion: NodeId,
    /// The assertion's ID, as a range of the source: an NCName is spelt without references
    pub(super) id: &'a str,
    /// Byte in the source right after the assertion's Issuer
    pub(super) signature_at: usize,
    /// Prefixes used in values of `xsi:type`, sorted
    pub(super) content_prefixes: Vec<&'a str>,
}

/// Prefixes that mean one thing to everybody.
const CONVENTIONS: &[(&str, &str)] = &[
    ("saml", "urn:oasis:names:tc:SAML:2.0:assertion"),
    ("saml2", "urn:oasis:names:tc:SAML:2.0:assertion"),
    ("samlp", "urn:oasis:names:tc:SAML:2.0:protocol"),
    ("saml2p", "urn:oasis:names:tc:SAML:2.0:protocol"),
    ("ds", "http://www.w3.org/2000/09/xmldsig#"),
    ("dsig", "http://www.w3.org/2000/09/xmldsig#"),
    ("ec", "http://www.w3.org/2001/10/xml-exc-c14n#"),
    ("xenc", "http://www.w3.org/2001/04/xmlenc#"),
    ("xs", "http://www.w3.org/2001/XMLSchema"),
    ("xsd", "http://www.w3.org/2001/XMLSchema"),
    ("xsi", "http://www.w3.org/2001/XMLSchema-instance"),
];

/// Nodes right inside one element of the assertion, comments and white space among them.
const CHILDREN_MAX: usize = 512;

/// Nodes of a Response outside its Assertion.
const OUTSIDE_MAX: usize = 256;

const XML_SCHEMA: &str = "http://www.w3.org/2001/XMLSchema";

/// Types of XML Schema that values may have, and whether a value is written as every reader reads it: some read numbers
/// as numbers, and tell others without the zeros before them. QName and NOTATION are left out for good: their values are
/// names with prefixes.
const TYPES: [(&str, Fits); 9] = [
    ("string", |_| true),
    ("anyType", |_| true),
    ("anyURI", |_| true),
    ("boolean", |text| matches!(text, "true" | "false")),
    ("integer", is_canonical_integer),
    ("int", is_canonical_integer),
    ("date", |text| unix_ms(&format!("{text}T00:00:00Z")).is_some()),
    ("dateTime", |text| unix_ms(text).is_some()),
    ("base64Binary", |_| true),
];

/// Whether a text is written so.
type Fits = fn(&str) -> bool;

fn is_canonical_integer(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    text == "0" || digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0') && !digits.is_empty()
}

/// What an element of the assertion's namespace may hold.
struct Shape {
    attributes: &'static [&'static str],
    required: &'static [&'static str],
    content: Content,
}

enum Content {
    /// Characters in one piece
    Text,
    /// Elements of the same namespace: name, rank in their order, how many there may be
    Elements(&'static [(&'static str, u8, u16)]),
    /// One `ds:KeyInfo`, or nothing
    Key,
    /// Characters in one piece, or one NameID, or elements of other namespaces
    Value,
}

const NOTHING: Content = Content::Elements(&[]);

/// The shape of an element, by its local name; the name of its parent decides whether it may be there at all.
fn shape(local: &str) -> Option<&'static Shape> {
    macro_rules! shape {
        ($attributes:expr, $required:expr, $content:expr) => {{
            static SHAPE: Shape = Shape { attributes: &$attributes, required: &$required, content: $content };
            &SHAPE
        }};
    }
    Some(match local {
        "Assertion" => shape!(
            ["ID", "IssueInstant", "Version"],
            ["ID", "IssueInstant", "Version"],
            Content::Elements(&[
                ("Issuer", 0, 1),
                ("Subject", 1, 1),
                ("Conditions", 2, 1),
                ("AuthnStatement", 3, 1),
                ("AttributeStatement", 3, 1),
            ])
        ),
        "Issuer" => shape!(["Format"], [], Content::Text),
        "NameID" => shape!(["Format", "NameQualifier", "SPNameQualifier"], [], Content::Text),
        "Subject" => shape!([], [], Content::Elements(&[("NameID", 0, 1), ("SubjectConfirmation", 1, 4)])),
        "SubjectConfirmation" => {
            shape!(["Method"], ["Method"], Content::Elements(&[("NameID", 0, 1), ("SubjectConfirmationData", 1, 1)]))
        }
        "SubjectConfirmationData" => {
            shape!(["NotBefore", "NotOnOrAfter", "Recipient", "InResponseTo", "Address"], [], Content::Key)
        }
        "Conditions" => shape!(
            ["NotBefore", "NotOnOrAfter"],
            [],
            Content::Elements(&[("AudienceRestriction", 0, 4), ("OneTimeUse", 0, 1)])
        ),
        "AudienceRestriction" => shape!([], [], Content::Elements(&[("Audience", 0, 16)])),
        "OneTimeUse" => shape!([], [], NOTHING),
        "AuthnStatement" => shape!(
            ["AuthnInstant", "SessionIndex", "SessionNotOnOrAfter"],
            ["AuthnInstant"],
            Content::Elements(&[("SubjectLocality", 0, 1), ("AuthnContext", 1, 1)])
        ),
        "SubjectLocality" => shape!(["Address", "DNSName"], [], NOTHING),
        "AuthnContext" => shape!(
            [],
            [],
            Content::Elements(&[
                ("AuthnContextClassRef", 0, 1),
                ("AuthnContextDeclRef", 1, 1),
                ("AuthenticatingAuthority", 2, 4),
            ])
        ),
        "Audience" | "AuthnContextClassRef" | "AuthnContextDeclRef" | "AuthenticatingAuthority" => {
            shape!([], [], Content::Text)
        }
        "AttributeStatement" => shape!([], [], Content::Elements(&[("Attribute", 0, 128)])),
        "Attribute" => {
            shape!(["Name", "NameFormat", "FriendlyName"], ["Name"], Content::Elements(&[("AttributeValue", 0, 64)]))
        }
        "AttributeValue" => shape!([], [], Content::Value),
        _ => return None,
    })
}

/// Checks a whole document.
///
/// # Errors
/// The first thing found that the module's description does not allow.
pub(super) fn check<'a>(tree: &Tree<'a>, limits: &Limits) -> Result<Found<'a>> {
    let mut checker = Checker { tree, limits, ids: Vec::with_capacity(4), content_prefixes: Vec::new() };
    checker.everywhere()?;
    let assertion = checker.find()?;
    checker.element(assertion)?;
    checker.types(assertion)?;
    let node = tree.node(assertion);
    let first = tree.children(assertion).find(|child| tree.node(*child).kind == Kind::Element);
    let issuer = first.map(|first| tree.node(first)).filter(|first| first.name.local() == "Issuer");
    let Some(issuer) = issuer else {
        return checker.fail(Rule::Missing, assertion, "an Assertion begins with its Issuer");
    };
    for attribute in tree.attributes(node) {
        if attribute.name.qualified == "Version" && tree.text(attribute.value) != "2.0" {
            return checker.fail(Rule::Version, assertion, "the Version of an Assertion is 2.0");
        }
    }
    let id = tree.attributes(node).iter().find(|attribute| attribute.name.qualified == "ID");
    let id = id.map(|id| id.value).expect("an Assertion was found to have an ID");
    if id.spelling == Spelling::Decoded {
        return checker.fail(Rule::Id, assertion, "an ID is spelt without references");
    }
    checker.content_prefixes.sort_unstable();
    Ok(Found {
        assertion,
        id: &tree.source[id.start as usize..id.end as usize],
        signature_at: issuer.end as usize,
        content_prefixes: checker.content_prefixes,
    })
}

struct Checker<'t, 'a> {
    tree: &'t Tree<'a>,
    limits: &'t Limits,
    ids: Vec<&'t str>,
    content_prefixes: Vec<&'a str>,
}

impl<'t, 'a> Checker<'t, 'a> {
    /// What holds for every element, inside the assertion and out.
    fn everywhere(&mut self) -> Result<()> {
        let tree = self.tree;
        if let Some(node) = tree.rebound {
            return self.fail(Rule::NamespaceRebound, node, "a prefix is bound to another namespace inside its scope");
        }
        for (id, node) in tree.nodes.iter().enumerate() {
            if node.kind != Kind::Element {
                continue;
            }
            let id = id as NodeId;
            for declaration in tree.declarations(node) {
                let meant = CONVENTIONS.iter().find(|(prefix, _)| *prefix == declaration.prefix);
                if meant.is_some_and(|(_, namespace)| *namespace != tree.namespace(declaration.namespace)) {
                    return self.fail(Rule::NamespaceMisused, id, "a well-known prefix is bound to something else");
                }
            }
            // By local name, as readers with `local-name()` in their XPath look.
            match node.name.local() {
                "Signature" => {
                    return self.fail(Rule::AlreadySigned, id, "there is a Signature in the document already");
                }
                "EncryptedAssertion" | "EncryptedID" | "NewEncryptedID" | "EncryptedAttribute" | "EncryptedData" => {
                    return self.fail(Rule::Encrypted, id, "what is encrypted cannot be checked");
                }
                _ => {}
            }
            self.ids_of(id, node)?;
        }
        Ok(())
    }

    /// IDs are one namespace, however an element calls the attribute: `ID`, `Id`, `wsu:Id`, `AssertionID`...
    fn ids_of(&mut self, id: NodeId, node: &Node<'a>) -> Result<()> {
        let mut own = false;
        for attribute in self.tree.attributes(node) {
            let local = attribute.name.local();
            let ending = local.len().checked_sub(2).and_then(|at| local.get(at..));
            if !ending.is_some_and(|ending| ending.eq_ignore_ascii_case("id")) {
                continue;
            }
            let names = ["id", "assertionid", "responseid", "requestid"];
            if !names.iter().any(|name| local.eq_ignore_ascii_case(name)) {
                continue;
            }
            let value = self.tree.text(attribute.value);
            if std::mem::replace(&mut own, true) {
                return self.fail(Rule::Id, id, "an element has one ID at most");
            }
            if !is_ncname(value) || value.len() > self.limits.name_max {
                return self.fail(Rule::Id, id, "an ID is an NCName of bounded length");
            }
            if self.ids.contains(&value) {
                return self.fail(Rule::DuplicateId, id, "this ID is that of another element too");
            }
            if self.ids.len() >= self.limits.scope_max {
                return self.fail(Rule::Id, id, "there are too many IDs");
            }
            self.ids.push(value);
        }
        Ok(())
    }

    /// The one assertion: the root, or a child of a Response that is the root.
    fn find(&self) -> Result<NodeId> {
        let tree = self.tree;
        let is = |id: NodeId, namespace, local| {
            let node = tree.node(id);
            node.kind == Kind::Element && node.namespace == namespace && node.name.local() == local
        };
        let assertion = if is(0, Namespace::SAML, "Assertion") {
            0
        } else if is(0, Namespace::SAMLP, "Response") {
            let mut issuers = tree.children(0).filter(|child| is(*child, Namespace::SAML, "Issuer"));
            if let Some(issuer) = issuers.next() {
                self.element(issuer)?;
            }
            if let Some(second) = issuers.next() {
                return self.fail(Rule::UnexpectedElement, second, "a Response has one Issuer at most");
            }
            match tree.children(0).find(|child| is(*child, Namespace::SAML, "Assertion")) {
                Some(assertion) => assertion,
                None => return self.fail(Rule::NoAssertion, 0, "the Response has no Assertion as its child"),
            }
        } else {
            return self.fail(Rule::NoAssertion, 0, "the root is neither a SAML 2.0 Assertion nor a Response");
        };
        for (id, node) in tree.nodes.iter().enumerate() {
            if node.kind == Kind::Element && node.name.local() == "Assertion" && id as NodeId != assertion {
                return self.fail(Rule::SeveralAssertions, id as NodeId, "there is another Assertion in the document");
            }
        }
        if tree.nodes.len() - (tree.node(assertion).after - assertion) as usize > OUTSIDE_MAX {
            return self.fail(Rule::TooManyNodes, 0, "there are too many nodes outside the Assertion");
        }
        Ok(assertion)
    }

    /// An element of the assertion's namespace, and all that is in it.
    fn element(&self, id: NodeId) -> Result<()> {
        let tree = self.tree;
        let node = tree.node(id);
        let Some(shape) = shape(node.name.local()) else {
            return self.fail(Rule::UnexpectedElement, id, "SAML 2.0 has no such element, or none that is supported");
        };
        let typed = matches!(shape.content, Content::Key | Content::Value);
        for attribute in tree.attributes(node) {
            let fits = match attribute.namespace {
                Namespace::NONE => shape.attributes.contains(&attribute.name.qualified),
                Namespace::XML => true,
                Namespace::XSI => typed && attribute.name.local() == "type",
                _ => false,
            };
            if !fits {
                return self.fail(Rule::UnexpectedAttribute, id, "this element has an attribute that it cannot have");
            }
        }
        for required in shape.required {
            if !tree.attributes(node).iter().any(|attribute| attribute.name.qualified == *required) {
                let text = format!("this element lacks its attribute {required}");
                return self.fail(Rule::Missing, id, text);
            }
        }
        match &shape.content {
            Content::Text => self.one_name(id),
            Content::Elements(children) => self.elements(id, children),
            Content::Key => self.key(id),
            Content::Value => match self.first_element(id) {
                None => self.one_text(id),
                Some(child) if self.is_saml(child) => {
                    if self.tree.children(id).any(|child| self.tree.node(child).kind == Kind::Comment) {
                        return self.fail(Rule::BrokenText, id, "a comment stands where readers expect a value");
                    }
                    self.elements(id, &[("NameID", 0, 1)])
                }
                Some(_) => self.foreign(id),
            },
        }
    }

    /// Collects the prefixes that canonicalisation cannot see: those in values of `xsi:type`. The Assertion itself
    /// declares them: in the PrefixList they are part of the digest as they are in scope there, so one declared further
    /// in would change the digest of an assertion that is put into a Response with such a declaration, and one declared
    /// further out that of an assertion taken out.
    fn types(&mut self, assertion: NodeId) -> Result<()> {
        let tree = self.tree;
        let declared = tree.declarations(tree.node(assertion));
        for id in assertion..tree.node(assertion).after {
            for attribute in tree.attributes(tree.node(id)) {
                if attribute.namespace != Namespace::XSI {
                    continue;
                }
                if attribute.name.local() != "type" {
                    return self.fail(Rule::UnexpectedAttribute, id, "of xsi: no attribute is taken but xsi:type");
                }
                let source = attribute.value.spelling != Spelling::Decoded;
                let spelt = &tree.source[attribute.value.start as usize..attribute.value.end as usize];
                let Some((prefix, local)) = spelt.split_once(':').filter(|_| source) else {
                    return self.fail(Rule::Type, id, "an xsi:type is a QName with a prefix");
                };
                let Some(declaration) = declared.iter().find(|declaration| declaration.prefix == prefix) else {
                    let text = "the prefix of an xsi:type is not declared on the Assertion: declare it there";
                    return self.fail(Rule::Type, id, text);
                };
                let fits = match tree.node(id).name.local() {
                    "SubjectConfirmationData" => {
                        let known = declaration.namespace == Namespace::SAML && local == "KeyInfoConfirmationDataType";
                        known.then_some(true)
                    }
                    _ if tree.namespace(declaration.namespace) != XML_SCHEMA => None,
                    _ => TYPES.iter().find(|(name, _)| *name == local).map(|(_, fits)| self.has_text(id, *fits)),
                };
                match fits {
                    Some(true) => {}
                    Some(false) => {
                        return self.fail(
                            Rule::Type,
                            id,
                            "the value is not written as every reader of its type reads it",
                        );
                    }
                    None => return self.fail(Rule::Type, id, "this xsi:type is none that is taken here"),
                }
                if !self.content_prefixes.contains(&prefix) {
                    self.content_prefixes.push(prefix);
                }
            }
        }
        Ok(())
    }

    fn is_saml(&self, id: NodeId) -> bool {
        matches!(self.tree.node(id).namespace, Namespace::SAML | Namespace::SAMLP)
    }

    fn first_element(&self, id: NodeId) -> Option<NodeId> {
        self.tree.children(id).find(|child| self.tree.node(*child).kind == Kind::Element)
    }

    /// Whether it is made of elements, or its one run of characters fits.
    fn has_text(&self, id: NodeId, fits: impl Fn(&str) -> bool) -> bool {
        let text = self.tree.children(id).next().map_or("", |child| self.tree.text(self.tree.node(child).text));
        self.first_element(id).is_some() || fits(text)
    }

    /// At most one run of characters, and nothing else.
    fn one_text(&self, id: NodeId) -> Result<()> {
        for child in self.tree.children(id) {
            if self.tree.node(child).kind != Kind::Text {
                return self.fail(Rule::BrokenText, id, "this text is interrupted by a comment, CDATA or an element");
            }
        }
        Ok(())
    }

    /// A text that is compared: a name, an address. Some readers cut white space off its ends, others do not.
    fn one_name(&self, id: NodeId) -> Result<()> {
        self.one_text(id)?;
        let text = self.tree.children(id).next().map_or("", |child| self.tree.text(self.tree.node(child).text));
        if text.trim() != text {
            return self.fail(Rule::BrokenText, id, "this text begins or ends with white space");
        }
        Ok(())
    }

    fn elements(&self, id: NodeId, known: &[(&str, u8, u16)]) -> Result<()> {
        let mut last = 0;
        let mut counts = [0_u16; 8];
        for (index, child) in self.tree.children(id).enumerate() {
            if index >= CHILDREN_MAX {
                return self.fail(Rule::TooManyNodes, id, "there are too many nodes in this element");
            }
            let node = self.tree.node(child);
            match node.kind {
                Kind::Comment => continue,
                Kind::Text | Kind::CData => {
                    self.only_space(id, node)?;
                    continue;
                }
                Kind::Element => {}
            }
            let local = node.name.local();
            let found = known.iter().position(|(name, ..)| *name == local && node.namespace == Namespace::SAML);
            let Some(found) = found else {
                return self.fail(Rule::UnexpectedElement, child, "this element has no place here");
            };
            let (_, rank, most) = known[found];
            counts[found] += 1;
            if rank < last || most == 1 && counts[found] > 1 {
                return self.fail(Rule::UnexpectedElement, child, "this element is one too many, or out of its order");
            }
            if counts[found] > most {
                let text = format!("at most {most} elements of this name are taken here");
                return self.fail(Rule::TooManyElements, child, text);
            }
            last = rank;
            self.element(child)?;
        }
        Ok(())
    }

    fn is_space(&self, node: &Node<'a>) -> bool {
        self.tree.text(node.text).bytes().all(is_space)
    }

    fn only_space(&self, parent: NodeId, node: &Node<'a>) -> Result<()> {
        if node.kind == Kind::Text && self.is_space(node) {
            return Ok(());
        }
        self.fail(Rule::UnexpectedText, parent, "there is text between the elements")
    }

    #[cold]
    fn fail<T>(&self, rule: Rule, id: NodeId, text: impl Into<std::borrow::Cow<'static, str>>) -> Result<T> {
        let offset = self.tree.node(id).start as usize;
        Err(Malformed::new(self.tree.source.as_bytes(), rule, offset, self.tree.xpath(id), text))
    }
}

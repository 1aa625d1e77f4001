//! A parsed document: all nodes in document order in one list, so that a subtree is a range and both the checks and the
//! canonical form read the same thing.

use std::{cmp::Ordering, ops::Range};

/// Index of a namespace in [`Tree::namespaces`]. The first ones are known beforehand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Namespace(pub(crate) u16);

impl Namespace {
    pub(crate) const NONE: Namespace = Namespace(0);
    pub(crate) const XML: Namespace = Namespace(1);
    pub(crate) const SAML: Namespace = Namespace(2);
    pub(crate) const SAMLP: Namespace = Namespace(3);
    pub(crate) const XSI: Namespace = Namespace(4);

    /// The names of the constants above, at their indices.
    pub(crate) const KNOWN: [&str; 5] = [
        "",
        "http://www.w3.org/XML/1998/namespace",
        "urn:oasis:names:tc:SAML:2.0:assertion",
        "urn:oasis:names:tc:SAML:2.0:protocol",
        "http://www.w3.org/2001/XMLSchema-instance",
    ];
}

/// Index of a node in [`Tree::nodes`].
pub(crate) type NodeId = u32;

/// The root's parent.
pub(crate) const NOBODY: NodeId = NodeId::MAX;

/// A document. No node stands for the document itself: comments outside the root are checked and forgotten.
#[derive(Clone, Debug)]
pub(crate) struct Tree<'a> {
    pub(crate) source: &'a str,
    /// Texts and values that differ from their spelling in the source, one after the other.
    pub(crate) decoded: String,
    /// The root first.
    pub(crate) nodes: Vec<Node<'a>>,
    pub(crate) attributes: Vec<Attribute<'a>>,
    pub(crate) declarations: Vec<Declaration<'a>>,
    pub(crate) namespaces: Vec<&'a str>,
    /// The first element that binds a prefix to another namespace than an ancestor has bound it to.
    pub(crate) rebound: Option<NodeId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Element,
    /// A run of characters and references between two pieces of markup
    Text,
    CData,
    Comment,
}

#[derive(Clone, Debug)]
pub(crate) struct Node<'a> {
    pub(crate) kind: Kind,
    /// Of an element
    pub(crate) namespace: Namespace,
    /// Of an element, with its prefix
    pub(crate) name: Name<'a>,
    /// Of a text or CDATA section: its characters
    pub(crate) text: Text,
    pub(crate) parent: NodeId,
    /// The first node after the subtree; [`NOBODY`] while it is open
    pub(crate) after: NodeId,
    /// First byte in the source, the `<` of an element
    pub(crate) start: u32,
    /// First byte after it, after the end tag of an element
    pub(crate) end: u32,
    /// First byte after an element's start tag, when the tag is spelt as the canonical form spells it but for what
    /// namespaces it declares; 0 otherwise
    pub(crate) canonical_tag_end: u32,
    /// Whether the end tag is spelt as the canonical form spells it
    pub(crate) canonical_end_tag: bool,
    /// Range in [`Tree::attributes`]
    pub(crate) attributes: (u32, u32),
    /// Range in [`Tree::declarations`]
    pub(crate) declarations: (u32, u32),
}

/// A qualified name as spelt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Name<'a> {
    pub(crate) qualified: &'a str,
    /// Bytes before the local name: the prefix and its colon, or none
    local_at: u32,
}

#[derive(Clone, Debug)]
pub(crate) struct Attribute<'a> {
    pub(crate) name: Name<'a>,
    pub(crate) namespace: Namespace,
    pub(crate) value: Text,
    /// First byte of the name in the source
    pub(crate) start: u32,
}

/// `xmlns="..."` (an empty prefix) or `xmlns:prefix="..."`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Declaration<'a> {
    pub(crate) prefix: &'a str,
    pub(crate) namespace: Namespace,
}

/// Characters after line ends, references and (in attributes) white space were made what XML 1.0 says they mean.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Text {
    pub(crate) start: u32,
    pub(crate) end: u32,
    pub(crate) spelling: Spelling,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spelling {
    /// A range of the source, which is also the canonical spelling
    Canonical,
    /// A range of the source, with characters that the canonical form escapes
    Plain,
    /// A range of [`Tree::decoded`]
    Decoded,
}

impl<'a> Name<'a> {
    pub(crate) const NONE: Name<'static> = Name { qualified: "", local_at: 0 };

    /// `colon` is the colon's place in the name.
    pub(crate) fn new(qualified: &'a str, colon: Option<usize>) -> Name<'a> {
        Name { qualified, local_at: colon.map_or(0, |at| at as u32 + 1) }
    }

    pub(crate) fn prefix(self) -> &'a str {
        &self.qualified[..(self.local_at as usize).saturating_sub(1)]
    }

    pub(crate) fn local(self) -> &'a str {
        &self.qualified[self.local_at as usize..]
    }
}

impl Text {
    pub(crate) const NONE: Text = Text { start: 0, end: 0, spelling: Spelling::Canonical };
}

impl<'a> Tree<'a> {
    pub(crate) fn node(&self, id: NodeId) -> &Node<'a> {
        &self.nodes[id as usize]
    }

    pub(crate) fn text(&self, text: Text) -> &str {
        let home = if text.spelling == Spelling::Decoded { self.decoded.as_str() } else { self.source };
        &home[text.start as usize..text.end as usize]
    }

    pub(crate) fn attributes(&self, node: &Node<'a>) -> &[Attribute<'a>] {
        &self.attributes[range(node.attributes)]
    }

    /// The order of two attributes of one element (Canonical XML 1.0 §2.2): by the namespace's name, then by the local
    /// one.
    pub(crate) fn canonical_order(&self, one: u32, other: u32) -> Ordering {
        let (one, other) = (&self.attributes[one as usize], &self.attributes[other as usize]);
        // Nearly all are in no namespace, or in the same.
        let namespaces = match one.namespace == other.namespace {
            true => Ordering::Equal,
            false => self.namespace(one.namespace).cmp(self.namespace(other.namespace)),
        };
        namespaces.then_with(|| one.name.local().cmp(other.name.local()))
    }

    pub(crate) fn declarations(&self, node: &Node<'a>) -> &[Declaration<'a>] {
        &self.declarations[range(node.declarations)]
    }

    pub(crate) fn namespace(&self, namespace: Namespace) -> &'a str {
        self.namespaces[namespace.0 as usize]
    }

    pub(crate) fn children(&self, parent: NodeId) -> Children<'_, 'a> {
        Children { tree: self, next: parent + 1, after: self.node(parent).after }
    }

    /// The path of an element; a position only where an element has siblings of its name. It ends in logs, so it is
    /// made of names that everybody knows, and `*` stands for one that the document alone has.
    pub(crate) fn xpath(&self, id: NodeId) -> String {
        let mut steps = Vec::new();
        let mut at = id;
        while at != NOBODY {
            steps.push(at);
            at = self.node(at).parent;
        }
        let mut path = String::new();
        for step in steps.into_iter().rev() {
            let node = self.node(step);
            let name = step_name(node);
            path.push('/');
            match name {
                Some(("", local)) => path.push_str(local),
                Some((prefix, local)) => path.extend([prefix, ":", local]),
                None => path.push('*'),
            }
            if node.parent == NOBODY {
                continue;
            }
            let same = |sibling: NodeId| {
                let sibling = self.node(sibling);
                let known = |(_, local)| sibling.name.local() == local && step_name(sibling) == name;
                sibling.kind == Kind::Element && name.is_none_or(known)
            };
            let (mut before, mut after) = (0_usize, false);
            for sibling in self.children(node.parent).filter(|sibling| *sibling != step && same(*sibling)) {
                after = sibling > step;
                if after {
                    break;
                }
                before += 1;
            }
            if before > 0 || after {
                path.push_str(&format!("[{}]", before + 1));
            }
        }
        path
    }
}

/// Prefixes and local names that are told in paths.
const PREFIXES: [&str; 7] = ["", "saml", "saml2", "samlp", "saml2p", "ds", "md"];
const LOCALS: [&str; 52] = [
    "Advice",
    "Assertion",
    "Attribute",
    "AttributeStatement",
    "AttributeValue",
    "Audience",
    "AudienceRestriction",
    "AuthenticatingAuthority",
    "AuthnContext",
    "AuthnContextClassRef",
    "AuthnContextDecl",
    "AuthnContextDeclRef",
    "AuthnStatement",
    "AuthzDecisionStatement",
    "BaseID",
    "Conditions",
    "EncryptedAssertion",
    "EncryptedAttribute",
    "EncryptedID",
    "EncryptionMethod",
    "EntitiesDescriptor",
    "EntityDescriptor",
    "Extensions",
    "Issuer",
    "KeyDescriptor",
    "KeyInfo",
    "KeyName",
    "KeyValue",
    "NameID",
    "OneTimeUse",
    "ProxyRestriction",
    "Response",
    "RetrievalMethod",
    "RSAKeyValue",
    "ECKeyValue",
    "Signature",
    "SPSSODescriptor",
    "Status",
    "StatusCode",
    "StatusDetail",
    "StatusMessage",
    "Subject",
    "SubjectConfirmation",
    "SubjectConfirmationData",
    "SubjectLocality",
    "X509Certificate",
    "X509Data",
    "X509IssuerSerial",
    "PrivilegeList",
    "PrivilegeGroup",
    "Privilege",
    "Constraint",
];

/// An element's name in a path: its prefix, which of SAML's own elements is never another than a known one, and its
/// local name. `None` when it is the document's own.
fn step_name<'a>(node: &Node<'a>) -> Option<(&'a str, &'a str)> {
    let (prefix, local) = (node.name.prefix(), node.name.local());
    let prefix = match node.namespace {
        _ if PREFIXES.contains(&prefix) => prefix,
        Namespace::SAML => "saml",
        Namespace::SAMLP => "samlp",
        _ => return None,
    };
    LOCALS.contains(&local).then_some((prefix, local))
}

/// The children of a node, of an open one those that were read so far.
#[derive(Clone, Debug)]
pub(crate) struct Children<'t, 'a> {
    tree: &'t Tree<'a>,
    next: NodeId,
    after: NodeId,
}

impl Iterator for Children<'_, '_> {
    type Item = NodeId;

    fn next(&mut self) -> Option<NodeId> {
        let this = self.next;
        if this >= self.after || this as usize >= self.tree.nodes.len() {
            return None;
        }
        #[cfg(test)]
        STEPS.set(STEPS.get() + 1);
        self.next = self.tree.node(this).after;
        Some(this)
    }
}

#[cfg(test)]
thread_local! {
    /// Steps from one child to the next, by all of this thread: what looking at a document costs.
    pub(crate) static STEPS: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

fn range((start, end): (u32, u32)) -> Range<usize> {
    start as usize..end as usize
}

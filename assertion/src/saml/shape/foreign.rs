//! Elements of other namespaces than SAML's: the key of who confirms, and values made of elements.
//!
//! No policy knows what they mean, so all that is demanded is that readers agree on them: no element that somebody
//! could take for one of SAML's, and no prefix in content, since exclusive canonical XML leaves out its declaration and
//! whoever passes the signed assertion on could give it another meaning.

use super::{Checker, Result, is_ncname};
use crate::saml::{
    Rule,
    tree::{Kind, Namespace, NodeId},
};

const DSIG: &str = "http://www.w3.org/2000/09/xmldsig#";
const DSIG11: &str = "http://www.w3.org/2009/xmldsig11#";

/// Nodes of one value, or of one KeyInfo.
const NODES_MAX: u32 = 256;

/// What a KeyInfo may hold (XML Signature 1.1 §4.5): element, its namespace, what is in it. Nothing that sends a reader
/// elsewhere, such as RetrievalMethod.
const KEY_INFO: [(&str, &str, &[&str]); 15] = [
    ("KeyInfo", DSIG, &["X509Data", "KeyValue"]),
    ("X509Data", DSIG, &["X509Certificate", "X509SKI", "X509SubjectName", "X509IssuerSerial"]),
    ("X509Certificate", DSIG, &[]),
    ("X509SKI", DSIG, &[]),
    ("X509SubjectName", DSIG, &[]),
    ("X509IssuerSerial", DSIG, &["X509IssuerName", "X509SerialNumber"]),
    ("X509IssuerName", DSIG, &[]),
    ("X509SerialNumber", DSIG, &[]),
    ("KeyValue", DSIG, &["RSAKeyValue", "ECKeyValue"]),
    ("RSAKeyValue", DSIG, &["Modulus", "Exponent"]),
    ("Modulus", DSIG, &[]),
    ("Exponent", DSIG, &[]),
    ("ECKeyValue", DSIG11, &["NamedCurve", "PublicKey"]),
    ("NamedCurve", DSIG11, &[]),
    ("PublicKey", DSIG11, &[]),
];

/// Local names of elements of SAML 2.0 and 1.1 assertions that have no [`super::shape`] here.
const LOOK_ALIKES: [&str; 20] = [
    "Advice",
    "Action",
    "AssertionArtifact",
    "AssertionIDRef",
    "AssertionIDReference",
    "AttributeDesignator",
    "AudienceRestrictionCondition",
    "AuthenticationStatement",
    "AuthorityBinding",
    "AuthorizationDecisionStatement",
    "AuthnContextDecl",
    "AuthzDecisionStatement",
    "BaseID",
    "Condition",
    "ConfirmationMethod",
    "DoNotCacheCondition",
    "NameIdentifier",
    "ProxyRestriction",
    "Response",
    "Statement",
];

impl<'a> Checker<'_, 'a> {
    /// In SubjectConfirmationData: nothing, or one KeyInfo that shows its key.
    pub(super) fn key(&self, id: NodeId) -> Result<()> {
        self.undisturbed(id)?;
        let tree = self.tree;
        let mut key_infos = 0;
        for inner in id + 1..tree.node(id).after {
            let node = tree.node(inner);
            if node.kind != Kind::Element {
                continue;
            }
            let (local, namespace) = (node.name.local(), tree.namespace(node.namespace));
            let known =
                |name: &str| KEY_INFO.iter().find(|(known, ..)| *known == name).map(|(_, home, held)| (*home, *held));
            let place = match node.parent {
                parent if parent == id => local == "KeyInfo",
                parent => known(tree.node(parent).name.local()).is_some_and(|(_, held)| held.contains(&local)),
            };
            if !place || known(local).is_none_or(|(home, _)| home != namespace) {
                let text = "in SubjectConfirmationData stands a ds:KeyInfo with X509Data or KeyValue, and nothing else";
                return self.fail(Rule::UnexpectedElement, inner, text);
            }
            key_infos += usize::from(local == "KeyInfo");
            if key_infos > 1 {
                return self.fail(Rule::TooManyElements, inner, "there is one KeyInfo at most");
            }
            if tree.attributes(node).iter().any(|attribute| (local, attribute.name.qualified) != ("NamedCurve", "URI"))
            {
                return self.fail(Rule::UnexpectedAttribute, inner, "this element has an attribute that is not taken");
            }
            let leaf = known(local).is_some_and(|(_, held)| held.is_empty());
            for child in tree.children(inner).map(|child| tree.node(child)) {
                if !leaf && child.kind == Kind::Text && !self.is_space(child) {
                    return self.fail(Rule::UnexpectedText, inner, "there is text between the elements");
                }
            }
        }
        Ok(())
    }

    /// In an AttributeValue: elements of other namespaces.
    pub(super) fn foreign(&self, id: NodeId) -> Result<()> {
        self.undisturbed(id)?;
        let tree = self.tree;
        for inner in id + 1..tree.node(id).after {
            let node = tree.node(inner);
            if node.kind != Kind::Element {
                continue;
            }
            let local = node.name.local();
            if self.is_saml(inner) || super::shape(local).is_some() || LOOK_ALIKES.contains(&local) {
                return self.fail(
                    Rule::UnexpectedElement,
                    inner,
                    "what looks like an element of SAML has no place here",
                );
            }
            for declaration in tree.declarations(node) {
                if !self.is_used(inner, declaration.prefix) {
                    let text = "a namespace is declared that no element and no attribute is in";
                    return self.fail(Rule::PrefixInContent, inner, text);
                }
            }
            self.no_prefixes(inner)?;
        }
        Ok(())
    }

    /// What readers agree on: no CDATA, no comment between characters, and not too much of it all.
    fn undisturbed(&self, id: NodeId) -> Result<()> {
        let tree = self.tree;
        let after = tree.node(id).after;
        if after - id > NODES_MAX {
            return self.fail(Rule::TooManyNodes, id, "there are too many nodes in this element");
        }
        for child in tree.children(id) {
            match tree.node(child).kind {
                Kind::Text => self.only_space(id, tree.node(child))?,
                Kind::Comment | Kind::CData => {
                    return self.fail(Rule::BrokenText, id, "a comment or CDATA stands where readers expect a value");
                }
                Kind::Element => {}
            }
        }
        for inner in id + 1..after {
            let node = tree.node(inner);
            if node.kind == Kind::CData {
                return self.fail(Rule::BrokenText, node.parent, "there is CDATA in this element");
            }
            if node.kind != Kind::Element {
                continue;
            }
            let (mut text, mut comment) = (false, false);
            for child in tree.children(inner) {
                let child = tree.node(child);
                text |= child.kind == Kind::Text && !self.is_space(child);
                comment |= child.kind == Kind::Comment;
            }
            if text && comment {
                return self.fail(Rule::BrokenText, inner, "this text is interrupted by a comment");
            }
        }
        Ok(())
    }

    /// Whether an element or attribute in this one's subtree is visibly in the namespace of the prefix. A type that
    /// names it does not count: its prefix is declared on the Assertion.
    fn is_used(&self, id: NodeId, prefix: &str) -> bool {
        let tree = self.tree;
        (id..tree.node(id).after).map(|inner| tree.node(inner)).filter(|node| node.kind == Kind::Element).any(|node| {
            node.name.prefix() == prefix
                || !prefix.is_empty() && tree.attributes(node).iter().any(|other| other.name.prefix() == prefix)
        })
    }

    /// That no text and no value right in this element has the look of a QName whose prefix is in scope. (`xsi:type`
    /// has a rule of its own.)
    fn no_prefixes(&self, id: NodeId) -> Result<()> {
        let tree = self.tree;
        let node = tree.node(id);
        let values =
            tree.attributes(node).iter().filter(|other| other.namespace != Namespace::XSI).map(|other| other.value);
        let texts = tree.children(id).map(|child| tree.node(child)).filter(|child| child.kind == Kind::Text);
        let mut scope: Vec<&str> = Vec::new();
        let mut ancestor = Some(node);
        while let Some(node) = ancestor {
            scope.extend(tree.declarations(node).iter().map(|declaration| declaration.prefix));
            ancestor = tree.nodes.get(node.parent as usize);
        }
        for text in values.chain(texts.map(|text| text.text)) {
            // Between what a name cannot hold: `q:admin`, and never a part of `urn:dk:q:x` or `https://q`.
            let words =
                tree.text(text).split(|c: char| c != ':' && !matches!(c, '-' | '.' | '_') && !c.is_alphanumeric());
            let mut names = words.filter_map(|word| word.split_once(':'));
            if names.any(|(prefix, local)| is_ncname(local) && scope.contains(&prefix)) {
                let text = "there is a name with a prefix in this content, which the signature would not protect";
                return self.fail(Rule::PrefixInContent, id, text);
            }
        }
        Ok(())
    }
}

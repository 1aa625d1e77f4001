//! SAML 2.0 assertions: parsed strictly, canonicalised, digested, and put together with an enveloped XML signature.
//!
//! [`Document::parse`] refuses whatever readers might disagree about; [`Document::assertion`] is what a policy reads;
//! [`Document::prepare`] digests that same tree and says what is to be signed; [`Prepared::finish`] gives back the input
//! byte for byte with the Signature in it.

mod algorithm;
mod any;
mod canonical;
mod characters;
mod instant;
mod limits;
mod malformed;
mod parse;
mod prepare;
mod shape;
mod tree;
mod view;

use ring::digest;

pub use algorithm::{DigestMethod, SignatureMethod};
pub(crate) use any::AnyXml;
pub use instant::unix_ms;
pub use limits::Limits;
pub use malformed::{Malformed, Rule};
pub use prepare::{KeyInfo, Prepared};
pub use view::{
    Assertion, Attribute, AttributeStatement, AttributeValue, AudienceRestriction, AuthnStatement, Conditions, Element,
    NameId, Subject, SubjectConfirmation, SubjectConfirmationData,
};

use tree::{NodeId, Tree};

/// A document with exactly one assertion, safe to be read and signed: a `saml:Assertion`, or a `samlp:Response` around
/// it.
#[derive(Clone, Debug)]
pub struct Document<'a> {
    tree: Tree<'a>,
    assertion: NodeId,
    id: &'a str,
    signature_at: usize,
    content_prefixes: Vec<&'a str>,
}

impl<'a> Document<'a> {
    /// Parses and checks a document. Limits come before meaning, and nothing is looked up outside of it.
    ///
    /// # Errors
    /// The first [`Rule`] that the document breaks.
    pub fn parse(document: &'a [u8], limits: &Limits) -> Result<Document<'a>, Malformed> {
        let tree = parse::parse(document, limits)?;
        let shape::Found { assertion, id, signature_at, content_prefixes } = shape::check(&tree, limits)?;
        Ok(Document { tree, assertion, id, signature_at, content_prefixes })
    }

    /// The assertion, for a policy to look at.
    pub fn assertion(&self) -> Assertion<'_> {
        Assertion(Element { tree: &self.tree, id: self.assertion })
    }

    /// Digests the assertion and makes everything of its Signature but the value. The transforms are
    /// enveloped-signature and exclusive canonicalisation without comments, with prefixes used in content (`xsi:type`)
    /// in its InclusiveNamespaces.
    pub fn prepare(
        &self,
        signature_method: SignatureMethod,
        digest_method: DigestMethod,
        key_info: &KeyInfo,
    ) -> Prepared {
        let digest = self.digest(digest_method);
        Prepared::new(&prepare::Parts {
            document: self.tree.source,
            signature_at: self.signature_at,
            id: self.id,
            content_prefixes: &self.content_prefixes,
            signature_method,
            digest_method,
            digest: digest.as_ref(),
            key_info,
        })
    }

    /// Digest of the assertion's canonical form: what DigestValue will say.
    pub fn digest(&self, digest_method: DigestMethod) -> digest::Digest {
        let mut context = digest::Context::new(digest_method.algorithm());
        canonical::canonicalise(&self.tree, self.assertion, &self.content_prefixes, &mut context);
        context.finish()
    }

    /// The assertion's canonical octets: what the digest is made of.
    pub fn canonical_form(&self) -> Vec<u8> {
        let mut octets = Vec::with_capacity(self.tree.source.len());
        canonical::canonicalise(&self.tree, self.assertion, &self.content_prefixes, &mut octets);
        octets
    }
}

/// Steps from child to child that this thread has made.
#[cfg(test)]
pub(crate) fn steps() -> u64 {
    tree::STEPS.get()
}

/// The exclusive canonical form without comments of any document that is taken as XML, of SAML or not. `inclusive` is
/// the PrefixList, without `#default`.
///
/// # Errors
/// When it is no XML that is taken.
pub fn canonical_form(document: &[u8], inclusive: &[&str], limits: &Limits) -> Result<Vec<u8>, Malformed> {
    let root = canonical_form_of(0, document, inclusive, limits)?;
    Ok(root.expect("a document has a root"))
}

/// The same of one element and what is in it: of the root for 0, and so on in the document's order. None when there are
/// not so many.
///
/// # Errors
/// When it is no XML that is taken.
pub fn canonical_form_of(
    element: usize,
    document: &[u8],
    inclusive: &[&str],
    limits: &Limits,
) -> Result<Option<Vec<u8>>, Malformed> {
    let tree = parse::parse(document, limits)?;
    let elements = tree.nodes.iter().enumerate().filter(|(_, node)| node.kind == tree::Kind::Element);
    Ok(elements.map(|(id, _)| id as NodeId).nth(element).map(|apex| {
        let mut octets = Vec::with_capacity(document.len());
        canonical::canonicalise(&tree, apex, inclusive, &mut octets);
        octets
    }))
}

//! Any other XML that is read here (metadata, lists of privileges, what is signed already): by the same parser, without
//! the shape of an assertion to be signed.

#[cfg(feature = "encrypt")]
use super::tree::NOBODY;
use super::{
    Element, Limits, Malformed,
    characters::is_space,
    parse,
    tree::{Kind, Tree},
};

/// A document that is XML as far as the parser takes it.
#[derive(Clone, Debug)]
pub(crate) struct AnyXml<'a>(Tree<'a>);

impl<'a> AnyXml<'a> {
    pub(crate) fn parse(document: &'a [u8], limits: &Limits) -> Result<AnyXml<'a>, Malformed> {
        Ok(AnyXml(parse::parse(document, limits)?))
    }

    pub(crate) fn root(&self) -> Element<'_> {
        Element { tree: &self.0, id: 0 }
    }
}

impl Element<'_> {
    /// Whether every attribute is one of these, in no namespace.
    pub(crate) fn has_attributes(self, names: &[&str]) -> bool {
        self.tree.attributes(self.tree.node(self.id)).iter().all(|attribute| names.contains(&attribute.name.qualified))
    }

    /// Whether nothing is right inside it but elements, comments and white space.
    pub(crate) fn has_elements_alone(self) -> bool {
        self.tree.children(self.id).map(|child| self.tree.node(child)).all(|child| match child.kind {
            Kind::Element | Kind::Comment => true,
            Kind::Text => self.tree.text(child.text).bytes().all(is_space),
            Kind::CData => false,
        })
    }

    /// Whether nothing is in it but characters, in one piece.
    pub(crate) fn has_text_alone(self) -> bool {
        self.tree.children(self.id).all(|child| self.tree.node(child).kind == Kind::Text)
    }
}

#[cfg(feature = "encrypt")]
impl<'d> Element<'d> {
    pub(crate) fn is(self, namespace: &str, local_name: &str) -> bool {
        self.local_name() == local_name && self.namespace() == namespace
    }

    /// The children of a name.
    pub(crate) fn all(
        self,
        namespace: &'static str,
        local_name: &'static str,
    ) -> impl Iterator<Item = Element<'d>> + Clone {
        self.children().filter(move |child| child.is(namespace, local_name))
    }

    /// The element in the document, from `<` to the end of its end tag.
    pub(crate) fn source(self) -> &'d str {
        let node = self.tree.node(self.id);
        &self.tree.source[node.start as usize..node.end as usize]
    }

    /// The name as it is spelt, with its prefix.
    pub(crate) fn qualified_name(self) -> &'d str {
        self.tree.node(self.id).name.qualified
    }

    /// Namespaces in force in the element, each prefix once.
    pub(crate) fn scope(self) -> Vec<InScope<'d>> {
        let mut scope: Vec<InScope<'d>> = Vec::new();
        let mut at = self.id;
        while at != NOBODY {
            let node = self.tree.node(at);
            for declaration in self.tree.declarations(node) {
                if !scope.iter().any(|inner| inner.prefix == declaration.prefix) {
                    let namespace = self.tree.namespace(declaration.namespace);
                    scope.push(InScope { prefix: declaration.prefix, namespace, inherited: at != self.id });
                }
            }
            at = node.parent;
        }
        scope
    }
}

/// A namespace declaration in force.
#[cfg(feature = "encrypt")]
#[derive(Clone, Copy, Debug)]
pub(crate) struct InScope<'d> {
    /// Empty for the default namespace
    pub(crate) prefix: &'d str,
    /// Empty for none
    pub(crate) namespace: &'d str,
    /// Declared outside the element
    pub(crate) inherited: bool,
}

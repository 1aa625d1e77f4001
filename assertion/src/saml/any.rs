//! Any other XML that is read here (metadata, lists of privileges, what is signed already): by the same parser, without
//! the shape of an assertion to be signed.

use super::{Element, Limits, Malformed, parse, tree::Tree};

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

    /// Prefixes (empty for the default namespace) and namespaces that are declared outside the element and in force in
    /// it, each prefix once.
    pub(crate) fn inherited_declarations(self) -> Vec<(&'d str, &'d str)> {
        let mut seen: Vec<&str> = Vec::new();
        let mut inherited = Vec::new();
        let mut at = Some(self.id);
        while let Some(id) = at {
            let node = self.tree.node(id);
            for declaration in self.tree.declarations(node) {
                if seen.contains(&declaration.prefix) {
                    continue;
                }
                seen.push(declaration.prefix);
                if id != self.id {
                    inherited.push((declaration.prefix, self.tree.namespace(declaration.namespace)));
                }
            }
            at = Some(node.parent).filter(|parent| *parent != super::tree::NOBODY);
        }
        // An `xmlns=""` outside is no namespace, which is what there is without it.
        inherited.retain(|(_, namespace)| !namespace.is_empty());
        inherited
    }
}

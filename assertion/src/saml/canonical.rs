//! Exclusive XML canonicalisation without comments (<http://www.w3.org/2001/10/xml-exc-c14n#>) of a subtree, streamed.

use ring::digest;

use super::tree::{Attribute, Declaration, Kind, NOBODY, Namespace, Node, NodeId, Spelling, Text, Tree};

/// Where canonical octets go.
pub(super) trait Sink {
    fn write(&mut self, octets: &[u8]);
}

impl Sink for Vec<u8> {
    #[inline]
    fn write(&mut self, octets: &[u8]) {
        self.extend_from_slice(octets);
    }
}

impl Sink for digest::Context {
    #[inline]
    fn write(&mut self, octets: &[u8]) {
        self.update(octets);
    }
}

/// Writes the canonical form of the element `apex`. `inclusive` is the InclusiveNamespaces PrefixList, `#default` for
/// the default namespace.
pub(super) fn canonicalise(tree: &Tree<'_>, apex: NodeId, inclusive: &[&str], sink: &mut impl Sink) {
    let mut writer = Writer {
        tree,
        inclusive,
        scope: Vec::new(),
        rendered: Vec::with_capacity(8),
        open: Vec::with_capacity(16),
        sorted: Vec::new(),
        sink,
    };
    if !inclusive.is_empty() {
        writer.inherit(apex);
    }
    let after = tree.node(apex).after;
    for id in apex..after {
        writer.close_before(id);
        let node = tree.node(id);
        match node.kind {
            Kind::Element => writer.open(node, id == apex),
            Kind::Text | Kind::CData => writer.text(node.text),
            Kind::Comment => {}
        }
    }
    writer.close_before(after);
}

struct Writer<'t, 'a, S> {
    tree: &'t Tree<'a>,
    inclusive: &'t [&'t str],
    /// Declarations in scope, the innermost last; looked after only when there is a PrefixList.
    scope: Vec<Declaration<'a>>,
    /// Declarations written, the innermost last.
    rendered: Vec<Declaration<'a>>,
    open: Vec<Open<'a>>,
    sorted: Vec<u32>,
    sink: &'t mut S,
}

struct Open<'a> {
    name: &'a str,
    after: NodeId,
    scope: usize,
    rendered: usize,
}

impl<'a, S: Sink> Writer<'_, 'a, S> {
    /// Puts the declarations of the ancestors in scope.
    fn inherit(&mut self, apex: NodeId) {
        let mut ancestors = Vec::new();
        let mut at = self.tree.node(apex).parent;
        while at != NOBODY {
            ancestors.push(at);
            at = self.tree.node(at).parent;
        }
        for ancestor in ancestors.into_iter().rev() {
            self.scope.extend_from_slice(self.tree.declarations(self.tree.node(ancestor)));
        }
    }

    /// Writes the end tags of the elements that end before the node `id`.
    fn close_before(&mut self, id: NodeId) {
        while let Some(open) = self.open.last() {
            if open.after > id {
                break;
            }
            self.sink.write(b"</");
            self.sink.write(open.name.as_bytes());
            self.sink.write(b">");
            self.scope.truncate(open.scope);
            self.rendered.truncate(open.rendered);
            self.open.pop();
        }
    }

    fn open(&mut self, node: &Node<'a>, apex: bool) {
        let tree = self.tree;
        let name = node.name.qualified;
        self.open.push(Open { name, after: node.after, scope: self.scope.len(), rendered: self.rendered.len() });
        self.sink.write(b"<");
        self.sink.write(name.as_bytes());
        let attributes = tree.attributes(node);
        self.namespaces(node, attributes, apex);
        match attributes {
            [] => {}
            [one] => self.attribute(one),
            several => {
                let mut sorted = std::mem::take(&mut self.sorted);
                sorted.clear();
                sorted.extend(0..several.len() as u32);
                sorted.sort_unstable_by_key(|index| {
                    let attribute = &several[*index as usize];
                    (tree.namespace(attribute.namespace), attribute.name.local())
                });
                for index in &sorted {
                    self.attribute(&several[*index as usize]);
                }
                self.sorted = sorted;
            }
        }
        self.sink.write(b">");
    }

    /// Writes the declarations that the element needs: of the prefixes it and its attributes use, and of those in the
    /// PrefixList, where the ones written so far do not say the same.
    fn namespaces(&mut self, node: &Node<'a>, attributes: &[Attribute<'a>], apex: bool) {
        let mark = self.rendered.len();
        self.render(node.name.prefix(), node.namespace);
        for attribute in attributes {
            if attribute.namespace != Namespace::NONE {
                self.render(attribute.name.prefix(), attribute.namespace);
            }
        }
        let declarations = self.tree.declarations(node);
        if !self.inclusive.is_empty() && (apex || !declarations.is_empty()) {
            self.scope.extend_from_slice(declarations);
            for prefix in self.inclusive {
                let prefix = if *prefix == "#default" { "" } else { prefix };
                match self.scope.iter().rev().find(|declaration| declaration.prefix == prefix).copied() {
                    Some(Declaration { prefix, namespace }) => self.render(prefix, namespace),
                    None if prefix.is_empty() => self.render("", Namespace::NONE),
                    None => {}
                }
            }
        }
        self.rendered[mark..].sort_unstable_by_key(|declaration| declaration.prefix);
        for index in mark..self.rendered.len() {
            let Declaration { prefix, namespace } = self.rendered[index];
            if prefix.is_empty() {
                self.sink.write(b" xmlns=\"");
            } else {
                self.sink.write(b" xmlns:");
                self.sink.write(prefix.as_bytes());
                self.sink.write(b"=\"");
            }
            escape(self.tree.namespace(namespace), VALUE_ESCAPES, self.sink);
            self.sink.write(b"\"");
        }
    }

    fn render(&mut self, prefix: &'a str, namespace: Namespace) {
        if namespace == Namespace::XML {
            return;
        }
        let so_far = self.rendered.iter().rev().find(|declaration| declaration.prefix == prefix);
        let so_far = match so_far {
            Some(declaration) => Some(declaration.namespace),
            None if prefix.is_empty() => Some(Namespace::NONE),
            None => None,
        };
        if so_far != Some(namespace) {
            self.rendered.push(Declaration { prefix, namespace });
        }
    }

    fn attribute(&mut self, attribute: &Attribute<'a>) {
        self.sink.write(b" ");
        self.sink.write(attribute.name.qualified.as_bytes());
        self.sink.write(b"=\"");
        let value = self.tree.text(attribute.value);
        match attribute.value.spelling {
            Spelling::Canonical => self.sink.write(value.as_bytes()),
            Spelling::Plain | Spelling::Decoded => escape(value, VALUE_ESCAPES, self.sink),
        }
        self.sink.write(b"\"");
    }

    fn text(&mut self, text: Text) {
        let characters = self.tree.text(text);
        match text.spelling {
            Spelling::Canonical => self.sink.write(characters.as_bytes()),
            Spelling::Plain | Spelling::Decoded => escape(characters, TEXT_ESCAPES, self.sink),
        }
    }
}

type Escapes = &'static [(u8, &'static [u8])];

/// Canonical XML 1.0 §2.3, text nodes.
const TEXT_ESCAPES: Escapes = &[(b'&', b"&amp;"), (b'<', b"&lt;"), (b'>', b"&gt;"), (b'\r', b"&#xD;")];

/// Canonical XML 1.0 §2.3, attribute nodes.
const VALUE_ESCAPES: Escapes =
    &[(b'&', b"&amp;"), (b'<', b"&lt;"), (b'"', b"&quot;"), (b'\t', b"&#x9;"), (b'\n', b"&#xA;"), (b'\r', b"&#xD;")];

fn escape(text: &str, escapes: Escapes, sink: &mut impl Sink) {
    let bytes = text.as_bytes();
    let mut written = 0;
    for (at, byte) in bytes.iter().enumerate() {
        if let Some((_, escaped)) = escapes.iter().find(|(plain, _)| plain == byte) {
            sink.write(&bytes[written..at]);
            sink.write(escaped);
            written = at + 1;
        }
    }
    sink.write(&bytes[written..]);
}

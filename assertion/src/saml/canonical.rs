//! Exclusive XML canonicalisation without comments (<http://www.w3.org/2001/10/xml-exc-c14n#>) of a subtree, streamed.

use std::ops::Range;

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

/// Writes the canonical form of the element `apex`. `inclusive` is the InclusiveNamespaces PrefixList; the default
/// namespace (`#default`) is never in it.
pub(super) fn canonicalise(tree: &Tree<'_>, apex: NodeId, inclusive: &[&str], sink: &mut impl Sink) {
    let mut writer = Writer {
        tree,
        inclusive,
        scope: Vec::with_capacity(if inclusive.is_empty() { 0 } else { 16 }),
        rendered: Vec::with_capacity(8),
        open: Vec::with_capacity(16),
        sorted: Vec::with_capacity(8),
        output: Output { source: tree.source.as_bytes(), run: 0..0, sink },
    };
    if !inclusive.is_empty() {
        writer.inherit(apex);
    }
    let after = tree.node(apex).after;
    for id in apex..after {
        writer.close_before(id);
        let node = tree.node(id);
        match node.kind {
            Kind::Element => writer.open(id, id == apex),
            Kind::Text | Kind::CData => writer.characters(node.text, &TEXT_ESCAPES),
            Kind::Comment => {}
        }
    }
    writer.close_before(after);
    writer.output.flush();
}

struct Writer<'t, 'a, S> {
    tree: &'t Tree<'a>,
    inclusive: &'t [&'t str],
    /// Declarations in scope, the innermost last; looked after only when there is a PrefixList.
    scope: Vec<Declaration<'a>>,
    /// Declarations written, the innermost last.
    rendered: Vec<Declaration<'a>>,
    open: Vec<Open>,
    sorted: Vec<u32>,
    output: Output<'t, S>,
}

struct Open {
    node: NodeId,
    after: NodeId,
    scope: usize,
    rendered: usize,
}

/// The sink behind a range of the source that is canonical already and not yet written. Most of an assertion is spelt
/// canonically, so that ranges grow to hundreds of bytes and small pieces are the exception.
struct Output<'t, S> {
    source: &'t [u8],
    run: Range<usize>,
    sink: &'t mut S,
}

impl<S: Sink> Output<'_, S> {
    fn source(&mut self, range: Range<usize>) {
        if self.run.end == range.start {
            self.run.end = range.end;
        } else {
            self.flush();
            self.run = range;
        }
    }

    fn write(&mut self, octets: &[u8]) {
        self.flush();
        self.sink.write(octets);
    }

    fn flush(&mut self) {
        if !self.run.is_empty() {
            self.sink.write(&self.source[self.run.clone()]);
        }
        // Not to be taken for the neighbour of a range that begins at the end of this one.
        self.run = 0..0;
    }
}

impl<'a, S: Sink> Writer<'_, 'a, S> {
    /// Puts the declarations of the ancestors in scope, of which there are no more than elements may be nested.
    fn inherit(&mut self, id: NodeId) {
        let parent = self.tree.node(id).parent;
        if parent != NOBODY {
            self.inherit(parent);
            self.scope.extend_from_slice(self.tree.declarations(self.tree.node(parent)));
        }
    }

    /// Writes the end tags of the elements that end before the node `id`.
    fn close_before(&mut self, id: NodeId) {
        while let Some(open) = self.open.last() {
            if open.after > id {
                break;
            }
            let node = self.tree.node(open.node);
            let name = node.name.qualified.as_bytes();
            if node.canonical_end_tag {
                self.output.source(node.end as usize - name.len() - 3..node.end as usize);
            } else {
                self.output.write(b"</");
                self.output.write(name);
                self.output.write(b">");
            }
            self.scope.truncate(open.scope);
            self.rendered.truncate(open.rendered);
            self.open.pop();
        }
    }

    fn open(&mut self, id: NodeId, apex: bool) {
        let tree = self.tree;
        let node = tree.node(id);
        let mark = self.rendered.len();
        self.open.push(Open { node: id, after: node.after, scope: self.scope.len(), rendered: mark });
        let attributes = tree.attributes(node);
        self.collect(node, attributes, apex);
        if node.canonical_tag_end > 0 && self.rendered.len() == mark {
            self.output.source(node.start as usize..node.canonical_tag_end as usize);
            return;
        }
        self.output.write(b"<");
        self.output.write(node.name.qualified.as_bytes());
        self.rendered[mark..].sort_unstable_by_key(|declaration| declaration.prefix);
        for Declaration { prefix, namespace } in &self.rendered[mark..] {
            if prefix.is_empty() {
                self.output.write(b" xmlns=\"");
            } else {
                self.output.write(b" xmlns:");
                self.output.write(prefix.as_bytes());
                self.output.write(b"=\"");
            }
            // The parser takes no name of a namespace with a character that would have to be escaped.
            self.output.write(tree.namespace(*namespace).as_bytes());
            self.output.write(b"\"");
        }
        let mut sorted = std::mem::take(&mut self.sorted);
        sorted.clear();
        sorted.extend(node.attributes.0..node.attributes.1);
        if sorted.len() > 1 {
            sorted.sort_unstable_by(|one, other| tree.canonical_order(*one, *other));
        }
        for index in &sorted {
            self.attribute(&tree.attributes[*index as usize]);
        }
        self.sorted = sorted;
        self.output.write(b">");
    }

    /// Collects the declarations that the element needs: of the prefixes it and its attributes use, and of those in
    /// the PrefixList, where the ones written so far do not say the same.
    fn collect(&mut self, node: &Node<'a>, attributes: &[Attribute<'a>], apex: bool) {
        self.render(node.name.prefix(), node.namespace);
        for attribute in attributes {
            if attribute.namespace != Namespace::NONE {
                self.render(attribute.name.prefix(), attribute.namespace);
            }
        }
        let declarations = self.tree.declarations(node);
        if self.inclusive.is_empty() || declarations.is_empty() && !apex {
            return;
        }
        self.scope.extend_from_slice(declarations);
        for prefix in self.inclusive {
            let declaration = self.scope.iter().rev().find(|declaration| declaration.prefix == *prefix).copied();
            if let Some(Declaration { prefix, namespace }) = declaration {
                self.render(prefix, namespace);
            }
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
        self.output.write(b" ");
        self.output.write(attribute.name.qualified.as_bytes());
        self.output.write(b"=\"");
        self.characters(attribute.value, &VALUE_ESCAPES);
        self.output.write(b"\"");
    }

    fn characters(&mut self, text: Text, escapes: &Escapes) {
        if text.spelling == Spelling::Canonical {
            return self.output.source(text.start as usize..text.end as usize);
        }
        let bytes = self.tree.text(text).as_bytes();
        let mut written = 0;
        for (at, byte) in bytes.iter().enumerate() {
            let escaped = escapes[*byte as usize % ESCAPES];
            if !escaped.is_empty() && *byte < ESCAPES as u8 {
                self.output.write(&bytes[written..at]);
                self.output.write(escaped);
                written = at + 1;
            }
        }
        self.output.write(&bytes[written..]);
    }
}

/// What is written for a byte; nothing for the byte itself. All that are escaped are below this.
const ESCAPES: usize = 64;
type Escapes = [&'static [u8]; ESCAPES];

/// Canonical XML 1.0 §2.3, text nodes.
static TEXT_ESCAPES: Escapes = escapes(&[(b'&', b"&amp;"), (b'<', b"&lt;"), (b'>', b"&gt;"), (b'\r', b"&#xD;")]);

/// Canonical XML 1.0 §2.3, attribute nodes.
static VALUE_ESCAPES: Escapes = escapes(&[
    (b'&', b"&amp;"),
    (b'<', b"&lt;"),
    (b'"', b"&quot;"),
    (b'\t', b"&#x9;"),
    (b'\n', b"&#xA;"),
    (b'\r', b"&#xD;"),
]);

const fn escapes(list: &[(u8, &'static [u8])]) -> Escapes {
    let mut table: Escapes = [b""; ESCAPES];
    let mut at = 0;
    while at < list.len() {
        table[list[at].0 as usize] = list[at].1;
        at += 1;
    }
    table
}

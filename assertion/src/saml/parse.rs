//! XML 1.0 (fifth edition) and Namespaces in XML 1.0 (third edition), read in one pass into a [`Tree`].
//!
//! Left out on purpose, and refused: document type declarations with all that hangs on them, processing instructions,
//! every encoding but UTF-8, `xml:id`, `xml:base`, and namespace names that are no absolute URIs (which canonicalisation
//! is not defined for).

mod text;

use std::borrow::Cow;

use super::{
    Limits, Malformed, Rule,
    characters::{is_space, ncname_len},
    tree::{Attribute, Declaration, Kind, NOBODY, Name, Namespace, Node, NodeId, Spelling, Text, Tree},
};

/// Offsets are kept in 32 bits, with room to spare.
const BYTES_MAX: usize = 16 << 20;

/// Names of namespaces are compared one by one.
const NAMESPACES_MAX: usize = 64;

type Result<T> = std::result::Result<T, Malformed>;

/// Parses a whole document.
///
/// # Errors
/// When it exceeds a limit, or is not what the module's description says.
pub(super) fn parse<'a>(document: &'a [u8], limits: &Limits) -> Result<Tree<'a>> {
    let refuse = |rule, offset, text: &'static str| Malformed::new(document, rule, offset, String::new(), text);
    if document.len() > limits.bytes_max.min(BYTES_MAX) {
        return Err(refuse(Rule::TooLong, 0, "the document is longer than is taken"));
    }
    let source = std::str::from_utf8(document)
        .map_err(|error| refuse(Rule::Encoding, error.valid_up_to(), "this byte is not UTF-8"))?;
    let mut namespaces = Vec::with_capacity(16);
    namespaces.extend(Namespace::KNOWN);
    let mut parser = Parser {
        bytes: document,
        at: 0,
        limits,
        open: Vec::with_capacity(16),
        scope: Vec::with_capacity(16),
        tree: Tree {
            source,
            decoded: String::with_capacity(document.len() / 8),
            nodes: Vec::with_capacity((document.len() / 24).min(limits.nodes_max)),
            attributes: Vec::with_capacity((document.len() / 64).min(limits.attributes_max)),
            declarations: Vec::with_capacity(16),
            namespaces,
            rebound: None,
        },
    };
    parser.document()?;
    Ok(parser.tree)
}

struct Parser<'a, 'l> {
    bytes: &'a [u8],
    at: usize,
    limits: &'l Limits,
    open: Vec<Open>,
    /// Declarations in scope, the innermost last.
    scope: Vec<Declaration<'a>>,
    tree: Tree<'a>,
}

/// An element whose end tag has not come.
struct Open {
    node: NodeId,
    /// Length of the scope outside it
    scope: usize,
}

impl<'a> Parser<'a, '_> {
    fn document(&mut self) -> Result<()> {
        if self.bytes.starts_with("\u{FEFF}".as_bytes()) {
            self.at = 3;
        }
        if self.rest().starts_with(b"<?xml") && self.rest().get(5).copied().is_some_and(is_space) {
            self.declaration()?;
        }
        self.miscellany()?;
        match self.peek() {
            Some(b'<') => self.start_tag()?,
            Some(_) => return self.fail(Rule::Syntax, "text before the root element"),
            None => return self.fail(Rule::Syntax, "there is no element"),
        }
        while !self.open.is_empty() {
            self.content()?;
        }
        self.miscellany()?;
        match self.peek() {
            Some(_) => self.fail(Rule::Syntax, "something follows the root element"),
            None => Ok(()),
        }
    }

    /// `XMLDecl` (§2.8).
    fn declaration(&mut self) -> Result<()> {
        self.at += 5;
        let mut expected: &[&str] = &["version", "encoding", "standalone"];
        loop {
            let spaces = self.spaces();
            if self.rest().starts_with(b"?>") {
                self.at += 2;
                break;
            }
            let name = self.ncname();
            let Some(place) = expected.iter().position(|known| *known == name).filter(|_| spaces > 0) else {
                return self.fail(Rule::Syntax, "this is no XML declaration");
            };
            if place > 0 && expected.contains(&"version") {
                return self.fail(Rule::Syntax, "an XML declaration begins with its version");
            }
            expected = &expected[place + 1..];
            self.equals()?;
            let value = self.declared_value()?;
            match name {
                "version" if value != "1.0" => return self.fail(Rule::Syntax, "this is not XML 1.0"),
                "encoding" if !value.eq_ignore_ascii_case("utf-8") => {
                    return self.fail(Rule::Encoding, "the document says that it is not UTF-8");
                }
                "standalone" if !["yes", "no"].contains(&value) => {
                    return self.fail(Rule::Syntax, "standalone is yes or no");
                }
                _ => {}
            }
        }
        if expected.contains(&"version") {
            return self.fail(Rule::Syntax, "an XML declaration has a version");
        }
        Ok(())
    }

    fn declared_value(&mut self) -> Result<&'a str> {
        let quote = self.quote()?;
        let start = self.at;
        match self.rest().iter().take(64).position(|byte| *byte == quote) {
            Some(len) => {
                self.at += len + 1;
                Ok(&self.tree.source[start..start + len])
            }
            None => self.fail(Rule::Syntax, "this value has no end"),
        }
    }

    /// White space and comments outside the root.
    fn miscellany(&mut self) -> Result<()> {
        loop {
            self.spaces();
            if self.rest().starts_with(b"<!--") {
                self.comment()?;
            } else if self.rest().starts_with(b"<!") {
                return self.fail(Rule::Doctype, "a document type declaration is not taken");
            } else if self.rest().starts_with(b"<?") {
                return self.fail(Rule::ProcessingInstruction, "a processing instruction is not taken");
            } else {
                return Ok(());
            }
        }
    }

    /// The next piece of an open element's content.
    fn content(&mut self) -> Result<()> {
        match self.peek() {
            None => self.fail(Rule::Syntax, "the document ends inside an element"),
            Some(b'<') => match self.bytes.get(self.at + 1) {
                Some(b'/') => self.end_tag(),
                Some(b'?') => self.fail(Rule::ProcessingInstruction, "a processing instruction is not taken"),
                Some(b'!') if self.rest().starts_with(b"<!--") => {
                    let start = self.at;
                    self.comment()?;
                    self.push(Kind::Comment, start, Text::NONE)
                }
                Some(b'!') if self.rest().starts_with(b"<![CDATA[") => self.cdata(),
                Some(b'!') => self.fail(Rule::Syntax, "this markup is neither a comment nor CDATA"),
                _ => self.start_tag(),
            },
            Some(_) => self.text(),
        }
    }

    fn start_tag(&mut self) -> Result<()> {
        let start = self.at;
        if self.open.len() >= self.limits.depth_max {
            return self.fail(Rule::TooDeep, "elements are nested too deep");
        }
        self.at += 1;
        let name = self.name()?;
        let id = self.tree.nodes.len() as NodeId;
        self.push(Kind::Element, start, Text::NONE)?;
        self.tree.nodes[id as usize].name = name;
        self.tree.nodes[id as usize].after = NOBODY;
        self.open.push(Open { node: id, scope: self.scope.len() });
        let attributes = self.tree.attributes.len();
        let declarations = self.tree.declarations.len();
        let mut canonical = true;
        let empty = loop {
            let spaced_at = self.at;
            let spaces = self.spaces();
            match self.peek() {
                Some(b'>') => {
                    self.at += 1;
                    canonical &= spaces == 0;
                    break false;
                }
                Some(b'/') if self.bytes.get(self.at + 1) == Some(&b'>') => {
                    self.at += 2;
                    canonical = false;
                    break true;
                }
                Some(_) if spaces > 0 => {
                    canonical &= spaces == 1 && self.bytes[spaced_at] == b' ';
                    canonical &= self.attribute(id, attributes, declarations)?;
                }
                Some(_) => return self.fail(Rule::Syntax, "white space or the tag's end is missing here"),
                None => return self.fail(Rule::Syntax, "the document ends inside a tag"),
            }
        };
        let node = &mut self.tree.nodes[id as usize];
        node.attributes = (attributes as u32, self.tree.attributes.len() as u32);
        node.declarations = (declarations as u32, self.tree.declarations.len() as u32);
        canonical &= self.resolve(id, attributes)?;
        if canonical {
            self.tree.nodes[id as usize].canonical_tag_end = self.at as u32;
        }
        if empty {
            self.close();
        }
        Ok(())
    }

    fn end_tag(&mut self) -> Result<()> {
        let start = self.at;
        let open = self.open.last().expect("content is read only while an element is open").node;
        let name = self.tree.node(open).name.qualified.as_bytes();
        if !self.bytes[start + 2..].starts_with(name) {
            return self.fail(Rule::Syntax, "this end tag is not that of the open element");
        }
        self.at += 2 + name.len();
        let canonical = self.spaces() == 0;
        if self.peek() != Some(b'>') {
            self.at = start;
            return self.fail(Rule::Syntax, "this end tag is not that of the open element");
        }
        self.at += 1;
        self.tree.nodes[open as usize].canonical_end_tag = canonical;
        self.close();
        Ok(())
    }

    fn close(&mut self) {
        let open = self.open.pop().expect("it was opened before");
        let after = self.tree.nodes.len() as NodeId;
        let node = &mut self.tree.nodes[open.node as usize];
        node.after = after;
        node.end = self.at as u32;
        self.scope.truncate(open.scope);
    }

    /// An attribute or a namespace declaration of the element `id`, whose others begin at the given indices. Tells
    /// whether it is spelt canonically.
    fn attribute(&mut self, id: NodeId, attributes: usize, declarations: usize) -> Result<bool> {
        let start = self.at;
        let name = self.name()?;
        self.equals()?;
        let spelt_close = self.at == start + name.qualified.len() + 1;
        let value_at = self.at + 1;
        let value = self.value()?;
        if name.qualified == "xmlns" || name.prefix() == "xmlns" {
            let prefix = if name.qualified == "xmlns" { "" } else { name.local() };
            self.declare(id, declarations, prefix, value, value_at)?;
            return Ok(false);
        }
        if name.prefix() == "xml" && !matches!(name.local(), "lang" | "space") {
            return self.fail_at(
                Rule::XmlAttribute,
                start,
                "xml:lang and xml:space only are taken of the xml: attributes",
            );
        }
        if self.tree.attributes.len() - attributes >= self.limits.element_attributes_max
            || self.tree.attributes.len() >= self.limits.attributes_max
        {
            return self.fail_at(Rule::TooManyAttributes, start, "there are too many attributes");
        }
        self.tree.attributes.push(Attribute { name, namespace: Namespace::NONE, value, start: start as u32 });
        Ok(spelt_close && self.bytes[value_at - 1] == b'"' && value.spelling == Spelling::Canonical)
    }

    fn declare(&mut self, id: NodeId, declarations: usize, prefix: &'a str, value: Text, at: usize) -> Result<()> {
        if value.spelling == Spelling::Decoded {
            return self.fail_at(Rule::NamespaceName, at, "a namespace's name is spelt without references");
        }
        let uri = &self.tree.source[value.start as usize..value.end as usize];
        if matches!(prefix, "xml" | "xmlns")
            || [Namespace::KNOWN[Namespace::XML.0 as usize], "http://www.w3.org/2000/xmlns/"].contains(&uri)
        {
            return self.fail_at(Rule::NamespaceReserved, at, "xml and xmlns and their namespaces are not declared");
        }
        if uri.is_empty() && !prefix.is_empty() {
            return self.fail_at(Rule::NamespaceName, at, "a prefix cannot be undeclared");
        }
        if !uri.is_empty() && !is_absolute_uri(uri) {
            return self.fail_at(Rule::NamespaceName, at, "a namespace's name is an absolute URI");
        }
        if self.tree.declarations[declarations..].iter().any(|other| other.prefix == prefix) {
            return self.fail_at(Rule::DuplicateAttribute, at, "the same prefix is declared twice in one tag");
        }
        if self.scope.len() >= self.limits.scope_max || self.tree.declarations.len() >= self.limits.declarations_max {
            return self.fail_at(Rule::TooManyNamespaces, at, "there are too many namespace declarations");
        }
        let known = self.tree.namespaces.iter().position(|known| *known == uri);
        let namespace = match known {
            Some(index) => Namespace(index as u16),
            None if self.tree.namespaces.len() < NAMESPACES_MAX => {
                self.tree.namespaces.push(uri);
                Namespace(self.tree.namespaces.len() as u16 - 1)
            }
            None => return self.fail_at(Rule::TooManyNamespaces, at, "there are too many namespaces"),
        };
        let outer = if prefix.is_empty() { None } else { self.bound(prefix) };
        if outer.is_some_and(|outer| outer != namespace) && self.tree.rebound.is_none() {
            self.tree.rebound = Some(id);
        }
        let declaration = Declaration { prefix, namespace };
        self.tree.declarations.push(declaration);
        self.scope.push(declaration);
        Ok(())
    }

    /// Looks up the namespaces of an element and its attributes, all its declarations being known. Tells whether the
    /// attributes are in canonical order.
    fn resolve(&mut self, id: NodeId, attributes: usize) -> Result<bool> {
        let prefix = self.tree.node(id).name.prefix();
        let Some(namespace) = self.bound(prefix) else {
            let start = self.tree.node(id).start as usize;
            return self.fail_at(Rule::NamespaceUndeclared, start, "this element's prefix is not declared");
        };
        self.tree.nodes[id as usize].namespace = namespace;
        let mut ordered = true;
        for index in attributes..self.tree.attributes.len() {
            let attribute = &self.tree.attributes[index];
            let (name, start) = (attribute.name, attribute.start as usize);
            let prefix = name.prefix();
            let namespace = if prefix.is_empty() { Some(Namespace::NONE) } else { self.bound(prefix) };
            let Some(namespace) = namespace else {
                return self.fail_at(Rule::NamespaceUndeclared, start, "this attribute's prefix is not declared");
            };
            let local = name.local();
            let same = |other: &Attribute<'_>| other.namespace == namespace && other.name.local() == local;
            if self.tree.attributes[attributes..index].iter().any(same) {
                return self.fail_at(Rule::DuplicateAttribute, start, "this attribute is given twice");
            }
            self.tree.attributes[index].namespace = namespace;
            if let Some(before) = index.checked_sub(1).filter(|before| *before >= attributes) {
                ordered &= self.tree.canonical_order(before as u32, index as u32).is_lt();
            }
        }
        Ok(ordered)
    }

    /// The namespace that a prefix stands for here; that of the empty one without a declaration is none.
    fn bound(&self, prefix: &str) -> Option<Namespace> {
        // Prefixes are so short that calling for a comparison takes longer than comparing.
        let same = |other: &str| other.len() == prefix.len() && other.bytes().eq(prefix.bytes());
        match self.scope.iter().rev().find(|declaration| same(declaration.prefix)) {
            Some(declaration) => Some(declaration.namespace),
            None if prefix.is_empty() => Some(Namespace::NONE),
            None if prefix == "xml" => Some(Namespace::XML),
            None => None,
        }
    }

    /// `QName` (Namespaces §4).
    fn name(&mut self) -> Result<Name<'a>> {
        let start = self.at;
        let first = ncname_len(self.tree.source, start);
        let mut colon = None;
        let mut len = first;
        if first > 0 && self.bytes.get(start + first) == Some(&b':') {
            let second = ncname_len(self.tree.source, start + first + 1);
            colon = Some(first);
            len = if second > 0 { first + 1 + second } else { 0 };
        }
        if len == 0 {
            return self.fail(Rule::Syntax, "a name with at most one prefix belongs here");
        }
        if len > self.limits.name_max {
            return self.fail(Rule::NameTooLong, "this name is too long");
        }
        self.at += len;
        Ok(Name::new(&self.tree.source[start..start + len], colon))
    }

    fn ncname(&mut self) -> &'a str {
        let start = self.at;
        self.at += ncname_len(self.tree.source, start);
        &self.tree.source[start..self.at]
    }

    fn equals(&mut self) -> Result<()> {
        self.spaces();
        if self.peek() != Some(b'=') {
            return self.fail(Rule::Syntax, "a value belongs here");
        }
        self.at += 1;
        self.spaces();
        Ok(())
    }

    fn quote(&mut self) -> Result<u8> {
        match self.peek() {
            Some(quote @ (b'"' | b'\'')) => {
                self.at += 1;
                Ok(quote)
            }
            _ => self.fail(Rule::Syntax, "a value stands in quotes"),
        }
    }

    fn spaces(&mut self) -> usize {
        let start = self.at;
        while self.peek().is_some_and(is_space) {
            self.at += 1;
        }
        self.at - start
    }

    /// Appends a node that ends here.
    fn push(&mut self, kind: Kind, start: usize, text: Text) -> Result<()> {
        let id = self.tree.nodes.len();
        if id >= self.limits.nodes_max {
            return self.fail_at(Rule::TooManyNodes, start, "there are too many nodes");
        }
        let parent = self.open.last().map_or(NOBODY, |open| open.node);
        self.tree.nodes.push(Node {
            kind,
            namespace: Namespace::NONE,
            name: Name::NONE,
            text,
            parent,
            after: id as NodeId + 1,
            start: start as u32,
            end: self.at as u32,
            attributes: (0, 0),
            canonical_tag_end: 0,
            canonical_end_tag: false,
            declarations: (0, 0),
        });
        Ok(())
    }

    /// Steps to the next byte that the table names, or to the end.
    fn skip(&mut self, stops: &[bool; 256]) {
        let rest = &self.bytes[self.at..];
        self.at += rest.iter().position(|byte| stops[*byte as usize]).unwrap_or(rest.len());
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    fn fail<T>(&self, rule: Rule, text: &'static str) -> Result<T> {
        self.fail_at(rule, self.at, text)
    }

    #[cold]
    fn fail_at<T>(&self, rule: Rule, offset: usize, text: impl Into<Cow<'static, str>>) -> Result<T> {
        let xpath = self.open.last().map(|open| self.tree.xpath(open.node)).unwrap_or_default();
        Err(Malformed::new(self.bytes, rule, offset, xpath, text))
    }
}

/// Whether a namespace's name is an absolute URI by its looks: a scheme, then printable ASCII that XML needs no
/// reference for. Names that differ only by what cannot be seen are the point.
fn is_absolute_uri(name: &str) -> bool {
    let Some((scheme, rest)) = name.split_once(':') else { return false };
    let scheme_fits = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'));
    let printable = |byte: u8| {
        byte.is_ascii_graphic()
            && !matches!(byte, b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' | b'\'')
    };
    scheme_fits && !rest.is_empty() && rest.bytes().all(printable)
}

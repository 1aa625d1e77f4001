//! Why a document is refused before any policy looks at it.

use std::borrow::Cow;

/// A document that is no XML, is XML that readers disagree about, or is not one assertion to be signed. Always the
/// caller's fault. The text names what was found by kind, never by content: a value may be personal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {text} (line {line}, byte {offset}{}{xpath})", rule.name(), if xpath.is_empty() { "" } else { ", " })]
pub struct Malformed {
    /// What was broken
    pub rule: Rule,
    /// Where: bytes from the start of the document
    pub offset: usize,
    /// Where: lines, from 1
    pub line: u32,
    /// The element that was open there, `*` for names that the document alone has; empty when there was none
    pub xpath: String,
    /// A sentence about it
    pub text: Cow<'static, str>,
}

macro_rules! rules {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// What a [`Malformed`] document breaks. The names are stable.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Rule { $($(#[$doc])* $variant,)* }

        impl Rule {
            /// Every rule.
            pub const ALL: &[Rule] = &[$(Rule::$variant),*];

            /// The name by which the rule is known outside.
            pub const fn name(self) -> &'static str {
                match self { $(Rule::$variant => $name,)* }
            }
        }
    };
}

rules! {
    /// Longer than [`super::Limits::bytes_max`]
    TooLong = "too-long",
    /// Elements nested deeper than [`super::Limits::depth_max`]
    TooDeep = "too-deep",
    /// More elements, texts and comments than [`super::Limits::nodes_max`]
    TooManyNodes = "too-many-nodes",
    /// More attributes than [`super::Limits`] takes, of one element or in all
    TooManyAttributes = "too-many-attributes",
    /// More namespace declarations than [`super::Limits`] takes, in scope or in all
    TooManyNamespaces = "too-many-namespaces",
    /// A name longer than [`super::Limits::name_max`] bytes
    NameTooLong = "name-too-long",
    /// Not UTF-8, or declared to be in another encoding
    Encoding = "encoding",
    /// A code point that XML 1.0 §2.2 excludes
    Character = "character",
    /// Not well-formed (XML 1.0)
    Syntax = "syntax",
    /// A document type declaration
    Doctype = "doctype",
    /// A reference to an entity other than the five predefined ones
    Entity = "entity",
    /// A processing instruction, anywhere
    ProcessingInstruction = "processing-instruction",
    /// An attribute given twice, by name or by namespace and local name
    DuplicateAttribute = "duplicate-attribute",
    /// A prefix that is not declared
    NamespaceUndeclared = "namespace-undeclared",
    /// `xml` or `xmlns`, or their namespaces, in a declaration
    NamespaceReserved = "namespace-reserved",
    /// A namespace's name that is no absolute URI of printable ASCII, or is spelt with references
    NamespaceName = "namespace-name",
    /// A prefix bound to a second namespace inside the scope of the first
    NamespaceRebound = "namespace-rebound",
    /// A prefix everybody knows (`saml`, `ds`, `xs`...) bound to something else
    NamespaceMisused = "namespace-misused",
    /// `xml:id` or `xml:base`, or another attribute of the XML namespace without a meaning here
    XmlAttribute = "xml-attribute",
    /// An ID that is no NCName, or an element with two of them
    Id = "id",
    /// The same ID twice, under whatever spelling of the attribute
    DuplicateId = "duplicate-id",
    /// An XML signature is in the document already
    AlreadySigned = "already-signed",
    /// Something encrypted, that no policy can read
    Encrypted = "encrypted",
    /// More than one Assertion, or one in a place of its own choosing
    SeveralAssertions = "several-assertions",
    /// No Assertion
    NoAssertion = "no-assertion",
    /// An element where the schema, or the part of it that is supported, has none
    UnexpectedElement = "unexpected-element",
    /// An attribute where the schema has none
    UnexpectedAttribute = "unexpected-attribute",
    /// More elements of a name in one place than any assertion in use has
    TooManyElements = "too-many-elements",
    /// Text between elements where only white space belongs
    UnexpectedText = "unexpected-text",
    /// A comment, CDATA or an element inside a text that readers must agree on, or white space around it
    BrokenText = "broken-text",
    /// An element or attribute that must be there is not
    Missing = "missing",
    /// An assertion that is not of SAML 2.0
    Version = "version",
    /// An `xsi:type` that is none of the known, or whose prefix is not declared by the Assertion itself, or whose value is
    /// written in a way that readers of the type read differently
    Type = "type",
    /// A prefix in content, whose meaning no signature of exclusive canonical XML protects
    PrefixInContent = "prefix-in-content",
}

impl Malformed {
    pub(crate) fn new(
        source: &[u8],
        rule: Rule,
        offset: usize,
        xpath: String,
        text: impl Into<Cow<'static, str>>,
    ) -> Malformed {
        let before = &source[..offset.min(source.len())];
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count() as u32;
        Malformed { rule, offset, line, xpath, text: text.into() }
    }
}

//! The assertion as a policy reads it: typed access to the very tree that is digested.
//!
//! Everything here is a small copyable handle. What is optional in the schema is an `Option` or an iterator; what the
//! shape demands is there. Values are told exactly as they are: no trimming, no decoding of base64.

use super::tree::{Kind, Namespace, NodeId, Tree};

/// One element of the document.
#[derive(Clone, Copy, Debug)]
pub struct Element<'d> {
    pub(super) tree: &'d Tree<'d>,
    pub(super) id: NodeId,
}

impl<'d> Element<'d> {
    /// The name without its prefix.
    pub fn local_name(self) -> &'d str {
        self.tree.node(self.id).name.local()
    }

    /// The namespace's name; empty for none.
    pub fn namespace(self) -> &'d str {
        self.tree.namespace(self.tree.node(self.id).namespace)
    }

    /// The value of an attribute in no namespace.
    pub fn attribute(self, name: &str) -> Option<&'d str> {
        let attributes = self.tree.attributes(self.tree.node(self.id));
        let found = attributes.iter().find(|attribute| attribute.name.qualified == name);
        found.map(|attribute| self.tree.text(attribute.value))
    }

    /// The elements right inside this one.
    pub fn children(self) -> impl Iterator<Item = Element<'d>> + Clone {
        let tree = self.tree;
        tree.children(self.id)
            .filter(move |child| tree.node(*child).kind == Kind::Element)
            .map(move |id| Element { tree, id })
    }

    /// The first run of characters right inside this element: all of its text where the shape demands one text.
    pub fn text(self) -> &'d str {
        let mut texts = self.tree.children(self.id).map(|child| self.tree.node(child));
        let first = texts.find(|child| child.kind == Kind::Text);
        first.map_or("", |child| self.tree.text(child.text))
    }

    /// The element's path: `/samlp:Response/saml:Assertion/saml:Subject`; `*` for names that the document alone has.
    pub fn xpath(self) -> String {
        self.tree.xpath(self.id)
    }

    /// First byte of the element in the document.
    pub fn offset(self) -> usize {
        self.tree.node(self.id).start as usize
    }

    fn named(self, name: &'static str) -> impl Iterator<Item = Element<'d>> + Clone {
        self.children().filter(move |child| {
            let node = child.tree.node(child.id);
            node.namespace == Namespace::SAML && node.name.local() == name
        })
    }
}

macro_rules! handles {
    ($($(#[$doc:meta])* $name:ident,)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub struct $name<'d>(pub(super) Element<'d>);

        impl<'d> $name<'d> {
            /// The element itself, for its path and what has no function of its own.
            pub fn element(self) -> Element<'d> {
                self.0
            }

            /// The element's path; see [`Element::xpath`].
            pub fn xpath(self) -> String {
                self.0.xpath()
            }
        }
    )*};
}

handles! {
    /// `saml:Assertion`, the one that is signed.
    Assertion,
    /// `saml:Issuer` or `saml:NameID`: a name and how it is to be understood.
    NameId,
    /// `saml:Subject`
    Subject,
    /// `saml:SubjectConfirmation`
    SubjectConfirmation,
    /// `saml:SubjectConfirmationData`
    SubjectConfirmationData,
    /// `saml:Conditions`
    Conditions,
    /// `saml:AudienceRestriction`: all of them must be met, each by one of its audiences.
    AudienceRestriction,
    /// `saml:AuthnStatement`
    AuthnStatement,
    /// `saml:AttributeStatement`
    AttributeStatement,
    /// `saml:Attribute`
    Attribute,
    /// `saml:AttributeValue`
    AttributeValue,
}

impl<'d> Assertion<'d> {
    /// `ID`: an NCName.
    pub fn id(self) -> &'d str {
        self.0.attribute("ID").unwrap_or_default()
    }

    /// `Version`: `2.0`.
    pub fn version(self) -> &'d str {
        self.0.attribute("Version").unwrap_or_default()
    }

    /// `IssueInstant`, as written; see [`super::unix_ms`].
    pub fn issue_instant(self) -> &'d str {
        self.0.attribute("IssueInstant").unwrap_or_default()
    }

    /// `Issuer`, which every assertion has.
    pub fn issuer(self) -> NameId<'d> {
        NameId(self.0.named("Issuer").next().unwrap_or(self.0))
    }

    /// `Subject`
    pub fn subject(self) -> Option<Subject<'d>> {
        self.0.named("Subject").next().map(Subject)
    }

    /// `Conditions`
    pub fn conditions(self) -> Option<Conditions<'d>> {
        self.0.named("Conditions").next().map(Conditions)
    }

    /// Every `AuthnStatement`.
    pub fn authn_statements(self) -> impl Iterator<Item = AuthnStatement<'d>> + Clone {
        self.0.named("AuthnStatement").map(AuthnStatement)
    }

    /// Every `AttributeStatement`.
    pub fn attribute_statements(self) -> impl Iterator<Item = AttributeStatement<'d>> + Clone {
        self.0.named("AttributeStatement").map(AttributeStatement)
    }

    /// Every attribute of every statement.
    pub fn attributes(self) -> impl Iterator<Item = Attribute<'d>> + Clone {
        self.attribute_statements().flat_map(AttributeStatement::attributes)
    }
}

impl<'d> NameId<'d> {
    /// The name.
    pub fn value(self) -> &'d str {
        self.0.text()
    }

    /// `Format`
    pub fn format(self) -> Option<&'d str> {
        self.0.attribute("Format")
    }

    /// `NameQualifier`: in whose domain the name is one.
    pub fn name_qualifier(self) -> Option<&'d str> {
        self.0.attribute("NameQualifier")
    }

    /// `SPNameQualifier`: for which provider the name was made.
    pub fn sp_name_qualifier(self) -> Option<&'d str> {
        self.0.attribute("SPNameQualifier")
    }
}

impl<'d> Subject<'d> {
    /// `NameID`
    pub fn name_id(self) -> Option<NameId<'d>> {
        self.0.named("NameID").next().map(NameId)
    }

    /// Every `SubjectConfirmation`.
    pub fn confirmations(self) -> impl Iterator<Item = SubjectConfirmation<'d>> + Clone {
        self.0.named("SubjectConfirmation").map(SubjectConfirmation)
    }
}

impl<'d> SubjectConfirmation<'d> {
    /// `Method`: an identifier such as `urn:oasis:names:tc:SAML:2.0:cm:bearer`.
    pub fn method(self) -> &'d str {
        self.0.attribute("Method").unwrap_or_default()
    }

    /// `NameID` of who confirms, where that is somebody else.
    pub fn name_id(self) -> Option<NameId<'d>> {
        self.0.named("NameID").next().map(NameId)
    }

    /// `SubjectConfirmationData`
    pub fn data(self) -> Option<SubjectConfirmationData<'d>> {
        self.0.named("SubjectConfirmationData").next().map(SubjectConfirmationData)
    }
}

impl<'d> SubjectConfirmationData<'d> {
    /// `NotBefore`
    pub fn not_before(self) -> Option<&'d str> {
        self.0.attribute("NotBefore")
    }

    /// `NotOnOrAfter`
    pub fn not_on_or_after(self) -> Option<&'d str> {
        self.0.attribute("NotOnOrAfter")
    }

    /// `Recipient`
    pub fn recipient(self) -> Option<&'d str> {
        self.0.attribute("Recipient")
    }

    /// How many `ds:KeyInfo` it has.
    pub fn key_infos(self) -> usize {
        self.0.children().count()
    }

    /// `InResponseTo`
    pub fn in_response_to(self) -> Option<&'d str> {
        self.0.attribute("InResponseTo")
    }
}

impl<'d> Conditions<'d> {
    /// `NotBefore`
    pub fn not_before(self) -> Option<&'d str> {
        self.0.attribute("NotBefore")
    }

    /// `NotOnOrAfter`
    pub fn not_on_or_after(self) -> Option<&'d str> {
        self.0.attribute("NotOnOrAfter")
    }

    /// Every `AudienceRestriction`.
    pub fn audience_restrictions(self) -> impl Iterator<Item = AudienceRestriction<'d>> + Clone {
        self.0.named("AudienceRestriction").map(AudienceRestriction)
    }

    /// Whether there is a `OneTimeUse`.
    pub fn one_time_use(self) -> bool {
        self.0.named("OneTimeUse").next().is_some()
    }
}

impl<'d> AudienceRestriction<'d> {
    /// Every `Audience`, whose [`Element::text`] is the audience.
    pub fn audiences(self) -> impl Iterator<Item = Element<'d>> + Clone {
        self.0.named("Audience")
    }
}

impl<'d> AuthnStatement<'d> {
    /// `AuthnInstant`
    pub fn authn_instant(self) -> &'d str {
        self.0.attribute("AuthnInstant").unwrap_or_default()
    }

    /// `SessionIndex`
    pub fn session_index(self) -> Option<&'d str> {
        self.0.attribute("SessionIndex")
    }

    /// `SessionNotOnOrAfter`
    pub fn session_not_on_or_after(self) -> Option<&'d str> {
        self.0.attribute("SessionNotOnOrAfter")
    }

    /// `AuthnContextClassRef` of the `AuthnContext`
    pub fn class_ref(self) -> Option<&'d str> {
        self.context("AuthnContextClassRef").next().map(Element::text)
    }

    /// Every `AuthnContextDeclRef` of the `AuthnContext`
    pub fn decl_refs(self) -> impl Iterator<Item = Element<'d>> + Clone {
        self.context("AuthnContextDeclRef")
    }

    /// Every `AuthenticatingAuthority` of the `AuthnContext`
    pub fn authorities(self) -> impl Iterator<Item = Element<'d>> + Clone {
        self.context("AuthenticatingAuthority")
    }

    fn context(self, name: &'static str) -> impl Iterator<Item = Element<'d>> + Clone {
        self.0.named("AuthnContext").flat_map(move |context| context.named(name))
    }
}

impl<'d> AttributeStatement<'d> {
    /// Every `Attribute`.
    pub fn attributes(self) -> impl Iterator<Item = Attribute<'d>> + Clone {
        self.0.named("Attribute").map(Attribute)
    }
}

impl<'d> Attribute<'d> {
    /// `Name`
    pub fn name(self) -> &'d str {
        self.0.attribute("Name").unwrap_or_default()
    }

    /// `NameFormat`
    pub fn name_format(self) -> Option<&'d str> {
        self.0.attribute("NameFormat")
    }

    /// `FriendlyName`
    pub fn friendly_name(self) -> Option<&'d str> {
        self.0.attribute("FriendlyName")
    }

    /// Every `AttributeValue`.
    pub fn values(self) -> impl Iterator<Item = AttributeValue<'d>> + Clone {
        self.0.named("AttributeValue").map(AttributeValue)
    }
}

impl<'d> AttributeValue<'d> {
    /// The value as text, or `None` when it is made of elements: a policy must allow such an attribute by name.
    pub fn text(self) -> Option<&'d str> {
        if self.is_element_valued() { None } else { Some(self.0.text()) }
    }

    /// Whether the value is made of elements.
    pub fn is_element_valued(self) -> bool {
        self.0.children().next().is_some()
    }
}

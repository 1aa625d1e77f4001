//! `privilegesIntermediate`: rights and mandates as a PrivilegeList (OIO Basic Privilege Profile), in base64.

use base64::{Engine, engine::general_purpose::STANDARD};

use super::{
    CORE,
    attributes::{Attributes, Single, single},
};
use crate::{
    saml::{AnyXml, Element, Limits},
    violation::Violations,
};

/// The attribute's name below OIOSAML's prefix, and in OIOSAML 2.
pub(super) const PRIVILEGES: &str = "eid/privilegesIntermediate";
const OLD_PRIVILEGES: &str = "dk:gov:saml:attribute:Privileges_intermediate";

/// The profile's namespace, and the one it had under the agency's older name.
const NAMESPACES: [&str; 2] =
    ["http://digst.dk/oiosaml/basic_privilege_profile", "http://itst.dk/oiosaml/basic_privilege_profile"];

/// Longest list in bytes, after base64.
const LIST_MAX: usize = 64 << 10;

/// What rights are limited to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// A company, by its CVR number
    Company(String),
    /// A part of one, which does not say of which
    Part,
    /// A person
    Person,
}

impl Scope {
    /// Reads one, letter for letter: readers that look less closely must not find another.
    fn read(scope: &str) -> Option<Scope> {
        let (kind, number) = scope.strip_prefix("urn:dk:gov:saml:")?.split_once(':')?;
        let (scope, len) = match kind {
            "cvrNumberIdentifier" => (Scope::Company(number.to_owned()), 8),
            "seNumberIdentifier" => (Scope::Part, 8),
            "productionUnitIdentifier" => (Scope::Part, 10),
            "cprNumberIdentifier" => (Scope::Person, 10),
            _ => return None,
        };
        (number.len() == len && number.bytes().all(|byte| byte.is_ascii_digit())).then_some(scope)
    }

    /// Whether it is a company or a part of one.
    pub(super) fn is_of_company(&self) -> bool {
        *self != Scope::Person
    }
}

/// What an assertion gives rights for.
pub(super) enum Privileges {
    Read(Vec<Scope>),
    /// There is a list that cannot be read: what cannot be read here could be read elsewhere
    Unreadable,
}

impl Privileges {
    pub(super) fn of(attributes: &Attributes<'_>) -> Privileges {
        let mut all = Vec::new();
        for (name, attribute) in attributes.iter() {
            if name.strip_prefix(CORE) != Some(PRIVILEGES) && name != OLD_PRIVILEGES {
                continue;
            }
            let Single::Value(list) = single(attribute) else { return Privileges::Unreadable };
            let Some(scopes) = scopes(list) else { return Privileges::Unreadable };
            all.extend(scopes);
        }
        Privileges::Read(all)
    }

    /// None of a list that cannot be read, which is a violation by itself.
    pub(super) fn scopes(&self) -> &[Scope] {
        match self {
            Privileges::Read(scopes) => scopes,
            Privileges::Unreadable => &[],
        }
    }

    pub(super) fn check(&self, xpath: impl FnOnce() -> String, violations: &mut Violations) {
        if matches!(self, Privileges::Unreadable) {
            let text = "the value is one PrivilegeList in base64, of PrivilegeGroups with Privilege and Constraint, and the \
                        Scope of each is that of a company, a part of one or a person";
            violations.add("privileges", xpath, text);
        }
    }
}

/// The Scope of every PrivilegeGroup, or `None` when this is no such list and nothing else: an element or attribute of
/// another name could be one to some reader.
fn scopes(list: &str) -> Option<Vec<Scope>> {
    let packed: String = list.split_ascii_whitespace().collect();
    let list = STANDARD.decode(packed).ok()?;
    let limits = Limits { bytes_max: LIST_MAX, depth_max: 4, nodes_max: 2048, ..Limits::default() };
    let document = AnyXml::parse(&list, &limits).ok()?;
    let root = document.root();
    let fits = root.local_name() == "PrivilegeList" && NAMESPACES.contains(&root.namespace());
    if !fits || !root.has_attributes(&[]) || !root.has_elements_alone() {
        return None;
    }
    let home = |element: Element<'_>| element.namespace().is_empty() || element.namespace() == root.namespace();
    let mut scopes = Vec::new();
    for group in root.children() {
        let good = |inner: Element<'_>| {
            let attributes: &[&str] = match inner.local_name() {
                "Privilege" => &[],
                "Constraint" => &["Name"],
                _ => return false,
            };
            home(inner) && inner.has_attributes(attributes) && inner.has_text_alone()
        };
        let is_group = group.local_name() == "PrivilegeGroup" && home(group) && group.has_attributes(&["Scope"]);
        if !is_group || !group.has_elements_alone() || !group.children().all(good) {
            return None;
        }
        scopes.push(Scope::read(group.attribute("Scope")?)?);
    }
    Some(scopes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(list: &str) -> Option<Vec<Scope>> {
        scopes(&STANDARD.encode(list))
    }

    #[test]
    fn a_list_in_either_namespace_is_read_and_nothing_else() {
        let group = |name: &str| format!("<{name} Scope=\"urn:dk:gov:saml:cvrNumberIdentifier:12345678\"/>");
        for namespace in NAMESPACES {
            let list = |inner: &str| format!("<b:PrivilegeList xmlns:b=\"{namespace}\">{inner}</b:PrivilegeList>");
            let both = group("PrivilegeGroup") + &group("b:PrivilegeGroup");
            let scopes = read(&list(&both)).unwrap();
            assert_eq!(scopes.len(), 2);
            assert_eq!(scopes[0], Scope::Company("12345678".to_owned()));
            assert_eq!(read(&list("")), Some(Vec::new()));
            for other in [group("Other"), group("x:PrivilegeGroup xmlns:x='urn:x'"), "<PrivilegeGroup/>".to_owned()] {
                assert_eq!(read(&list(&other)), None, "{other}");
            }
        }
        assert_eq!(read("<PrivilegeList/>"), None);
        assert_eq!(read("<!DOCTYPE a><PrivilegeList/>"), None);
        assert_eq!(scopes("not base64"), None);
        let folded = STANDARD.encode(format!("<a:PrivilegeList xmlns:a=\"{}\"/>", NAMESPACES[0])).replace('P', "\nP");
        assert_eq!(scopes(&folded), Some(Vec::new()));
    }
}

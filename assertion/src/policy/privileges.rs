//! `privilegesIntermediate`: rights and mandates as a PrivilegeList (OIO Basic Privilege Profile), in base64.

use base64::{Engine, engine::general_purpose::STANDARD};

use super::{CORE, Checked, attributes::Single};
use crate::{
    saml::{AnyXml, Limits},
    violation::Violations,
};

/// The attribute's name below OIOSAML's prefix.
pub(super) const PRIVILEGES: &str = "eid/privilegesIntermediate";

/// The profile's namespace, and the one it had under the agency's older name.
const NAMESPACES: [&str; 2] =
    ["http://digst.dk/oiosaml/basic_privilege_profile", "http://itst.dk/oiosaml/basic_privilege_profile"];

/// Longest list in bytes, after base64.
const LIST_MAX: usize = 64 << 10;

const CVR_SCOPE: &str = "urn:dk:gov:saml:cvrNumberIdentifier:";

/// Scopes of a company or a part of one.
const COMPANY_SCOPES: [&str; 3] =
    [CVR_SCOPE, "urn:dk:gov:saml:seNumberIdentifier:", "urn:dk:gov:saml:productionUnitIdentifier:"];

/// A list that is there can be read: what cannot be read here could be read elsewhere.
pub(super) fn check(checked: &Checked<'_>, violations: &mut Violations) {
    let readable = match checked.attributes.core(PRIVILEGES) {
        Single::Absent => true,
        Single::Value(list) => scopes(list).is_some(),
        Single::Other => false,
    };
    if !readable {
        let xpath = checked.attributes.xpath_of(&format!("{CORE}{PRIVILEGES}"), checked.assertion);
        violations.add(
            "privileges",
            xpath,
            "the value is one PrivilegeList of PrivilegeGroups with a Scope, in base64",
        );
    }
}

/// The Scope of every PrivilegeGroup, or `None` when this is no such list. Everything in the list is looked at: an
/// element of another name could be a group to some reader.
pub(super) fn scopes(list: &str) -> Option<Vec<String>> {
    let packed: String = list.split_ascii_whitespace().collect();
    let list = STANDARD.decode(packed).ok()?;
    let limits = Limits { bytes_max: LIST_MAX, depth_max: 8, ..Limits::default() };
    let document = AnyXml::parse(&list, &limits).ok()?;
    let root = document.root();
    if root.local_name() != "PrivilegeList" || !NAMESPACES.contains(&root.namespace()) {
        return None;
    }
    let group = |namespace: &str| namespace.is_empty() || namespace == root.namespace();
    root.children()
        .map(|child| match child.attribute("Scope") {
            Some(scope) if child.local_name() == "PrivilegeGroup" && group(child.namespace()) => Some(scope.to_owned()),
            _ => None,
        })
        .collect()
}

/// The CVR number of a scope that is a whole company.
pub(super) fn company_of(scope: &str) -> Option<&str> {
    scope.strip_prefix(CVR_SCOPE)
}

/// Whether a scope is a company or a part of one.
pub(super) fn is_of_company(scope: &str) -> bool {
    COMPANY_SCOPES.iter().any(|prefix| scope.trim_ascii_start().starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(list: &str) -> Option<Vec<String>> {
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
            assert_eq!(company_of(&scopes[0]), Some("12345678"));
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

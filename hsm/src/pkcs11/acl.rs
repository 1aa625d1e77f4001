//! POSIX access control lists, as Linux keeps them in the attribute `system.posix_acl_access`: who besides the mode
//! bits may read or write a file.

use std::{fs::File, io, os::unix::fs::MetadataExt};

use rustix::{fs::fgetxattr, io::Errno};

/// Room for 128 entries; more than that nobody needs on a secret.
const ATTRIBUTE_LEN_MAX: usize = 4 + 8 * 128;

const VERSION: u32 = 2;
const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;
const READ_OR_WRITE: u16 = 0o6;

/// Who may read or write an open file beside its owner, root and `euid`; `None` if nobody.
pub(super) fn stranger(file: &File, euid: u32) -> io::Result<Option<String>> {
    let mut attribute = [0; ATTRIBUTE_LEN_MAX];
    match fgetxattr(file, "system.posix_acl_access", &mut attribute) {
        Ok(len) => in_acl(&attribute[..len], euid).ok_or_else(|| io::Error::other("its ACL can not be read")),
        // No ACL, or a file system without them: the mode bits are the whole truth.
        Err(Errno::NODATA | Errno::NOTSUP) => {
            let mode = file.metadata()?.mode() & 0o7777;
            Ok((mode & 0o066 != 0).then(|| format!("mode {mode:04o} lets others in")))
        }
        Err(error) => Err(error.into()),
    }
}

/// The outer `None` is an attribute that makes no sense.
fn in_acl(attribute: &[u8], euid: u32) -> Option<Option<String>> {
    let (version, entries) = attribute.split_first_chunk::<4>()?;
    let (entries, rest) = entries.as_chunks::<8>();
    if u32::from_le_bytes(*version) != VERSION || !rest.is_empty() {
        return None;
    }
    let entries = entries.iter().map(|[tag0, tag1, perm0, perm1, id @ ..]| {
        (u16::from_le_bytes([*tag0, *tag1]), u16::from_le_bytes([*perm0, *perm1]), u32::from_le_bytes(*id))
    });
    let mask = entries.clone().find(|(tag, ..)| *tag == MASK).map_or(0o7, |(_, permissions, _)| permissions);
    for (tag, permissions, id) in entries {
        let masked = permissions & mask & READ_OR_WRITE != 0;
        let stranger = match tag {
            USER_OBJ | MASK => None,
            USER if id == 0 || id == euid => None,
            USER => masked.then(|| format!("its ACL lets user {id} in")),
            GROUP_OBJ => masked.then(|| "its group is let in".to_owned()),
            GROUP => masked.then(|| format!("its ACL lets group {id} in")),
            OTHER => (permissions & READ_OR_WRITE != 0).then(|| "everybody is let in".to_owned()),
            _ => return None,
        };
        if stranger.is_some() {
            return Some(stranger);
        }
    }
    Some(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNNAMED: u32 = u32::MAX;

    fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let mut bytes = VERSION.to_le_bytes().to_vec();
        for (tag, permissions, id) in entries {
            bytes.extend(tag.to_le_bytes());
            bytes.extend(permissions.to_le_bytes());
            bytes.extend(id.to_le_bytes());
        }
        bytes
    }

    fn with(entry: (u16, u16, u32), mask: u16) -> Vec<u8> {
        let fixed = [(USER_OBJ, 4, UNNAMED), (GROUP_OBJ, 0, UNNAMED), (MASK, mask, UNNAMED), (OTHER, 0, UNNAMED)];
        acl(&[&fixed[..1], &[entry], &fixed[1..]].concat())
    }

    #[test]
    fn a_systemd_credential_is_its_unit_s_own() {
        // What systemd gives a unit with User=: root's file, mode 0440, and an entry for the unit's user.
        assert_eq!(in_acl(&with((USER, 4, 990), 4), 990), Some(None));
        assert!(in_acl(&with((USER, 4, 990), 4), 991).unwrap().unwrap().contains("user 990"));
    }

    #[test]
    fn only_what_the_mask_lets_through_counts() {
        assert_eq!(in_acl(&with((USER, 7, 1000), 1), 990), Some(None));
        assert!(in_acl(&with((USER, 7, 1000), 2), 990).unwrap().is_some());
        assert!(in_acl(&with((GROUP, 4, 100), 4), 990).unwrap().unwrap().contains("group 100"));
        assert_eq!(in_acl(&with((GROUP, 4, 100), 0), 990), Some(None));
    }

    #[test]
    fn groups_and_everybody_are_strangers() {
        let group = acl(&[(USER_OBJ, 6, UNNAMED), (GROUP_OBJ, 4, UNNAMED), (OTHER, 0, UNNAMED)]);
        assert!(in_acl(&group, 990).unwrap().is_some());
        let other = acl(&[(USER_OBJ, 6, UNNAMED), (GROUP_OBJ, 0, UNNAMED), (OTHER, 4, UNNAMED)]);
        assert!(in_acl(&other, 990).unwrap().is_some());
    }

    #[test]
    fn what_can_not_be_read_is_not_taken_for_an_acl() {
        assert_eq!(in_acl(b"", 0), None);
        assert_eq!(in_acl(&[3, 0, 0, 0], 0), None);
        assert_eq!(in_acl(&acl(&[(0x40, 4, UNNAMED)]), 0), None);
        assert_eq!(in_acl(&[&acl(&[]), &[0][..]].concat(), 0), None);
    }
}

//! The few pieces of DER (X.690) that keys and ECDSA signatures are made of. Lengths up to 65,535, low tags only.

pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const BIT_STRING: u8 = 0x03;
#[cfg(feature = "pkcs11")]
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const SEQUENCE: u8 = 0x30;
/// `[0]`, constructed: the version of an X.509 certificate.
const EXPLICIT_0: u8 = 0xa0;

/// Reads elements off the front. Every method gives `None` for what is no DER, and never panics.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Reader(bytes)
    }

    /// The next element's contents, which must have this tag.
    pub(crate) fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        let (found, contents, _) = self.element()?;
        (found == tag).then_some(contents)
    }

    /// The next element whole, header included.
    pub(crate) fn whole(&mut self, tag: u8) -> Option<&'a [u8]> {
        let (found, _, whole) = self.element()?;
        (found == tag).then_some(whole)
    }

    /// Passes over a certificate's explicit version, if it is there.
    pub(crate) fn skip_version(&mut self) -> Option<()> {
        if self.0.first() == Some(&EXPLICIT_0) {
            self.element()?;
        }
        Some(())
    }

    /// An INTEGER that is not negative, without leading zeros (so zero is empty).
    pub(crate) fn unsigned(&mut self) -> Option<&'a [u8]> {
        match self.expect(INTEGER)? {
            [0] => Some(&[]),
            [0, rest @ ..] if rest[0] & 0x80 != 0 => Some(rest),
            [0, ..] | [] => None,
            value if value[0] & 0x80 != 0 => None,
            value => Some(value),
        }
    }

    /// A BIT STRING of whole bytes.
    pub(crate) fn bits(&mut self) -> Option<&'a [u8]> {
        match self.expect(BIT_STRING)? {
            [0, bytes @ ..] => Some(bytes),
            _ => None,
        }
    }

    /// Nothing may follow.
    pub(crate) fn end(self) -> Option<()> {
        self.0.is_empty().then_some(())
    }

    fn element(&mut self) -> Option<(u8, &'a [u8], &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (len, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81 => (usize::from(*rest.first().filter(|len| **len >= 0x80)?), &rest[1..]),
            0x82 => {
                let len = u16::from_be_bytes([*rest.first()?, *rest.get(1)?]);
                (usize::from(len), (len > 0xff).then_some(&rest[2..])?)
            }
            _ => return None,
        };
        let (contents, after) = rest.split_at_checked(len)?;
        let whole = &self.0[..self.0.len() - after.len()];
        self.0 = after;
        Some((tag, contents, whole))
    }
}

/// Appends an element whose contents are these parts, one after the other. At most 65,535 bytes.
pub(crate) fn write(out: &mut Vec<u8>, tag: u8, parts: &[&[u8]]) {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    debug_assert!(len <= 0xffff, "keys and signatures are shorter");
    out.push(tag);
    match len {
        0..=0x7f => out.push(len as u8),
        0x80..=0xff => out.extend([0x81, len as u8]),
        _ => out.extend([0x82, (len >> 8) as u8, len as u8]),
    }
    parts.iter().for_each(|part| out.extend_from_slice(part));
}

/// Appends a big-endian number as INTEGER.
pub(crate) fn write_unsigned(out: &mut Vec<u8>, number: &[u8]) {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    match &number[zeros..] {
        [] => write(out, INTEGER, &[&[0]]),
        digits if digits[0] & 0x80 != 0 => write(out, INTEGER, &[&[0], digits]),
        digits => write(out, INTEGER, &[digits]),
    }
}

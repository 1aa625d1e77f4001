//! The CBOR of the protocol: RFC 8949 §4.2.1 (deterministic), and of that only unsigned integers, byte and text
//! strings, arrays, maps with unsigned keys, true and false.
//!
//! [`Reader`] decodes and validates in one pass and borrows what it can; nothing is allocated by a length that the
//! remaining bytes can not hold.

use crate::Code;

/// How deep arrays and maps may nest, the body's own map included.
pub const DEPTH_MAX: u8 = 6;

/// Unknown keys from here on are skipped, below they are an error.
pub const EXTENSION_KEY_MIN: u64 = 64;

/// Why a body was refused: what was wrong, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {offset}")]
pub struct DecodeError {
    /// [`Code::Malformed`], or [`Code::BadInput`] and [`Code::BadBatch`] for a limit of the Hello
    pub code: Code,
    /// Byte of the body
    pub offset: usize,
    /// What was wrong, in a few words
    pub what: &'static str,
}

/// Checks that the bytes are exactly one data item of the protocol's CBOR, whatever it means.
pub fn check(bytes: &[u8]) -> Result<(), DecodeError> {
    let mut reader = Reader::new(bytes);
    reader.skip()?;
    reader.end()
}

const UINT: u8 = 0;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;
const FALSE: u8 = 0xf4;
const TRUE: u8 = 0xf5;

type Result<T, E = DecodeError> = std::result::Result<T, E>;

/// Reads one body from front to back.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    depth: u8,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Reader { bytes, at: 0, depth: 0 }
    }

    /// Nothing may follow.
    pub(crate) fn end(&self) -> Result<()> {
        if self.at == self.bytes.len() { Ok(()) } else { Err(self.malformed("bytes after the end")) }
    }

    pub(crate) fn malformed(&self, what: &'static str) -> DecodeError {
        self.refused(Code::Malformed, what)
    }

    pub(crate) fn refused(&self, code: Code, what: &'static str) -> DecodeError {
        DecodeError { code, offset: self.at, what }
    }

    pub(crate) fn u64(&mut self) -> Result<u64> {
        self.head(UINT, "not an unsigned integer")
    }

    pub(crate) fn u32(&mut self) -> Result<u32> {
        let at = self.at;
        let value = self.u64()?;
        value.try_into().map_err(|_| malformed_at(at, "integer beyond 32 bits"))
    }

    pub(crate) fn u16(&mut self) -> Result<u16> {
        let at = self.at;
        let value = self.u64()?;
        value.try_into().map_err(|_| malformed_at(at, "integer beyond 16 bits"))
    }

    /// One of an enumeration's numbers.
    pub(crate) fn number<T>(&mut self, known: impl FnOnce(u8) -> Option<T>, what: &'static str) -> Result<T> {
        let at = self.at;
        let value = self.u64()?;
        u8::try_from(value).ok().and_then(known).ok_or(malformed_at(at, what))
    }

    pub(crate) fn bool(&mut self) -> Result<bool> {
        match self.bytes.get(self.at) {
            Some(&FALSE) => self.at += 1,
            Some(&TRUE) => {
                self.at += 1;
                return Ok(true);
            }
            _ => return Err(self.malformed("neither true nor false")),
        }
        Ok(false)
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8]> {
        let len = self.head(BYTES, "not a byte string")?;
        self.take(len)
    }

    /// A text of 1 to `max` bytes without control characters.
    pub(crate) fn text(&mut self, max: usize) -> Result<&'a str> {
        let at = self.at;
        let text = self.any_text()?;
        if text.is_empty() {
            return Err(malformed_at(at, "empty text"));
        }
        if text.len() > max {
            return Err(malformed_at(at, "text too long"));
        }
        if text.chars().any(char::is_control) {
            return Err(malformed_at(at, "control character in a text"));
        }
        Ok(text)
    }

    /// Whether a text string comes next.
    pub(crate) fn at_text(&self) -> bool {
        self.bytes.get(self.at).is_some_and(|byte| byte >> 5 == TEXT)
    }

    /// A map: `each` is called with every key, strictly rising, and must take the value.
    pub(crate) fn map(&mut self, mut each: impl FnMut(&mut Self, u64) -> Result<()>) -> Result<()> {
        let at = self.at;
        let len = self.head(MAP, "not a map")?;
        if len > self.remaining() / 2 {
            return Err(malformed_at(at, "map longer than the body"));
        }
        self.enter(at)?;
        let mut last = None;
        for _ in 0..len {
            let at = self.at;
            let key = self.head(UINT, "key of a map is not an unsigned integer")?;
            if last.is_some_and(|last| key <= last) {
                return Err(malformed_at(at, "keys of a map do not rise"));
            }
            last = Some(key);
            each(self, key)?;
        }
        self.depth -= 1;
        Ok(())
    }

    /// Skips the value of a key that nobody knows, or refuses it.
    pub(crate) fn extension(&mut self, key: u64) -> Result<()> {
        if key < EXTENSION_KEY_MIN { Err(self.malformed("unknown key")) } else { self.skip() }
    }

    /// An array of `min..=max` items, each at least `item_len_min` bytes long; `code` blames a wrong number.
    pub(crate) fn list<T>(
        &mut self,
        (min, max, code): (usize, usize, Code),
        item_len_min: u64,
        mut item: impl FnMut(&mut Self) -> Result<T>,
    ) -> Result<Vec<T>> {
        let at = self.at;
        let len = self.head(ARRAY, "not an array")?;
        if len > self.remaining() / item_len_min {
            return Err(malformed_at(at, "array longer than the body"));
        }
        let wrong = |what| DecodeError { code, offset: at, what };
        let len = usize::try_from(len).map_err(|_| wrong("too many items"))?;
        if len > max {
            return Err(wrong("too many items"));
        }
        if len < min {
            return Err(wrong("no items"));
        }
        self.enter(at)?;
        let mut items = Vec::with_capacity(len);
        for _ in 0..len {
            items.push(item(self)?);
        }
        self.depth -= 1;
        Ok(items)
    }

    fn any_text(&mut self) -> Result<&'a str> {
        let len = self.head(TEXT, "not a text")?;
        let at = self.at;
        std::str::from_utf8(self.take(len)?).map_err(|_| malformed_at(at, "text is not UTF-8"))
    }

    /// Steps over one item of any type.
    fn skip(&mut self) -> Result<()> {
        let at = self.at;
        let Some(first) = self.bytes.get(at) else { return Err(self.malformed("body ends early")) };
        match first >> 5 {
            UINT => self.u64().map(drop),
            BYTES => self.bytes().map(drop),
            TEXT => self.any_text().map(drop),
            ARRAY => {
                let len = self.head(ARRAY, "not an array")?;
                if len > self.remaining() {
                    return Err(malformed_at(at, "array longer than the body"));
                }
                self.enter(at)?;
                for _ in 0..len {
                    self.skip()?;
                }
                self.depth -= 1;
                Ok(())
            }
            MAP => self.map(|reader, _| reader.skip()),
            7 => self.bool().map(drop),
            _ => Err(self.malformed("negative integer or tag")),
        }
    }

    fn enter(&mut self, at: usize) -> Result<()> {
        if self.depth == DEPTH_MAX {
            return Err(malformed_at(at, "nested too deep"));
        }
        self.depth += 1;
        Ok(())
    }

    fn remaining(&self) -> u64 {
        (self.bytes.len() - self.at) as u64
    }

    fn take(&mut self, len: u64) -> Result<&'a [u8]> {
        if len > self.remaining() {
            return Err(self.malformed("string longer than the body"));
        }
        let bytes = &self.bytes[self.at..][..len as usize];
        self.at += bytes.len();
        Ok(bytes)
    }

    /// The argument of an item of the wanted major type (RFC 8949 §3), in its shortest form.
    #[inline]
    fn head(&mut self, major: u8, what: &'static str) -> Result<u64> {
        let at = self.at;
        let Some(&first) = self.bytes.get(at) else { return Err(self.malformed("body ends early")) };
        if first >> 5 != major {
            return Err(self.malformed(what));
        }
        let (len, least) = match first & 0x1f {
            value @ 0..24 => {
                self.at += 1;
                return Ok(value.into());
            }
            24 => (1, 24),
            25 => (2, 1 << 8),
            26 => (4, 1 << 16),
            27 => (8, 1 << 32),
            31 => return Err(self.malformed("indefinite length")),
            _ => return Err(self.malformed("reserved length")),
        };
        let Some(bytes) = self.bytes.get(at + 1..at + 1 + len) else { return Err(self.malformed("body ends early")) };
        let value = bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte));
        if value < least {
            return Err(self.malformed("integer or length not in its shortest form"));
        }
        self.at += 1 + len;
        Ok(value)
    }
}

fn malformed_at(offset: usize, what: &'static str) -> DecodeError {
    DecodeError { code: Code::Malformed, offset, what }
}

/// Writes the same subset.
pub(crate) struct Writer<'o>(pub(crate) &'o mut Vec<u8>);

impl Writer<'_> {
    pub(crate) fn uint(&mut self, value: impl Into<u64>) {
        self.head(UINT, value.into());
    }

    pub(crate) fn bool(&mut self, value: bool) {
        self.0.push(if value { TRUE } else { FALSE });
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.head(BYTES, bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.head(TEXT, text.len() as u64);
        self.0.extend_from_slice(text.as_bytes());
    }

    pub(crate) fn array(&mut self, len: usize) {
        self.head(ARRAY, len as u64);
    }

    /// The caller writes `len` pairs with rising keys.
    pub(crate) fn map(&mut self, len: usize) {
        self.head(MAP, len as u64);
    }

    #[inline]
    fn head(&mut self, major: u8, value: u64) {
        let major = major << 5;
        match value {
            0..24 => self.0.push(major | value as u8),
            24..=0xff => self.0.extend_from_slice(&[major | 24, value as u8]),
            0x100..=0xffff => {
                self.0.push(major | 25);
                self.0.extend_from_slice(&(value as u16).to_be_bytes());
            }
            0x1_0000..=0xffff_ffff => {
                self.0.push(major | 26);
                self.0.extend_from_slice(&(value as u32).to_be_bytes());
            }
            _ => {
                self.0.push(major | 27);
                self.0.extend_from_slice(&value.to_be_bytes());
            }
        }
    }
}

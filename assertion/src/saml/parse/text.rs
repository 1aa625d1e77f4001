//! Characters: attribute values, texts, CDATA sections, comments and references, made what XML 1.0 says they mean.

use super::{Parser, Result};
use crate::saml::{
    Rule,
    characters::{TEXT_STOPS, VALUE_STOPS, is_character},
    tree::{Kind, Spelling, Text},
};

impl Parser<'_, '_> {
    /// `AttValue` (§2.3), normalised as an attribute of type CDATA is (§3.3.3).
    pub(super) fn value(&mut self) -> Result<Text> {
        let quote = self.quote()?;
        let start = self.at;
        let mut spelling = Spelling::Canonical;
        let decoded = self.tree.decoded.len();
        let mut copied = start;
        loop {
            self.skip(&VALUE_STOPS);
            match self.peek() {
                Some(byte) if byte == quote => break,
                Some(b'"' | b'\'') => {
                    // Double quotes in a value between single ones are what the canonical form escapes.
                    if spelling == Spelling::Canonical {
                        spelling = Spelling::Plain;
                    }
                    self.at += 1;
                }
                Some(space @ (b'\t' | b'\n' | b'\r')) => {
                    spelling = Spelling::Decoded;
                    self.tree.decoded.push_str(&self.tree.source[copied..self.at]);
                    self.tree.decoded.push(' ');
                    self.at += 1;
                    if space == b'\r' && self.peek() == Some(b'\n') {
                        self.at += 1;
                    }
                    copied = self.at;
                }
                Some(b'&') => {
                    spelling = Spelling::Decoded;
                    self.tree.decoded.push_str(&self.tree.source[copied..self.at]);
                    let character = self.reference()?;
                    self.tree.decoded.push(character);
                    copied = self.at;
                }
                Some(b'<') => return self.fail(Rule::Syntax, "an attribute's value holds no <"),
                Some(_) => self.excluded()?,
                None => return self.fail(Rule::Syntax, "this value has no end"),
            }
        }
        let text = self.finished(start, decoded, copied, spelling);
        self.at += 1;
        Ok(text)
    }

    /// `CharData` and references (§2.4).
    pub(super) fn text(&mut self) -> Result<()> {
        let start = self.at;
        let mut spelling = Spelling::Canonical;
        let decoded = self.tree.decoded.len();
        let mut copied = start;
        loop {
            self.skip(&TEXT_STOPS);
            match self.peek() {
                Some(b'<') | None => break,
                Some(b'>') => {
                    if self.bytes[start..self.at].ends_with(b"]]") {
                        return self.fail(Rule::Syntax, "]]> ends a CDATA section that was not begun");
                    }
                    if spelling == Spelling::Canonical {
                        spelling = Spelling::Plain;
                    }
                    self.at += 1;
                }
                Some(b'\r') => {
                    spelling = Spelling::Decoded;
                    self.line_end(&mut copied);
                }
                Some(b'&') => {
                    spelling = Spelling::Decoded;
                    self.tree.decoded.push_str(&self.tree.source[copied..self.at]);
                    let character = self.reference()?;
                    self.tree.decoded.push(character);
                    copied = self.at;
                }
                Some(_) => self.excluded()?,
            }
        }
        let text = self.finished(start, decoded, copied, spelling);
        self.push(Kind::Text, start, text)
    }

    pub(super) fn cdata(&mut self) -> Result<()> {
        let markup = self.at;
        self.at += b"<![CDATA[".len();
        let start = self.at;
        // Its characters may be any that a text escapes.
        let mut spelling = Spelling::Plain;
        let decoded = self.tree.decoded.len();
        let mut copied = start;
        loop {
            self.skip(&TEXT_STOPS);
            match self.peek() {
                Some(b'>') if self.bytes[start..self.at].ends_with(b"]]") => break,
                Some(b'<' | b'&' | b'>') => self.at += 1,
                Some(b'\r') => {
                    spelling = Spelling::Decoded;
                    self.line_end(&mut copied);
                }
                Some(_) => self.excluded()?,
                None => return self.fail(Rule::Syntax, "this CDATA section has no end"),
            }
        }
        self.at -= 2;
        let text = self.finished(start, decoded, copied, spelling);
        self.at += 3;
        self.push(Kind::CData, markup, text)
    }

    /// `Comment` (§2.5). What it says has no meaning, and is in no canonical form.
    pub(super) fn comment(&mut self) -> Result<()> {
        self.at += b"<!--".len();
        loop {
            while self.peek().is_some_and(|byte| byte != b'-' && !TEXT_STOPS[byte as usize]) {
                self.at += 1;
            }
            match self.peek() {
                Some(b'-') if self.rest().starts_with(b"-->") => {
                    self.at += 3;
                    return Ok(());
                }
                Some(b'-') if self.rest().starts_with(b"--") => {
                    return self.fail(Rule::Syntax, "a comment holds no -- before its end");
                }
                Some(b'-' | b'<' | b'&' | b'>' | b'\r') => self.at += 1,
                Some(_) => self.excluded()?,
                None => return self.fail(Rule::Syntax, "this comment has no end"),
            }
        }
    }

    /// Puts down what a CR, or CR and LF, means (§2.11).
    fn line_end(&mut self, copied: &mut usize) {
        self.tree.decoded.push_str(&self.tree.source[*copied..self.at]);
        self.tree.decoded.push('\n');
        self.at += 1;
        if self.peek() == Some(b'\n') {
            self.at += 1;
        }
        *copied = self.at;
    }

    /// The text that began at `start` and ends here.
    fn finished(&mut self, start: usize, decoded: usize, copied: usize, spelling: Spelling) -> Text {
        let (start, end) = if spelling == Spelling::Decoded {
            self.tree.decoded.push_str(&self.tree.source[copied..self.at]);
            (decoded, self.tree.decoded.len())
        } else {
            (start, self.at)
        };
        Text { start: start as u32, end: end as u32, spelling }
    }

    /// `CharRef` or one of the five predefined entities (§4.1, §4.6).
    fn reference(&mut self) -> Result<char> {
        let start = self.at;
        // The longest one with a meaning has ten bytes, but for leading zeros.
        let Some(len) = self.rest().iter().take(16).position(|byte| *byte == b';') else {
            return self.fail(Rule::Syntax, "this reference has no end");
        };
        let name = &self.tree.source[start + 1..start + len];
        self.at += len + 1;
        let character = match name {
            "amp" => '&',
            "lt" => '<',
            "gt" => '>',
            "apos" => '\'',
            "quot" => '"',
            _ => {
                let Some(number) = name.strip_prefix('#') else {
                    return self.fail_at(Rule::Entity, start, "amp, lt, gt, apos and quot are the only entities");
                };
                let (digits, radix) = number.strip_prefix('x').map_or((number, 10), |digits| (digits, 16));
                let code = if digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                    u32::from_str_radix(digits, radix).ok()
                } else {
                    None
                };
                match code.and_then(char::from_u32).filter(|character| is_character(*character)) {
                    Some(character) => character,
                    None => return self.fail_at(Rule::Character, start, "this reference is to no character of XML"),
                }
            }
        };
        Ok(character)
    }

    /// Steps over a character beginning with 0xEF that XML does not exclude.
    fn excluded(&mut self) -> Result<()> {
        let character = self.tree.source[self.at..].chars().next().expect("a byte is left");
        if !is_character(character) {
            return self.fail(Rule::Character, "XML excludes this character");
        }
        self.at += character.len_utf8();
        Ok(())
    }
}

//! Which bytes and code points XML 1.0 (fifth edition) takes where.

/// Bytes that end a run of text, or need a closer look: `<`, `&`, `>`, CR, controls, and 0xEF, with which the two
/// excluded code points U+FFFE and U+FFFF begin.
pub(super) static TEXT_STOPS: [bool; 256] = stops(b"<&>\r");

/// The same in an attribute's value, where white space is normalised too.
pub(super) static VALUE_STOPS: [bool; 256] = stops(b"<&\"'\t\n\r");

/// Bytes of names in ASCII, the colon not among them.
static NAME_BYTES: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        table[byte as usize] = (byte as u8).is_ascii_alphanumeric() || matches!(byte as u8, b'-' | b'.' | b'_');
        byte += 1;
    }
    table
};

const fn stops(markup: &[u8]) -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 0x20 {
        table[byte] = !matches!(byte as u8, b'\t' | b'\n' | b'\r');
        byte += 1;
    }
    let mut at = 0;
    while at < markup.len() {
        table[markup[at] as usize] = true;
        at += 1;
    }
    table[0xEF] = true;
    table
}

/// `S` (§2.3).
pub(super) const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// `Char` (§2.2); a surrogate is no `char`.
pub(super) const fn is_character(character: char) -> bool {
    matches!(character, '\t' | '\n' | '\r' | ' '..='\u{FFFD}' | '\u{10000}'..)
}

/// Bytes of the `NCName` (Namespaces in XML 1.0 §3) at the start of `text`; 0 when there is none.
pub(super) fn ncname_len(text: &str, from: usize) -> usize {
    let bytes = text.as_bytes();
    let mut at = from;
    match bytes.get(at) {
        Some(byte) if byte.is_ascii_alphabetic() || *byte == b'_' => at += 1,
        Some(byte) if !byte.is_ascii() => {}
        _ => return 0,
    }
    loop {
        while bytes.get(at).is_some_and(|byte| NAME_BYTES[*byte as usize]) {
            at += 1;
        }
        // Nearly every name ends here, before anything has to be decoded.
        if bytes.get(at).is_none_or(u8::is_ascii) {
            break;
        }
        let Some(character) = text[at..].chars().next() else { break };
        let fits = if at == from { starts_name(character) } else { continues_name(character) };
        if !fits {
            break;
        }
        at += character.len_utf8();
    }
    at - from
}

/// Whether the whole of `text` is an `NCName`.
pub(super) fn is_ncname(text: &str) -> bool {
    !text.is_empty() && ncname_len(text, 0) == text.len()
}

/// `NameStartChar` (§2.3) beyond ASCII.
fn starts_name(character: char) -> bool {
    matches!(character,
        '\u{C0}'..='\u{D6}' | '\u{D8}'..='\u{F6}' | '\u{F8}'..='\u{2FF}' | '\u{370}'..='\u{37D}'
        | '\u{37F}'..='\u{1FFF}' | '\u{200C}'..='\u{200D}' | '\u{2070}'..='\u{218F}' | '\u{2C00}'..='\u{2FEF}'
        | '\u{3001}'..='\u{D7FF}' | '\u{F900}'..='\u{FDCF}' | '\u{FDF0}'..='\u{FFFD}'
        | '\u{10000}'..='\u{EFFFF}')
}

/// `NameChar` (§2.3) beyond ASCII.
fn continues_name(character: char) -> bool {
    starts_name(character) || matches!(character, '\u{B7}' | '\u{300}'..='\u{36F}' | '\u{203F}'..='\u{2040}')
}

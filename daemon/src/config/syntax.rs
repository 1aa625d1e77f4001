//! Finds every syntax error, and makes what is sound readable in spite of them.
//!
//! The parser's own recovery guesses values and loses the rest of the file after some errors. So the first error's
//! line is blanked, which moves nothing, and the file is parsed again. A broken `[section]` line takes what follows
//! with it, up to the next one: it would be read as belonging to the section before.

use std::ops::Range;

use toml::de::DeTable;

/// Most syntax errors that are told. Whoever has more has given the wrong file.
const ERRORS_MAX: usize = 50;

/// A file's errors, and what can be read of it.
pub(super) struct Source {
    /// As long as the file, without the broken lines; sound TOML, or none when blanking did not lead there
    pub(super) readable: Option<String>,
    /// By place
    pub(super) errors: Vec<SyntaxError>,
}

pub(super) struct SyntaxError {
    pub(super) offset: usize,
    pub(super) message: String,
}

impl Source {
    pub(super) fn new(text: &str) -> Source {
        let mut readable = text.to_owned();
        let mut errors = Vec::new();
        while let Some(error) = first_error(&readable) {
            let broken = broken(&readable, error.offset);
            errors.push(error);
            if errors.len() == ERRORS_MAX || readable[broken.clone()].trim().is_empty() {
                return Source { readable: None, errors };
            }
            let blank: String =
                readable[broken.clone()].bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }).collect();
            readable.replace_range(broken, &blank);
        }
        Source { readable: Some(readable), errors }
    }
}

fn first_error(text: &str) -> Option<SyntaxError> {
    let (_, errors) = DeTable::parse_recoverable(text);
    let place = |error: &toml::de::Error| error.span().map_or(text.len(), |span| span.start);
    let first = errors.iter().min_by_key(|error| place(error))?;
    Some(SyntaxError { offset: place(first), message: first.message().to_owned() })
}

/// The line around the offset, or the section that it begins.
fn broken(text: &str, offset: usize) -> Range<usize> {
    let bytes = text.as_bytes();
    let offset = offset.min(bytes.len());
    let start = bytes[..offset].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let line_end =
        |from: usize| bytes[from..].iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| from + at);
    let is_header = |from: usize| text[from..].trim_start_matches([' ', '\t']).starts_with('[');
    let mut end = line_end(start);
    if is_header(start) {
        while end < bytes.len() && !is_header(end + 1) {
            end = line_end(end + 1);
        }
    }
    start..end
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> (Vec<usize>, Option<String>) {
        let source = Source::new(text);
        let line = |error: &SyntaxError| text[..error.offset].matches('\n').count() + 1;
        (source.errors.iter().map(line).collect(), source.readable)
    }

    #[test]
    fn each_broken_line_is_told_once_and_the_others_stay_where_they_are() {
        let text = "a = å\nb \"x\"\nc = 1\nd = \"open\ne = 2\n";
        let (lines, readable) = lines(text);
        assert_eq!(lines, [1, 2, 4]);
        let readable = readable.unwrap();
        assert_eq!(
            (readable.len(), readable.find("c = 1"), readable.trim()),
            (text.len(), text.find("c = 1"), "c = 1\n         \ne = 2")
        );
    }

    #[test]
    fn a_broken_section_line_takes_its_section_with_it() {
        let (lines, readable) = lines("[a]\nx = 1\n[b\nx = 2\n[c]\nx = 3\n");
        assert_eq!(lines, [3]);
        assert_eq!(readable.unwrap().split_whitespace().collect::<String>(), "[a]x=1[c]x=3");
    }

    #[test]
    fn the_wrong_file_is_not_told_line_by_line() {
        let (lines, readable) = lines(&"no toml\n".repeat(2 * ERRORS_MAX));
        assert_eq!((lines.len(), readable), (ERRORS_MAX, None));
    }

    proptest::proptest! {
        #[test]
        fn any_text_comes_to_an_end(text in "[\\[\\]a=\"'#,{}\n é1.]{0,60}") {
            let source = Source::new(&text);
            if let Some(readable) = source.readable {
                proptest::prop_assert_eq!(readable.len(), text.len());
                proptest::prop_assert!(DeTable::parse(&readable).is_ok());
            }
        }
    }
}

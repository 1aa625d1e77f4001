//! What an operator reads, to the letter.

use super::{MINIMAL, Site};

#[test]
fn every_mistake_of_a_file_is_told_at_once_with_its_place() {
    let said = Site::new().findings(include_str!("mistakes.toml"));
    let expected = include_str!("mistakes.txt");
    for (said, expected) in said.lines().zip(expected.lines()) {
        assert_eq!(said, expected);
    }
    assert_eq!(said, expected.trim_end());
}

#[test]
fn a_syntax_error_hides_nothing_on_other_lines_and_invents_nothing() {
    let text = MINIMAL
        .replace("certificate = \"server.pem\"", "certificate = server.pem")
        .replace("directory = \"journal\"", "directory \"journal\"")
        .replace("purpose = \"digest\"", "purpose = \"digests\"");
    let said = Site::new().findings(&text);
    assert_eq!(
        said,
        "\
DIR/segld.toml:6:15: error: string values must be quoted, expected literal string
    hint: see https://toml.io: text needs quotes, every line is `name = value` or a [section]
DIR/segld.toml:11:11: error: key with no value, expected `=`
    hint: see https://toml.io: text needs quotes, every line is `name = value` or a [section]
DIR/segld.toml:21:11: error: `purpose` must be one of \"digest\", \"assertion\", \"jws\", \"certificate\", \"self-test\", not \
         \"digests\"
    hint: did you mean \"digest\"?
3 errors, 0 warnings"
    );
}

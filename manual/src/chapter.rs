//! A chapter of a Markdown document.

/// The text under `## TITLE`, up to the next chapter; its sections become chapters.
///
/// # Errors
/// There is no such chapter.
pub(crate) fn of(document: &str, title: &str) -> Result<String, String> {
    let mut chapters = document.split("\n## ").skip(1);
    let found = chapters.find_map(|chapter| chapter.strip_prefix(title)?.strip_prefix('\n'));
    Ok(found.ok_or_else(|| format!("there is no chapter {title:?}"))?.replace("\n### ", "\n## "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chapter_ends_where_the_next_begins() {
        let document = "# Title\n\n## one\n\nfirst\n\n### part\n\nmore\n\n## one more\n\nsecond\n";
        assert_eq!(of(document, "one").unwrap(), "\nfirst\n\n## part\n\nmore\n");
        assert_eq!(of(document, "one more").unwrap(), "\nsecond\n");
        assert!(of(document, "two").is_err());
    }
}

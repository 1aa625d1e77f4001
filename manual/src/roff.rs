//! Markdown as a man page, in the macros of man(7): headings, paragraphs, lists, code, and tables as lists, since a
//! terminal is too narrow for columns of sentences.

use pulldown_cmark::{CodeBlockKind, Event, HeadingLevel, Options, Parser, Tag, TagEnd};

/// What a page says of itself.
pub(crate) struct Head<'a> {
    pub(crate) name: &'a str,
    pub(crate) section: &'a str,
    pub(crate) date: &'a str,
    pub(crate) source: &'a str,
    pub(crate) manual: &'a str,
    /// In a few words, as `apropos` shows it
    pub(crate) what: &'a str,
}

/// The page. A document's own title (`# ...`) is left out: the head has it.
pub(crate) fn page(head: &Head<'_>, markdown: &str) -> String {
    let Head { name, section, date, source, manual, what } = head;
    let name = escaped(name);
    let out = format!(
        ".TH \"{}\" {section} \"{date}\" \"{source}\" \"{manual}\"\n.SH NAME\n{name} \\- {}\n.SH DESCRIPTION\n",
        name.to_uppercase().replace("\\-", "-"),
        escaped(what)
    );
    let mut writer = Writer { out, ..Writer::default() };
    for event in Parser::new_ext(markdown, Options::ENABLE_TABLES) {
        writer.take(event);
    }
    writer.out
}

#[derive(Default)]
struct Writer {
    out: String,
    /// The text of the block that is being read
    line: String,
    /// For each list around it the next number, or none where it is not numbered
    lists: Vec<Option<u64>>,
    /// The next paragraph is an item's first, and has its mark already
    marked: bool,
    /// In a document's own title
    title: bool,
    columns: Vec<String>,
    cells: Vec<String>,
}

impl Writer {
    fn take(&mut self, event: Event<'_>) {
        match event {
            Event::Start(tag) => self.start(tag),
            Event::End(tag) => self.end(tag),
            Event::Text(text) => self.line.push_str(&escaped(&text)),
            Event::Code(text) => self.line.push_str(&format!("\\fB{}\\fP", escaped(&text))),
            Event::SoftBreak => self.line.push(' '),
            Event::HardBreak => self.line.push_str("\n.br\n"),
            // Rules, and HTML, of which docs/ has none.
            _ => {}
        }
    }

    fn start(&mut self, tag: Tag<'_>) {
        match tag {
            Tag::Heading { level, .. } => self.title = level == HeadingLevel::H1,
            Tag::Paragraph if self.marked => self.marked = false,
            Tag::Paragraph => self.macros(if self.lists.is_empty() { ".PP" } else { ".IP" }),
            Tag::Strong => self.line.push_str("\\fB"),
            Tag::Emphasis => self.line.push_str("\\fI"),
            Tag::List(first) => {
                self.flush();
                if !self.lists.is_empty() {
                    self.macros(".RS 4");
                }
                self.lists.push(first);
            }
            Tag::Item => {
                self.flush();
                let mark = match self.lists.last_mut() {
                    Some(Some(number)) => {
                        *number += 1;
                        format!("{}.", *number - 1)
                    }
                    _ => "\\(bu".to_owned(),
                };
                self.macros(&format!(".IP {mark} 4"));
                self.marked = true;
            }
            Tag::CodeBlock(CodeBlockKind::Fenced(_) | CodeBlockKind::Indented) => {
                self.flush();
                self.macros(".PP\n.RS 4\n.nf");
            }
            Tag::Table(_) => self.columns.clear(),
            Tag::TableHead | Tag::TableRow => self.cells.clear(),
            _ => {}
        }
    }

    fn end(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::Heading(level) => {
                let heading = std::mem::take(&mut self.line);
                let macros = if level <= HeadingLevel::H2 { ".SH" } else { ".SS" };
                if !std::mem::take(&mut self.title) {
                    self.macros(&format!("{macros} \"{}\"", heading.replace('"', "\\(dq")));
                }
            }
            TagEnd::Paragraph | TagEnd::Item => self.flush(),
            TagEnd::Strong | TagEnd::Emphasis => self.line.push_str("\\fP"),
            TagEnd::List(_) => {
                self.flush();
                self.lists.pop();
                self.macros(if self.lists.is_empty() { ".PP" } else { ".RE" });
            }
            TagEnd::CodeBlock => {
                self.flush();
                self.macros(".fi\n.RE");
            }
            TagEnd::TableCell => self.cells.push(std::mem::take(&mut self.line)),
            TagEnd::TableHead => self.columns = std::mem::take(&mut self.cells),
            TagEnd::TableRow => self.row(),
            TagEnd::Table => self.macros(".PP"),
            _ => {}
        }
    }

    /// A row is its first cell, and below it the others with their columns' titles.
    fn row(&mut self) {
        let mut cells = std::mem::take(&mut self.cells).into_iter();
        let first = cells.next().unwrap_or_default();
        self.macros(".TP");
        self.line = first;
        self.flush();
        let titles = std::mem::take(&mut self.columns);
        let filled = titles.iter().skip(1).zip(cells).filter(|(_, cell)| !cell.is_empty());
        for (index, (title, cell)) in filled.enumerate() {
            if index > 0 {
                self.macros(".br");
            }
            self.line = format!("\\fI{title}\\fP: {cell}");
            self.flush();
        }
        self.columns = titles;
    }

    fn macros(&mut self, text: &str) {
        self.out.push_str(text);
        self.out.push('\n');
    }

    /// Writes the text that was gathered; a line that begins like a macro is kept from being one.
    fn flush(&mut self) {
        let text = std::mem::take(&mut self.line);
        for line in text.lines() {
            if line.starts_with(['.', '\'']) && line != ".br" {
                self.out.push_str("\\&");
            }
            self.out.push_str(line);
            self.out.push('\n');
        }
    }
}

/// Text as troff takes it literally: an ASCII hyphen stays one, so that what is copied from a page still works.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(markdown: &str) -> String {
        let head = Head { name: "x", section: "7", date: "d", source: "s", manual: "m", what: "w" };
        page(&head, markdown).split_once(".SH DESCRIPTION\n").expect("every page has one").1.to_owned()
    }

    #[test]
    fn headings_paragraphs_and_marks() {
        let text = body("# Title\n\n## Part\n\nOne *two* **three** `--four`\nfive.\n\n### Less\n\n.not a macro\n");
        assert_eq!(
            text,
            ".SH \"Part\"\n.PP\nOne \\fItwo\\fP \\fBthree\\fP \\fB\\-\\-four\\fP five.\n.SS \"Less\"\n.PP\n\\&.not a macro\n"
        );
    }

    #[test]
    fn a_table_is_a_list_of_its_rows() {
        let text = body("| setting | default | why |\n| --- | --- | --- |\n| `a` | | it is |\n| b | 1 | so |\n");
        assert_eq!(text, ".TP\n\\fBa\\fP\n\\fIwhy\\fP: it is\n.TP\nb\n\\fIdefault\\fP: 1\n.br\n\\fIwhy\\fP: so\n.PP\n");
    }

    #[test]
    fn lists_and_code_keep_their_form() {
        let text = body("1. one\n2. two\n   - deep\n\n```sh\na \\\n  .b\n'c\n```\n");
        assert_eq!(
            text,
            ".IP 1. 4\none\n.IP 2. 4\ntwo\n.RS 4\n.IP \\(bu 4\ndeep\n.RE\n.PP\n\
             .PP\n.RS 4\n.nf\na \\e\n  .b\n\\&'c\n.fi\n.RE\n"
        );
    }
}

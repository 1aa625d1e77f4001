//! The page: one file, nothing fetched.

use std::fmt::Write as _;

use segl_tests::Result;

use super::{Report, Table};

const STYLE: &str = "\
:root{color-scheme:light}\
body{font:15px/1.5 system-ui,sans-serif;color:#222;background:#f6f6f4;margin:0}\
main{max-width:940px;margin:0 auto;padding:32px 24px 64px}\
h1{font-size:22px;line-height:1.3;margin:0 0 8px}\
h2{font-size:16px;margin:0 0 12px}\
.mark{color:#666;font-size:13px;letter-spacing:.04em;text-transform:uppercase}\
ul{margin:8px 0 24px;padding-left:20px;color:#444}\
section{background:#fff;border:1px solid #e3e3df;border-radius:8px;padding:20px 24px;margin:0 0 20px;overflow-x:auto}\
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}\
th,td{text-align:left;padding:5px 14px 5px 0;border-bottom:1px solid #eee;white-space:pre}\
th{font-weight:600;color:#555}\
td:not(:first-child){font-family:ui-monospace,monospace;font-size:13px;white-space:pre-wrap}\
svg{max-width:100%;height:auto;display:block}\
footer,details{color:#666;font-size:13px}\
pre{white-space:pre-wrap;font-size:12px}";

pub(super) fn page(report: &Report) -> Result<String> {
    let mut body = String::new();
    write!(body, "<div class=\"mark\">segl-bench {}</div><h1>{}</h1>", report.command, escaped(&report.title))?;
    body.push_str("<ul>");
    for note in &report.notes {
        write!(body, "<li>{}</li>", escaped(note))?;
    }
    body.push_str("</ul>");
    for (title, table) in &report.tables {
        write!(body, "<section><h2>{}</h2>{}</section>", escaped(title), rows(table))?;
    }
    for chart in &report.charts {
        write!(body, "<section><h2>{}</h2>{}</section>", escaped(&chart.title), chart.svg()?)?;
    }
    let machine = super::machine();
    let text = |name: &str| match &machine[name] {
        serde_json::Value::String(text) => escaped(text),
        other => other.to_string(),
    };
    write!(
        body,
        "<footer>{}, {} cores, Linux {}; load average at the end {}. <code>segl-bench {}</code></footer>",
        text("cpu"),
        text("cores"),
        text("kernel"),
        text("load_average_at_end"),
        escaped(&std::env::args().skip(1).collect::<Vec<_>>().join(" "))
    )?;
    let data = serde_json::to_string_pretty(&report.data)?;
    write!(body, "<details><summary>All figures</summary><pre>{}</pre></details>", escaped(&data))?;
    Ok(format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{}</title>\
         <meta name=\"viewport\" content=\"width=device-width\"><style>{STYLE}</style></head>\
         <body><main>{body}</main></body></html>\n",
        escaped(&report.title)
    ))
}

fn rows(table: &Table) -> String {
    let row = |cells: &[String], tag: &str| {
        let cells: String = cells.iter().map(|cell| format!("<{tag}>{}</{tag}>", escaped(cell))).collect();
        format!("<tr>{cells}</tr>")
    };
    let rows: String = table.rows.iter().map(|cells| row(cells, "td")).collect();
    format!("<table>{}{rows}</table>", row(&table.heads, "th"))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

//! Every configuration in the documentation is sound, and the manual's defaults are the defaults.

use std::{fs, path::Path};

use super::{MINIMAL, Site, minimal_and};

/// The repository's `docs`.
fn docs(name: &str) -> String {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs")).join(name);
    fs::read_to_string(path).unwrap()
}

/// Reads a sample as if the site were the host it was written for.
fn assert_sound(what: &str, text: &str) {
    let site = Site::new();
    let here = |name: &str| site.path(name).to_string_lossy().into_owned();
    fs::copy(site.path("pin"), site.path("credentials/pin")).unwrap();
    fs::copy(site.path("server.key"), site.path("credentials/tls-key")).unwrap();
    for certificate in ["documents.pem", "login-2026.pem", "login-2027.pem"] {
        site.certify(certificate);
    }
    let text = text.replace("/usr/lib/softhsm/libsofthsm2.so", &here("module.so")).replace("/var/lib/segl", &here("."));
    let (config, findings) = site.read(&text);
    assert!(config.is_some() && findings.is_empty(), "{what}: {findings}");
}

#[test]
fn the_sample_file_is_sound() {
    assert_sound("docs/samples/segld.toml", &docs("samples/segld.toml"));
}

fn examples(manual: &str) -> Vec<&str> {
    manual.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

#[test]
fn every_example_in_the_manuals_is_sound() {
    let configuration = docs("CONFIGURATION.md");
    // What stands in the broker's chapter is the broker's.
    let chapter = configuration.split("\n## ").find(|chapter| chapter.starts_with("segld\n")).unwrap();
    assert!(examples(chapter).len() > 1);
    for example in [examples(chapter), examples(&docs("OPERATIONS.md"))].concat() {
        // A part stands beside the shortest configuration.
        let text = if example.contains("[tls]") { example.to_owned() } else { minimal_and(example) };
        assert_sound(example, &text);
    }
}

/// Name and default of each setting in the manual's section.
fn settings(manual: &str, section: &str) -> Vec<(String, String)> {
    let rows = manual.split("\n### ").find_map(|part| part.strip_prefix(&format!("`[{section}]`\n"))).unwrap();
    let cells = |row: &str| {
        let mut cells = row.strip_prefix("| `")?.split('|').map(|cell| cell.trim().trim_matches('`').to_owned());
        Some((cells.next()?, cells.next()?))
    };
    rows.lines().filter_map(cells).collect()
}

#[test]
fn the_manual_tells_every_limit_and_its_default() {
    let (manual, site) = (docs("CONFIGURATION.md"), Site::new());
    let defaults = site.config(MINIMAL);
    for section in ["limits", "pool"] {
        let (_, findings) = site.read(&minimal_and(&format!("[{section}]\nnothing-like-it = 1\n")));
        let hint = &findings.iter().next().unwrap().hint;
        let known: Vec<_> = hint.split("known here: ").nth(1).unwrap().split(", ").collect();
        let told = settings(&manual, section);
        assert_eq!(told.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), known);
        for (name, default) in told {
            let config = site.config(&minimal_and(&format!("[{section}]\n{name} = {default}\n")));
            assert_eq!(config.limits, defaults.limits, "{name}");
            assert_eq!(config.pool, defaults.pool, "{name}");
        }
    }
}

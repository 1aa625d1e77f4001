//! The program itself, on a segld of the development profile: that it connects, signs, verifies, and tells errors.

use std::process::{Command, Output};

use segl_tests::{
    documents,
    site::{FIRST, P256, SECOND, Site, Token},
};

fn load(site: &Site, tenant: &str, arguments: &[&str]) -> Output {
    let pki = site.dir.join("pki");
    let mut bench = Command::new(env!("CARGO_BIN_EXE_segl-bench"));
    bench.args(["load", "--address", &site.segld.to_string(), "--duration-s", "0.3", "--warm-up-s", "0.1"]);
    bench.arg("--ca").arg(pki.join("servers-ca.pem")).arg("--certificate").arg(pki.join(format!("{tenant}.pem")));
    bench.arg("--private-key").arg(pki.join(format!("{tenant}.key"))).args(arguments);
    bench.output().expect("segl-bench is built before its tests")
}

#[test]
fn load_signs_verifies_and_tells_errors_by_its_exit_status() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::create(dir.path(), Token::Embedded, &[]).unwrap();
    let _segld = site.start_segld().unwrap();
    let (json, html) = (dir.path().join("load.json"), dir.path().join("load.html"));
    let (to_json, to_html) = (json.to_str().unwrap(), html.to_str().unwrap());
    let sign = format!("{P256}=ecdsa-p256-sha256");

    let all = ["--sign", &sign, "--verify", "all", "--in-flight", "8", "--json", to_json, "--html", to_html];
    let output = load(&site, FIRST, &all);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let results: serde_json::Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    let results = &results["results"];
    assert!(results["signatures"].as_u64().unwrap() > 0, "{results}");
    assert_eq!(results["verified"]["good"], results["signatures"]);
    assert_eq!(results["verified"]["wrong"], 0);
    assert!(std::fs::read_to_string(html).unwrap().contains("<svg"));

    let open = ["--sign", &sign, "--rate", "200", "--batch", "4", "--connections", "2"];
    assert!(load(&site, FIRST, &open).status.success());

    // Not an algorithm of this key: each request is refused.
    let refused = ["--sign", &format!("{P256}=rsa-pss-sha256"), "--in-flight", "1"];
    assert_eq!(load(&site, SECOND, &refused).status.code(), Some(1));
    let unknown = load(&site, SECOND, &["--sign", "seal-rsa=rsa-pss-sha256"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("there is no key seal-rsa"));
}

#[test]
fn load_has_assertions_and_jws_signed_by_keys_whose_rules_take_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::create(dir.path(), Token::Embedded, &[]).unwrap();
    documents::add(&mut site).unwrap();
    let _segld = site.start_segld().unwrap();
    let assertions = format!("{}=ecdsa-p256-sha256", documents::LOGIN);
    let tokens = format!("{}=ecdsa-p256-sha256", documents::TOKENS);
    for (sign, operation, judged) in [(assertions, "assertion", "by xmlsec1"), (tokens, "jws", "verified")] {
        let output = load(&site, FIRST, &["--sign", &sign, "--operation", operation, "--in-flight", "4"]);
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()).concat();
        assert!(output.status.success() && said.contains(judged), "{operation}: {said}");
    }
    let other = load(&site, FIRST, &["--sign", &format!("{P256}=ed25519"), "--operation", "assertion"]);
    assert_eq!(other.status.code(), Some(2));
}

//! Signing without a record is for benches, and for nobody else by mistake.

use super::{MINIMAL, Site};

fn unrecorded(text: &str) -> String {
    text.replace("directory = \"journal\"", "directory = \"journal\"\nunrecorded_for_benchmarks = true")
}

#[test]
fn signing_without_a_record_is_for_this_host_and_never_passes_in_silence() {
    let site = Site::new();
    assert!(!site.config(MINIMAL).audit.unrecorded_for_benchmarks);
    let text = unrecorded(MINIMAL);
    assert!(site.config(&text).audit.unrecorded_for_benchmarks);
    let (_, findings) = site.read(&text);
    assert!(!findings.fatal() && findings.to_string().contains("NOTHING IS RECORDED"), "{findings}");
    for addresses in ["[\"127.0.0.1:7443\", \"192.0.2.1:7443\"]", "[\"0.0.0.0:7443\"]", "[]"] {
        let (config, findings) = site.read(&text.replace("[\"127.0.0.1:7443\"]", addresses));
        assert!(config.is_none() && findings.to_string().contains("clients from beyond this host"), "{findings}");
    }
}

#[test]
fn only_a_token_labelled_for_benches_signs_without_a_record() {
    let site = Site::new();
    let with_token = |label: &str| {
        let pkcs11 = format!(
            "kind = \"pkcs11\"\nmodule = \"module.so\"\nuri = \"pkcs11:token={label}\"\npin_file = \"pin\"\nsessions = 2"
        );
        let embedded = "kind = \"embedded\"\ndirectory = \"keys\"\n\
                        generate = [{ file = \"documents.pem\", type = \"ec-p256\" }]";
        let text = MINIMAL.replace(embedded, &pkcs11);
        unrecorded(&text.replace("file = \"documents.pem\"", "uri = \"pkcs11:object=documents\""))
    };
    let (config, findings) = site.read(&with_token("segl-bench"));
    assert!(config.is_some(), "{findings}");
    let (config, findings) = site.read(&with_token("production"));
    assert!(config.is_none() && findings.to_string().contains("its keys might matter"), "{findings}");
}

//! The `openssl` command as the judge of signatures: it makes the digest itself, from the document.

use std::process::Command;

use crate::{Result, run};

/// Verifies a signature over `document` by the key in `spki_der`. ECDSA signatures are DER (RFC 3279 §2.2.3).
///
/// `algorithm` is one of Segl's names, such as `rsa-pss-sha256`. An error tells what openssl said.
pub fn verify(algorithm: &str, spki_der: &[u8], document: &[u8], signature: &[u8]) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let file = |name: &str, content: &[u8]| -> Result<std::path::PathBuf> {
        let path = dir.path().join(name);
        std::fs::write(&path, content)?;
        Ok(path)
    };
    let (spki, document) = (file("public.der", spki_der)?, file("document", document)?);
    let signature = file("signature", signature)?;
    let public = dir.path().join("public.pem");
    let mut convert = Command::new("openssl");
    run(convert.args(["pkey", "-pubin", "-inform", "DER", "-in"]).arg(&spki).arg("-out").arg(&public))?;

    let mut openssl = Command::new("openssl");
    if algorithm == "ed25519" {
        openssl.args(["pkeyutl", "-verify", "-pubin", "-rawin", "-inkey"]).arg(&public);
        openssl.arg("-sigfile").arg(&signature).arg("-in").arg(&document);
    } else {
        let hash = algorithm.rsplit('-').next().unwrap_or_default();
        openssl.args(["dgst", &format!("-{hash}"), "-verify"]).arg(&public);
        if algorithm.starts_with("rsa-pss-") {
            openssl.args(["-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest"]);
        }
        openssl.arg("-signature").arg(&signature).arg(&document);
    }
    run(&mut openssl).map_err(|error| format!("{algorithm}: {error}"))?;
    Ok(())
}

/// The digest that an algorithm signs, or the document itself for `ed25519`.
pub fn input_of(algorithm: &str, document: &[u8]) -> Result<Vec<u8>> {
    let Some(hash) = algorithm.rsplit('-').next().filter(|hash| hash.starts_with("sha")) else {
        return Ok(document.to_vec());
    };
    let mut file = tempfile::NamedTempFile::new()?;
    std::io::Write::write_all(&mut file, document)?;
    run(Command::new("openssl").args(["dgst", "-binary", &format!("-{hash}")]).arg(file.path()))
}

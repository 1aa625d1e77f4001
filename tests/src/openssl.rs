//! The `openssl` command as the judge of signatures: it makes the digest itself, from the document.

use std::process::Command;

use crate::{Result, run};

/// A public key (SubjectPublicKeyInfo, DER) as PEM.
pub fn public_pem(spki_der: &[u8]) -> Result<Vec<u8>> {
    let dir = tempfile::tempdir()?;
    let spki = dir.path().join("public.der");
    std::fs::write(&spki, spki_der)?;
    run(Command::new("openssl").args(["pkey", "-pubin", "-inform", "DER", "-in"]).arg(&spki))
}

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

/// `ECDSA-Sig-Value` (RFC 3279 §2.2.3) of `r || s`.
pub fn ecdsa_der(raw: &[u8]) -> Vec<u8> {
    let integer = |bytes: &[u8]| {
        let significant = &bytes[bytes.iter().take_while(|byte| **byte == 0).count()..];
        let sign = if significant.first().is_none_or(|byte| byte & 0x80 != 0) { &[0][..] } else { &[] };
        [&[2, (sign.len() + significant.len()) as u8], sign, significant].concat()
    };
    let (r, s) = raw.split_at(raw.len() / 2);
    let body = [integer(r), integer(s)].concat();
    let length = if body.len() < 128 { vec![body.len() as u8] } else { vec![0x81, body.len() as u8] };
    [vec![0x30], length, body].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A signature made by openssl itself, with the public key it belongs to.
    fn signed(key: &[&str], sign: &[&str], document: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let dir = tempfile::tempdir().unwrap();
        let (private, file) = (dir.path().join("key.pem"), dir.path().join("document"));
        std::fs::write(&file, document).unwrap();
        run(Command::new("openssl").arg("genpkey").args(key).arg("-out").arg(&private)).unwrap();
        let spki = Command::new("openssl").args(["pkey", "-pubout", "-outform", "DER", "-in"]).arg(&private).output();
        let signature = run(Command::new("openssl").args(sign).arg(&private).arg("-in").arg(&file));
        let signature = signature.or_else(|_| run(Command::new("openssl").args(sign).arg(&private).arg(&file)));
        (spki.unwrap().stdout, signature.unwrap())
    }

    #[test]
    fn openssl_accepts_a_signature_and_refuses_it_over_another_document() {
        let p256 = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
        let rsa = ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"];
        let pss = ["dgst", "-sha256", "-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:32", "-sign"];
        let cases: [(&str, &[&str], &[&str]); 4] = [
            ("ecdsa-p256-sha256", &p256, &["dgst", "-sha256", "-sign"]),
            ("rsa-pkcs1-sha512", &rsa, &["dgst", "-sha512", "-sign"]),
            ("rsa-pss-sha256", &rsa, &pss),
            ("ed25519", &["-algorithm", "ED25519"], &["pkeyutl", "-sign", "-rawin", "-inkey"]),
        ];
        for (algorithm, key, sign) in cases {
            let (spki, signature) = signed(key, sign, b"the document");
            verify(algorithm, &spki, b"the document", &signature).unwrap();
            verify(algorithm, &spki, b"another one", &signature).unwrap_err();
        }
        let (spki, signature) = signed(&rsa, &["dgst", "-sha256", "-sign"], b"the document");
        verify("rsa-pss-sha256", &spki, b"the document", &signature).unwrap_err();
    }

    #[test]
    fn what_an_algorithm_signs_is_the_digest_or_for_ed25519_the_document() {
        assert_eq!(input_of("ed25519", b"abc").unwrap(), b"abc");
        assert_eq!(input_of("ecdsa-p384-sha384", b"abc").unwrap().len(), 48);
        assert_eq!(input_of("rsa-pkcs1-sha256", b"abc").unwrap()[..4], [0xba, 0x78, 0x16, 0xbf]);
    }

    #[test]
    fn raw_signatures_of_every_shape_become_der() {
        let bytes = |byte: u8, len: usize| vec![byte; len];
        assert_eq!(ecdsa_der(&[1, 2]), [0x30, 6, 2, 1, 1, 2, 1, 2]);
        assert_eq!(ecdsa_der(&[0, 0x80, 0, 0x7f]), [0x30, 7, 2, 2, 0, 0x80, 2, 1, 0x7f]);
        let longest = ecdsa_der(&bytes(0x81, 132));
        assert_eq!(longest[..6], [0x30, 0x81, 138, 2, 67, 0]);
        assert_eq!(longest.len(), 141);
    }
}

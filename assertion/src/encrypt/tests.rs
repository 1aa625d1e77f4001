//! Tests of what is chosen and what is refused; that others can decrypt is tested in `tests/encryption.rs`.

use super::*;

const NOW: u64 = 1_800_000_000;
const AUDIENCE: &str = "https://sp.example/a&b";

fn certificate(algorithm: &'static rcgen::SignatureAlgorithm) -> String {
    let key = if algorithm == &rcgen::PKCS_RSA_SHA256 {
        rcgen::KeyPair::from_pem(include_str!("../../tests/keys/rsa-2048.pem")).unwrap()
    } else {
        rcgen::KeyPair::generate_for(algorithm).unwrap()
    };
    STANDARD.encode(rcgen::CertificateParams::default().self_signed(&key).unwrap().der())
}

fn descriptor(usage: &str, certificate: &str, methods: &str) -> String {
    format!(
        "<md:KeyDescriptor {usage}><ds:KeyInfo xmlns:ds=\"{XMLDSIG_URI}\"><ds:X509Data><ds:X509Certificate>\n{certificate}\n\
         </ds:X509Certificate></ds:X509Data></ds:KeyInfo>{methods}</md:KeyDescriptor>"
    )
}

fn entity(attributes: &str, descriptors: &str) -> String {
    format!(
        "<md:EntityDescriptor xmlns:md=\"urn:oasis:names:tc:SAML:2.0:metadata\" {attributes} \
         entityID=\"https://sp.example/a&amp;b\"><md:SPSSODescriptor>{descriptors}</md:SPSSODescriptor>\
         </md:EntityDescriptor>"
    )
}

fn method(uri: &str) -> String {
    format!("<md:EncryptionMethod Algorithm=\"{uri}\"/>")
}

fn read(metadata: &str) -> Result<Provider, MetadataError> {
    Provider::from_metadata(metadata.as_bytes(), Defaults::default(), NOW)
}

fn with_methods(methods: &[&str]) -> Result<(ContentMethod, KeyTransport), MetadataError> {
    let methods: String = methods.iter().map(|uri| method(uri)).collect();
    let certificate = certificate(&rcgen::PKCS_RSA_SHA256);
    let provider = read(&entity("", &descriptor("use=\"encryption\"", &certificate, &methods)))?;
    Ok((provider.content_method(), provider.key_transport()))
}

#[test]
fn methods_are_those_of_the_metadata_in_its_order_and_none_is_weak() {
    let (gcm, cbc) = (ContentMethod::Aes256Gcm.uri(), ContentMethod::Aes256Cbc.uri());
    let (oaep, mgf1p) = (methods::RSA_OAEP_URI, methods::RSA_OAEP_MGF1P_URI);
    let (rsa15, aes128) = ("http://www.w3.org/2001/04/xmlenc#rsa-1_5", "http://www.w3.org/2001/04/xmlenc#aes128-cbc");
    let triple = "http://www.w3.org/2001/04/xmlenc#tripledes-cbc";
    use ContentMethod::{Aes256Cbc, Aes256Gcm};
    use KeyTransport::{RsaOaep, RsaOaepMgf1pSha1};
    assert_eq!(with_methods(&[]), Ok((Aes256Gcm, RsaOaep)));
    assert_eq!(with_methods(&[cbc, gcm, mgf1p, oaep]), Ok((Aes256Cbc, RsaOaepMgf1pSha1)));
    assert_eq!(with_methods(&[rsa15, oaep, triple, aes128, gcm, cbc]), Ok((Aes256Gcm, RsaOaep)));
    assert_eq!(with_methods(&[cbc]), Ok((Aes256Cbc, RsaOaep)));
    assert_eq!(with_methods(&[triple, aes128]), Err(MetadataError::NoMethod("content encryption")));
    assert_eq!(with_methods(&[gcm, rsa15]), Err(MetadataError::NoMethod("key transport")));
}

#[test]
fn a_digest_that_the_metadata_names_is_used_or_the_method_is_not() {
    let with = |uri: &str, inner: &str| {
        let method = format!("<md:EncryptionMethod Algorithm=\"{uri}\">{inner}</md:EncryptionMethod>");
        let certificate = certificate(&rcgen::PKCS_RSA_SHA256);
        read(&entity("", &descriptor("", &certificate, &method))).map(|provider| provider.key_transport())
    };
    let digest = |uri: &str| format!("<ds:DigestMethod xmlns:ds=\"{XMLDSIG_URI}\" Algorithm=\"{uri}\"/>");
    let (oaep, mgf1p) = (methods::RSA_OAEP_URI, methods::RSA_OAEP_MGF1P_URI);
    assert_eq!(with(mgf1p, &digest(methods::SHA256_URI)), Ok(KeyTransport::RsaOaepMgf1pSha256));
    assert_eq!(with(oaep, &digest(methods::SHA256_URI)), Ok(KeyTransport::RsaOaep));
    assert_eq!(with(oaep, &digest(methods::SHA1_URI)), Err(MetadataError::NoMethod("key transport")));
    assert_eq!(with(mgf1p, &digest("urn:md5")), Err(MetadataError::NoMethod("key transport")));
}

#[test]
fn metadata_without_a_key_that_is_taken_is_refused() {
    let rsa = certificate(&rcgen::PKCS_RSA_SHA256);
    let ec = certificate(&rcgen::PKCS_ECDSA_P256_SHA256);
    assert_eq!(read("<a>").unwrap_err().to_string()[..28], *"the metadata is malformed: s");
    assert_eq!(read("<a/>").unwrap_err(), MetadataError::NoEntity);
    assert!(matches!(read("<!DOCTYPE a><a/>"), Err(MetadataError::Malformed(_))));
    let only_signing = entity("", &descriptor("use=\"signing\"", &rsa, ""));
    assert_eq!(read(&only_signing).unwrap_err(), MetadataError::NoEncryptionKey);
    assert_eq!(read(&entity("", &descriptor("", &ec, ""))).unwrap_err(), MetadataError::NoEncryptionKey);
    assert!(read(&entity("", &(descriptor("", &ec, "") + &descriptor("", &rsa, "")))).is_ok());
    let good = descriptor("", &rsa, "");
    assert!(read(&entity("validUntil=\"2027-02-01T00:00:00Z\"", &good)).is_ok());
    for past in ["2027-01-15T08:00:00Z", "2026-11-21T00:00:00Z", "2030-01-01T00:00:00+01:00", ""] {
        let metadata = entity(&format!("validUntil=\"{past}\""), &good);
        assert_eq!(read(&metadata).unwrap_err(), MetadataError::Expired, "{past}");
    }
    let two = entity("", &good).replace("<md:SPSSODescriptor>", "<md:SPSSODescriptor/><md:SPSSODescriptor>");
    assert_eq!(read(&two).unwrap_err(), MetadataError::NoServiceProvider);
}

#[test]
fn metadata_that_has_ended_since_it_was_read_is_for_nobody_any_more() {
    let good = descriptor("", &certificate(&rcgen::PKCS_RSA_SHA256), "");
    let metadata = entity("validUntil=\"2027-02-01T00:00:00Z\"", &good)
        .replace("<md:SPSSODescriptor", "<md:SPSSODescriptor validUntil=\"2027-01-20T00:00:00Z\"");
    let mut providers = Providers::default();
    providers.insert(read(&metadata).unwrap());
    let unsigned = signed(&format!("<s:Audience>{}</s:Audience>", AUDIENCE.replace('&', "&amp;")));
    let provider_of =
        |now| providers.provider_of(unsigned.as_bytes(), &Limits::default(), now).map(Provider::entity_id);
    let ends = 1_800_403_200; // 2027-01-20
    assert_eq!(provider_of(ends - 1), Ok(AUDIENCE));
    assert_eq!(provider_of(ends), Err(EncryptError::OutOfDate), "the earlier of the two counts");
}

fn signed(audiences: &str) -> String {
    format!(
        "<s:Assertion xmlns:s=\"{SAML_URI}\" ID=\"_1\"><s:Issuer>i</s:Issuer><ds:Signature xmlns:ds=\"{XMLDSIG_URI}\"/>\
         <s:Conditions><s:AudienceRestriction>{audiences}</s:AudienceRestriction></s:Conditions></s:Assertion>"
    )
}

#[test]
fn only_a_signed_assertion_for_a_configured_audience_is_encrypted() {
    let mut providers = Providers::default();
    let metadata = entity("", &descriptor("", &certificate(&rcgen::PKCS_RSA_SHA256), ""));
    assert!(providers.insert(read(&metadata).unwrap()).is_none());
    let encrypt = |document: &str| providers.encrypt(document.as_bytes(), &Limits::default());
    let own = "<s:Audience>https://sp.example/a&amp;b</s:Audience>";
    let encrypted = String::from_utf8(encrypt(&signed(own)).unwrap()).unwrap();
    assert!(encrypted.starts_with("<saml:EncryptedAssertion "), "{encrypted}");
    assert!(encrypted.contains("Recipient=\"https://sp.example/a&amp;b\""), "{encrypted}");
    assert!(providers.for_audience(AUDIENCE).is_some());

    let other = "<s:Audience>https://other.example/</s:Audience>";
    assert_eq!(encrypt(&signed(other)), Err(EncryptError::UnknownAudience));
    assert_eq!(encrypt(&signed("")), Err(EncryptError::Audience));
    assert_eq!(encrypt(&signed(&format!("{own}{other}"))), Err(EncryptError::Audience));
    let unsigned = signed(own).replace(&format!("<ds:Signature xmlns:ds=\"{XMLDSIG_URI}\"/>"), "");
    assert_eq!(encrypt(&unsigned), Err(EncryptError::NotSigned));
    let provider_of =
        |document: &str| providers.provider_of(document.as_bytes(), &Limits::default(), NOW).map(Provider::entity_id);
    assert_eq!(provider_of(&unsigned), Ok(AUDIENCE), "before it is signed");
    assert_eq!(provider_of(&signed(other)), Err(EncryptError::UnknownAudience));
    let two = format!("<p:Response xmlns:p=\"{SAMLP_URI}\">{0}{0}</p:Response>", signed(own));
    assert_eq!(encrypt(&two), Err(EncryptError::NotSigned));
    assert_eq!(encrypt("<a/>"), Err(EncryptError::NotSigned));
    assert!(matches!(encrypt("<a"), Err(EncryptError::Malformed(_))));
}

#[test]
fn what_stands_by_itself_declares_what_it_inherited() {
    let document = "<p:R xmlns:p=\"urn:p\" xmlns=\"urn:d\" xmlns:s=\"urn:s\"><p:M xmlns:x=\"urn:x\"><s:A\n i='1' xmlns:s=\"urn:s\"><b/></s:A></p:M></p:R>";
    let parsed = AnyXml::parse(document.as_bytes(), &Limits::default()).unwrap();
    let inner = parsed.root().children().next().unwrap().children().next().unwrap();
    let expected = "<s:A xmlns:x=\"urn:x\" xmlns:p=\"urn:p\" xmlns=\"urn:d\"\n i='1' xmlns:s=\"urn:s\"><b/></s:A>";
    assert_eq!(standalone(inner), expected);
}

/// Or else the prefix would be rendered, as one of InclusiveNamespaces, in an assertion that is decrypted in place.
#[test]
fn the_prefix_around_an_assertion_is_none_that_means_something_in_it_alone() {
    let of = |document: &str| {
        let parsed = AnyXml::parse(document.as_bytes(), &Limits::default()).unwrap();
        wrapper_prefix(parsed.root())
    };
    assert_eq!(of(&format!("<saml:Assertion xmlns:saml=\"{SAML_URI}\"/>")), "saml");
    assert_eq!(of(&format!("<Assertion xmlns=\"{SAML_URI}\"/>")), "saml");
    assert_eq!(of(&format!("<Assertion xmlns=\"{SAML_URI}\"><a xmlns:saml=\"{SAML_URI}\"/></Assertion>")), "saml2");
    assert_eq!(of(&format!("<Assertion xmlns=\"{SAML_URI}\" xmlns:saml=\"urn:x\"><saml:a/></Assertion>")), "saml2");
}

//! From a checked document to what is signed, and with the signature to the signed document.

use std::ops::Range;

use base64::{Engine, engine::general_purpose::STANDARD};

use super::{DigestMethod, SignatureMethod};

/// Longest SignatureValue for which room is made at once: RSA with 4096 bits in base64.
const VALUE_ROOM: usize = 684;

const SIGNED_INFO: &str = "<ds:SignedInfo xmlns:ds=\"http://www.w3.org/2000/09/xmldsig#\">";

/// What the Signature tells of its key: rendered once, used with every signature.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyInfo(String);

impl KeyInfo {
    /// No KeyInfo: the service provider knows the key from the metadata.
    pub const NONE: KeyInfo = KeyInfo(String::new());

    /// X509Data with these certificates (DER), the leaf first.
    pub fn x509<C: AsRef<[u8]>>(certificates: &[C]) -> KeyInfo {
        if certificates.is_empty() {
            return KeyInfo::NONE;
        }
        let mut xml = String::from("<ds:KeyInfo><ds:X509Data>");
        for certificate in certificates {
            xml.push_str("<ds:X509Certificate>");
            STANDARD.encode_string(certificate.as_ref(), &mut xml);
            xml.push_str("</ds:X509Certificate>");
        }
        xml.push_str("</ds:X509Data></ds:KeyInfo>");
        KeyInfo(xml)
    }
}

/// A signed document that lacks nothing but the value of its signature. It owns what it needs, so that it can wait for
/// the token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// The document with a Signature whose SignatureValue is empty
    document: Vec<u8>,
    /// Where the Signature is
    signature: Range<usize>,
    /// Where its value goes
    value_at: usize,
    signed_info: Vec<u8>,
    id: String,
}

/// What goes into the Signature.
pub(super) struct Parts<'a> {
    pub(super) document: &'a str,
    pub(super) signature_at: usize,
    pub(super) id: &'a str,
    pub(super) content_prefixes: &'a [&'a str],
    pub(super) signature_method: SignatureMethod,
    pub(super) digest_method: DigestMethod,
    pub(super) digest: &'a [u8],
    pub(super) key_info: &'a KeyInfo,
}

impl Prepared {
    /// The Signature is written in its canonical form, so that SignedInfo differs from what is signed only by the
    /// declaration of `ds`, which it inherits from its parent.
    pub(super) fn new(parts: &Parts<'_>) -> Prepared {
        let mut signed_info = String::with_capacity(1024);
        signed_info.push_str(SIGNED_INFO);
        write_signed_info(parts, &mut signed_info);

        let room = parts.document.len() + signed_info.len() + parts.key_info.0.len() + VALUE_ROOM + 256;
        let mut document = String::with_capacity(room);
        let (before, after) = parts.document.split_at(parts.signature_at);
        document.push_str(before);
        document.push_str("<ds:Signature xmlns:ds=\"http://www.w3.org/2000/09/xmldsig#\"><ds:SignedInfo>");
        document.push_str(&signed_info[SIGNED_INFO.len()..]);
        document.push_str("<ds:SignatureValue>");
        let value_at = document.len();
        document.push_str("</ds:SignatureValue>");
        document.push_str(&parts.key_info.0);
        document.push_str("</ds:Signature>");
        let signature = parts.signature_at..document.len();
        document.push_str(after);
        Prepared {
            document: document.into_bytes(),
            signature,
            value_at,
            signed_info: signed_info.into_bytes(),
            id: parts.id.to_owned(),
        }
    }

    /// The message to be signed: SignedInfo in its canonical form.
    pub fn signed_info(&self) -> &[u8] {
        &self.signed_info
    }

    /// The assertion's ID.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The whole document: the input byte for byte, with the Signature right after the assertion's Issuer. `value` is
    /// the signature as XML has it: of ECDSA `r || s`.
    pub fn finish(mut self, value: &[u8]) -> Vec<u8> {
        self.insert(value);
        self.document
    }

    /// The Signature alone, and the byte of the input at which it is to be inserted.
    pub fn signature_element(mut self, value: &[u8]) -> (usize, Vec<u8>) {
        self.document.truncate(self.signature.end);
        let Range { start, end } = self.signature;
        let grown = self.insert(value);
        (start, self.document[start..end + grown].to_vec())
    }

    /// Puts the value into its place; returns its length.
    fn insert(&mut self, value: &[u8]) -> usize {
        let encoded = value.len().div_ceil(3) * 4;
        let tail = self.value_at..self.document.len();
        self.document.resize(tail.end + encoded, 0);
        self.document.copy_within(tail, self.value_at + encoded);
        let room = &mut self.document[self.value_at..self.value_at + encoded];
        STANDARD.encode_slice(value, room).expect("there is room for the padded length");
        encoded
    }
}

/// SignedInfo after its start tag. An ID is an NCName and a prefix too, so nothing is there to escape.
fn write_signed_info(parts: &Parts<'_>, xml: &mut String) {
    xml.push_str(
        "<ds:CanonicalizationMethod Algorithm=\"http://www.w3.org/2001/10/xml-exc-c14n#\">\
         </ds:CanonicalizationMethod><ds:SignatureMethod Algorithm=\"",
    );
    xml.push_str(parts.signature_method.uri());
    xml.push_str("\"></ds:SignatureMethod><ds:Reference URI=\"#");
    xml.push_str(parts.id);
    xml.push_str(
        "\"><ds:Transforms>\
         <ds:Transform Algorithm=\"http://www.w3.org/2000/09/xmldsig#enveloped-signature\"></ds:Transform>\
         <ds:Transform Algorithm=\"http://www.w3.org/2001/10/xml-exc-c14n#\">",
    );
    if !parts.content_prefixes.is_empty() {
        xml.push_str("<ec:InclusiveNamespaces xmlns:ec=\"http://www.w3.org/2001/10/xml-exc-c14n#\" PrefixList=\"");
        for (index, prefix) in parts.content_prefixes.iter().enumerate() {
            if index > 0 {
                xml.push(' ');
            }
            xml.push_str(prefix);
        }
        xml.push_str("\"></ec:InclusiveNamespaces>");
    }
    xml.push_str("</ds:Transform></ds:Transforms><ds:DigestMethod Algorithm=\"");
    xml.push_str(parts.digest_method.uri());
    xml.push_str("\"></ds:DigestMethod><ds:DigestValue>");
    STANDARD.encode_string(parts.digest, xml);
    xml.push_str("</ds:DigestValue></ds:Reference></ds:SignedInfo>");
}

//! The algorithms of XML signatures that are offered, by their URIs.

use ring::digest;

/// How SignedInfo is signed. ECDSA values are `r || s` (RFC 6931 §2.3.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SignatureMethod {
    /// RSASSA-PKCS1-v1_5 with SHA-256
    RsaSha256,
    /// RSASSA-PKCS1-v1_5 with SHA-384
    RsaSha384,
    /// RSASSA-PKCS1-v1_5 with SHA-512
    RsaSha512,
    /// RSASSA-PSS with SHA-256, MGF1 with SHA-256 and a salt of 32 bytes (RFC 6931 §2.3.10)
    RsaPssSha256,
    /// RSASSA-PSS with SHA-384, MGF1 with SHA-384 and a salt of 48 bytes
    RsaPssSha384,
    /// RSASSA-PSS with SHA-512, MGF1 with SHA-512 and a salt of 64 bytes
    RsaPssSha512,
    /// ECDSA with SHA-256
    EcdsaSha256,
    /// ECDSA with SHA-384
    EcdsaSha384,
    /// ECDSA with SHA-512
    EcdsaSha512,
}

impl SignatureMethod {
    /// Every one of them.
    pub const ALL: &[SignatureMethod] = &[
        SignatureMethod::RsaSha256,
        SignatureMethod::RsaSha384,
        SignatureMethod::RsaSha512,
        SignatureMethod::RsaPssSha256,
        SignatureMethod::RsaPssSha384,
        SignatureMethod::RsaPssSha512,
        SignatureMethod::EcdsaSha256,
        SignatureMethod::EcdsaSha384,
        SignatureMethod::EcdsaSha512,
    ];

    /// The identifier in XML (RFC 6931).
    pub const fn uri(self) -> &'static str {
        match self {
            SignatureMethod::RsaSha256 => "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256",
            SignatureMethod::RsaSha384 => "http://www.w3.org/2001/04/xmldsig-more#rsa-sha384",
            SignatureMethod::RsaSha512 => "http://www.w3.org/2001/04/xmldsig-more#rsa-sha512",
            SignatureMethod::RsaPssSha256 => "http://www.w3.org/2007/05/xmldsig-more#sha256-rsa-MGF1",
            SignatureMethod::RsaPssSha384 => "http://www.w3.org/2007/05/xmldsig-more#sha384-rsa-MGF1",
            SignatureMethod::RsaPssSha512 => "http://www.w3.org/2007/05/xmldsig-more#sha512-rsa-MGF1",
            SignatureMethod::EcdsaSha256 => "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha256",
            SignatureMethod::EcdsaSha384 => "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384",
            SignatureMethod::EcdsaSha512 => "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha512",
        }
    }

    /// The method with this identifier.
    pub fn from_uri(uri: &str) -> Option<SignatureMethod> {
        Self::ALL.iter().copied().find(|method| method.uri() == uri)
    }
}

/// How the assertion is digested.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DigestMethod {
    /// SHA-256
    Sha256,
    /// SHA-384
    Sha384,
    /// SHA-512
    Sha512,
}

impl DigestMethod {
    /// Every one of them.
    pub const ALL: &[DigestMethod] = &[DigestMethod::Sha256, DigestMethod::Sha384, DigestMethod::Sha512];

    /// The identifier in XML (XML Encryption §5.7, RFC 6931 §2.1.3).
    pub const fn uri(self) -> &'static str {
        match self {
            DigestMethod::Sha256 => "http://www.w3.org/2001/04/xmlenc#sha256",
            DigestMethod::Sha384 => "http://www.w3.org/2001/04/xmldsig-more#sha384",
            DigestMethod::Sha512 => "http://www.w3.org/2001/04/xmlenc#sha512",
        }
    }

    /// The method with this identifier.
    pub fn from_uri(uri: &str) -> Option<DigestMethod> {
        Self::ALL.iter().copied().find(|method| method.uri() == uri)
    }

    pub(super) fn algorithm(self) -> &'static digest::Algorithm {
        match self {
            DigestMethod::Sha256 => &digest::SHA256,
            DigestMethod::Sha384 => &digest::SHA384,
            DigestMethod::Sha512 => &digest::SHA512,
        }
    }
}

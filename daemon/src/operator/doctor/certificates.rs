//! How long certificates and revocation lists last.

use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};

use super::{Check, Subject};
use crate::{certificate::Chain, clock};

const DAY_S: i64 = 86_400;

/// A certificate that ends within this is worth a warning.
const SOON_S: i64 = 14 * DAY_S;

/// Of a revocation list's time so much is left when somebody should look why there is no newer one: lists are made
/// every few hours by one CA and every few months by another.
const CRL_SOON: i64 = 4;

pub(super) fn checks(subject: &Subject) -> Vec<Check> {
    const NAME: &str = "certificates";
    let Some(draft) = &subject.draft else { return vec![subject.unread(NAME)] };
    let now_s = clock::unix_s();
    let mut checks = Vec::new();
    if let Some(certificate) = &draft.tls.certificate {
        checks.push(chain("TLS certificate", &certificate.content, now_s, "have a new one made, put it there, reload"));
    }
    for der in draft.tls.client_ca.iter().flat_map(|authorities| &authorities.content) {
        if let Ok((_, authority)) = X509Certificate::from_der(der) {
            let (end, name) = (authority.validity().not_after.timestamp(), format!("CA {}", authority.subject()));
            checks.push(ends(name, end, now_s, "put its successor beside it in `client_ca`, reload"));
        }
    }
    match &draft.tls.crls {
        Some(lists) if lists.is_empty() => {
            let advice = "give [tls] crls: without them a stolen client certificate is good until it expires";
            checks.push(Check::warning("CRLs", "none are configured", advice));
        }
        Some(lists) => checks.extend(lists.iter().filter_map(|list| crl(&list.content, now_s))),
        None => checks.push(Check::problem("CRLs", "not all could be read", "see `configuration` above")),
    }
    for key in &draft.keys {
        for version in &key.versions {
            if let Some(certificate) = &version.certificate {
                let name = format!("certificate of key {}", version.label(&key.name));
                checks.push(chain(
                    &name,
                    &certificate.content,
                    now_s,
                    "roll the key over: OPERATIONS.md, Rotate a signing key",
                ));
            }
        }
    }
    checks
}

fn chain(name: &str, chain: &Chain, now_s: i64, advice: &str) -> Check {
    if now_s < chain.not_before_unix_s() {
        return Check::warning(
            name,
            format!("begins {}", after(chain.not_before_unix_s() - now_s)),
            "nothing, if that is planned; else see the clock",
        );
    }
    ends(name, chain.not_after_unix_s(), now_s, advice)
}

fn ends(name: impl Into<String>, end_s: i64, now_s: i64, advice: &str) -> Check {
    match end_s - now_s {
        left if left < 0 => Check::problem(name, format!("has ended {} ago", span(-left)), advice),
        left if left < SOON_S => Check::warning(name, format!("ends {}", after(left)), advice),
        left => Check::ok(name, format!("ends {}", after(left))),
    }
}

fn crl(der: &[u8], now_s: i64) -> Option<Check> {
    let (_, list) = CertificateRevocationList::from_der(der).ok()?;
    let (name, made_s) = (format!("CRL of {}", list.issuer()), list.last_update().timestamp());
    let due_s = list.next_update()?.timestamp();
    let advice =
        "fetch the CA's current list, put it there, reload; once this one has ended all its clients are refused";
    Some(match due_s - now_s {
        left if left < 0 => Check::problem(name, format!("has ended {} ago", span(-left)), advice),
        left if left < (due_s - made_s) / CRL_SOON => Check::warning(name, format!("ends {}", after(left)), advice),
        left => Check::ok(name, format!("ends {}", after(left))),
    })
}

fn after(seconds: i64) -> String {
    format!("in {}", span(seconds))
}

fn span(seconds: i64) -> String {
    match seconds {
        seconds if seconds < 2 * 3600 => format!("{} min", seconds / 60),
        seconds if seconds < 2 * DAY_S => format!("{} h", seconds / 3600),
        seconds => format!("{} days", seconds / DAY_S),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, CertificateRevocationListParams, Issuer, KeyIdMethod, KeyPair, SerialNumber};

    use super::{super::Outcome, *};

    /// A list made so many days after the beginning of 2026, due so many after that.
    fn list(made: i64, due: i64) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let issuer = Issuer::new(params, KeyPair::generate().unwrap());
        let day = |day: i64| rcgen::date_time_ymd(2026, 1, 1) + time::Duration::days(day);
        let params = CertificateRevocationListParams {
            this_update: day(made),
            next_update: day(due),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: Vec::new(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&issuer).unwrap().der().to_vec()
    }

    #[test]
    fn a_list_is_judged_by_the_part_of_its_time_that_is_left() {
        const NEW_YEAR_S: i64 = 1_767_225_600;
        let at = |day: i64| crl(&list(0, 100), NEW_YEAR_S + day * DAY_S).unwrap().outcome;
        assert_eq!(at(70), Outcome::Ok);
        assert_eq!(at(80), Outcome::Warning);
        assert_eq!(at(101), Outcome::Problem);
    }

    #[test]
    fn the_end_of_a_certificate_is_told_in_time() {
        let at = |left_s: i64| ends("x", left_s, 0, "renew").outcome;
        assert_eq!([at(-1), at(DAY_S), at(30 * DAY_S)], [Outcome::Problem, Outcome::Warning, Outcome::Ok]);
        assert_eq!(
            (span(119 * 60), span(3 * 3600), span(40 * DAY_S)),
            ("119 min".into(), "3 h".into(), "40 days".into())
        );
    }
}

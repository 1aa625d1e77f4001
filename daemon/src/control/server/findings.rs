//! What is wrong, the worst first, and what to do about each: read off the status, so that it can be seen there too.

use crate::control::status::{Crl, Finding, Health, Key, Severity, Status, Token};

/// From when on the end of a certificate is worth a word: time enough to have another one made.
const CERTIFICATE_SOON_S: i64 = 14 * DAY_S;
/// From when on a version that is to take over should be everywhere.
const VERSION_SOON_S: i64 = 7 * DAY_S;
/// A disk that has not answered for so long.
const DISK_HANGS_MS: u64 = 5_000;
/// A list in the last part of its life should have been replaced.
const CRL_LAST_PART: i64 = 5;

const DAY_S: i64 = 86_400;

/// Whether nothing is signed, or something is wrong, or neither.
pub(super) fn health(findings: &[Finding]) -> Health {
    match findings.iter().map(|finding| finding.severity).min() {
        Some(Severity::Critical) => Health::Down,
        Some(Severity::Warning) => Health::Degraded,
        Some(Severity::Notice) | None => Health::Ok,
    }
}

/// Everything that is wrong; `unwell` is why the daemon's own threads are not well.
pub(super) fn of(status: &Status, unwell: Option<String>) -> Vec<Finding> {
    let mut findings = Findings(Vec::new());
    if let Some(why) = unwell {
        let action = "the watchdog restarts it; else systemctl restart segld. Keep journalctl -u segld";
        findings.critical(format!("segld's own threads make no progress: {why}"), action, anchor::WRONG);
    }
    journal(status, &mut findings);
    keys(status, &mut findings);
    status.tokens.iter().for_each(|token| self::token(token, &mut findings));
    tls(status, &mut findings);
    daemon(status, &mut findings);
    let Findings(mut findings) = findings;
    findings.sort_by_key(|finding| finding.severity);
    findings
}

/// Headings of docs/OPERATIONS.md.
pub(super) mod anchor {
    pub(crate) const WRONG: &str = "what-is-wrong-and-what-to-do";
    pub(crate) const TOKENS: &str = "tokens-and-what-they-go-through";
    pub(crate) const PINS: &str = "pins";
    pub(crate) const JOURNAL: &str = "the-journal";
    pub(crate) const DISK: &str = "disk-full";
    pub(crate) const CERTIFICATE: &str = "rotate-a-certificate";
    pub(crate) const CRL: &str = "revocation-lists";
    pub(crate) const RELOAD: &str = "what-a-reload-takes-and-what-wants-a-restart";
    pub(crate) const VERSIONS: &str = "rotate-a-signing-key";
    pub(crate) const CLOCK: &str = "the-clock";
    #[cfg(test)]
    pub(crate) const ALL: [&str; 10] = [WRONG, TOKENS, PINS, JOURNAL, DISK, CERTIFICATE, CRL, RELOAD, VERSIONS, CLOCK];
}

struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, severity: Severity, what: impl Into<String>, action: impl Into<String>, anchor: &str) {
        let anchor = format!("docs/OPERATIONS.md#{anchor}");
        self.0.push(Finding { severity, what: what.into(), action: action.into(), anchor });
    }

    fn critical(&mut self, what: impl Into<String>, action: impl Into<String>, anchor: &str) {
        self.add(Severity::Critical, what, action, anchor);
    }

    fn warning(&mut self, what: impl Into<String>, action: impl Into<String>, anchor: &str) {
        self.add(Severity::Warning, what, action, anchor);
    }
}

fn journal(status: &Status, findings: &mut Findings) {
    let journal = &status.journal;
    if journal.state == "full" {
        let action = "make room on its disk: signing resumes by itself within seconds";
        findings.critical("the journal's disk is full: nothing is signed", action, anchor::DISK);
    } else if journal.state != "open" {
        let why = journal.trouble.as_deref().unwrap_or("a write failed");
        let action = "check the disk, then systemctl restart segld";
        findings.critical(format!("the journal has failed, nothing is signed: {why}"), action, anchor::JOURNAL);
    } else if journal.committing_ms > DISK_HANGS_MS {
        let what = format!("the journal's disk has not answered for {} s", journal.committing_ms / 1_000);
        findings.critical(what, "see what holds the disk up: answers wait for it", anchor::JOURNAL);
    }
}

/// Whether requests go to it now.
fn in_use(key: &Key) -> bool {
    key.granted && key.phase.as_deref().is_none_or(|phase| phase == "active")
}

fn keys(status: &Status, findings: &mut Findings) {
    let used = || status.keys.iter().filter(|key| in_use(key));
    if !used().any(|key| key.state == "usable") {
        let what = match used().count() {
            0 => "no key can sign: none is granted to anybody, or none has an active version",
            _ => "NO KEY CAN SIGN",
        };
        findings.critical(what, "the tokens and keys below say why", anchor::WRONG);
    }
    for key in &status.keys {
        let label = match &key.version {
            Some(version) => format!("{}/{version}", key.name),
            None => key.name.clone(),
        };
        let why = || {
            let said = key.tokens.iter().filter(|holding| !holding.detail.is_empty());
            let said: Vec<_> = said.map(|holding| format!("{}: {}", holding.token, holding.detail)).collect();
            if said.is_empty() { String::new() } else { format!(" ({})", said.join("; ")) }
        };
        if in_use(key) && key.state != "usable" {
            let action = match key.state.as_str() {
                "expired" => "configure the new certificate, then segl reload",
                "faulty" => "compare the key's uri and certificate with what the token holds",
                _ => "bring one of its tokens back",
            };
            findings.warning(format!("key {label} can not sign: it is {}{}", key.state, why()), action, anchor::WRONG);
        } else {
            for holding in &key.tokens {
                if matches!(holding.state.as_str(), "failed" | "unfit" | "stranger") {
                    let what = format!("key {label} is not used on token {}: {}", holding.token, holding.detail);
                    let action = "compare it with the vendor's tool, or take the token out of the key's `tokens`";
                    findings.warning(what, action, anchor::WRONG);
                }
            }
        }
        if let Some(begins_s @ 0..VERSION_SOON_S) = key.begins_in_s {
            let missing = key.tokens.iter().filter(|holding| holding.state != "passed");
            let missing: Vec<_> = missing.map(|holding| &*holding.token).collect();
            if !missing.is_empty() {
                let what = format!("key {label} takes over in {} and is not on {}", span(begins_s), missing.join(", "));
                findings.warning(what, "put it there, or move its active_from", anchor::VERSIONS);
            }
        }
        if let Some(ends_s @ 0..CERTIFICATE_SOON_S) = key.certificate_ends_in_s
            && key.granted
            && key.phase.as_deref() != Some("former")
        {
            let what = format!("the certificate of key {label} ends in {}", span(ends_s));
            findings.warning(what, "have the next one made: past its end the key does not sign", anchor::VERSIONS);
        }
    }
}

fn token(token: &Token, findings: &mut Findings) {
    let name = &token.name;
    let error = token.last_error.as_ref();
    let because = error.map(|error| format!(": {}", error.text)).unwrap_or_default();
    match token.state.as_str() {
        "ready" => {}
        "needs-operator" => {
            let (action, anchor) = match error.map(|error| &*error.kind) {
                Some("pin-locked") => (
                    format!("unlock it, or reset its tries, with the vendor's tool; then segl pin retry {name}"),
                    anchor::PINS,
                ),
                Some("wrong-signature") => (
                    "treat RSA keys on it as exposed until you know more, have it looked at; then segl reload".into(),
                    anchor::WRONG,
                ),
                _ => (
                    format!(
                        "put the right PIN into its credential or file, then segl reload; if it is right already, \
                             segl pin retry {name}"
                    ),
                    anchor::PINS,
                ),
            };
            findings.warning(format!("token {name} waits for you{because}"), action, anchor);
        }
        "wedged" => {
            let action = "see that the HSM answers: then it goes on by itself. Else systemctl restart segld";
            findings.warning(format!("a call is stuck in the module of token {name}{because}"), action, anchor::TOKENS);
        }
        "away" => {
            let action = "look at network, HSM and slot; it is tried again by itself";
            findings.warning(format!("token {name} is away{because}"), action, anchor::TOKENS);
        }
        "drained" | "draining" => {
            let what = format!("token {name} is {}, at an operator's word", token.state);
            findings.warning(what, format!("when its time has come: segl token resume {name}"), anchor::TOKENS);
        }
        state => {
            let action = "nothing, unless it lasts: then network, HSM, and segl keys";
            findings.warning(format!("token {name} does not sign yet: {state}{because}"), action, anchor::TOKENS);
        }
    }
    if token.threads_stuck > 0 {
        let what = format!("{} calls are stuck inside token {name}", token.threads_stuck);
        let action = "see that the HSM answers; often: it is overloaded, or stuck_after is too short";
        findings.warning(what, action, anchor::WRONG);
    }
    if token.sessions_cap < token.sessions_configured {
        let (cap, configured) = (token.sessions_cap, token.sessions_configured);
        let what = format!("token {name} gives {cap} sessions of {configured}");
        let action = "lower `sessions`, or see who holds the others";
        findings.add(Severity::Notice, what, action, anchor::TOKENS);
    }
}

fn tls(status: &Status, findings: &mut Findings) {
    let tls = &status.tls;
    let action = "install another one, then segl reload (where it is a credential: systemctl restart segld)";
    match tls.certificate_ends_in_s {
        ..0 => {
            findings.critical("segld's own TLS certificate has ended: no client connects", action, anchor::CERTIFICATE)
        }
        ends_s @ 0..CERTIFICATE_SOON_S => {
            findings.warning(
                format!("segld's own TLS certificate ends in {}", span(ends_s)),
                action,
                anchor::CERTIFICATE,
            );
        }
        _ => {}
    }
    let ended = |crl: &Crl| crl.next_update_in_s + tls.crl_grace_s < 0;
    let all_ended = !tls.crls.is_empty() && tls.crls.iter().all(ended);
    for crl in &tls.crls {
        let issuer = &crl.issuer;
        let action = "fetch the CA's present list, then segl reload";
        if ended(crl) {
            let severity = if all_ended { Severity::Critical } else { Severity::Warning };
            let what = format!("the revocation list of {issuer} has run out: its clients are turned away");
            findings.add(severity, what, action, anchor::CRL);
        } else if crl.next_update_in_s < 0 {
            let left = span(crl.next_update_in_s + tls.crl_grace_s);
            let what = format!("the revocation list of {issuer} has run out, and is honoured for {left} more");
            findings.warning(what, action, anchor::CRL);
        } else if crl.next_update_in_s < crl.lasts_s / CRL_LAST_PART {
            let what = format!("the revocation list of {issuer} runs out in {}", span(crl.next_update_in_s));
            findings.warning(what, action, anchor::CRL);
        }
    }
}

fn daemon(status: &Status, findings: &mut Findings) {
    if let Some(reload) = status.daemon.reload.as_ref().filter(|reload| !reload.ok) {
        let first = reload.message.lines().next().unwrap_or_default();
        let what = format!("the last reload was refused, the configuration before it is in force: {first}");
        findings.warning(what, "segl check, mend it, segl reload --wait", anchor::RELOAD);
    }
    if !status.daemon.clock_synchronised {
        let what = format!("the host's clock is {}", status.daemon.clock);
        findings.warning(what, "see that the time daemon runs and reaches its servers", anchor::CLOCK);
    }
    let requests = &status.requests;
    if requests.retries_refused_1m > 0 {
        let what =
            format!("{} retries were not made in the last minute: the budget is used up", requests.retries_refused_1m);
        findings.warning(what, "take the token that fails out: segl token drain NAME", anchor::WRONG);
    }
    if requests.overloaded_1m > 0 {
        let what = format!("{} requests were refused in the last minute since too many waited", requests.overloaded_1m);
        findings.warning(what, "bring tokens back, or see which tenant asks for so much", anchor::WRONG);
    }
}

/// About how long.
fn span(seconds: i64) -> String {
    match seconds {
        DAY_S.. if seconds >= 2 * DAY_S => format!("{} days", seconds / DAY_S),
        7_200.. => format!("{} hours", seconds / 3_600),
        120.. => format!("{} minutes", seconds / 60),
        _ => format!("{seconds} seconds"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::status::{Reload, TokenError, examples::well};

    /// What is found once this has happened: the health, and the first finding.
    fn after(happen: impl FnOnce(&mut Status)) -> (Health, String) {
        let mut status = well();
        happen(&mut status);
        let found = of(&status, None);
        let first = found.first().map(|finding| format!("{} -> {}", finding.what, finding.action));
        (health(&found), first.unwrap_or_default())
    }

    #[test]
    fn nothing_is_found_where_all_is_well() {
        assert_eq!(after(|_| {}), (Health::Ok, String::new()));
    }

    #[test]
    fn what_is_wrong_is_said_with_what_to_do() {
        type Happen = fn(&mut Status);
        let cases: [(Happen, Health, &str); 16] = [
            (|s| s.daemon.clock_synchronised = false, Health::Degraded, "see that the time daemon runs"),
            (|s| s.tokens[0].state = "away".into(), Health::Degraded, "token hsm-a is away -> look at network"),
            (|s| s.tokens[1].state = "drained".into(), Health::Degraded, "segl token resume hsm-b"),
            (|s| s.tokens[0].threads_stuck = 2, Health::Degraded, "2 calls are stuck inside token hsm-a"),
            (|s| s.tokens[0].sessions_cap = 3, Health::Ok, "token hsm-a gives 3 sessions of 4"),
            (|s| s.keys[0].state = "expired".into(), Health::Degraded, "key login can not sign: it is expired"),
            (|s| s.keys.iter_mut().for_each(|k| k.state = "unavailable".into()), Health::Down, "NO KEY CAN SIGN"),
            (|s| s.keys.clear(), Health::Down, "no key can sign: none is granted"),
            (|s| s.keys[1].certificate_ends_in_s = Some(3 * DAY_S), Health::Degraded, "documents ends in 3 days"),
            (|s| s.journal.state = "full".into(), Health::Down, "make room on its disk"),
            (|s| s.journal.committing_ms = 9_000, Health::Down, "has not answered for 9 s"),
            (|s| s.tls.certificate_ends_in_s = -1, Health::Down, "no client connects"),
            (|s| s.tls.crls[0].next_update_in_s = 7_300, Health::Degraded, "CN=one runs out in 2 hours"),
            (|s| s.tls.crls[0].next_update_in_s = -60, Health::Degraded, "is honoured for 59 minutes more"),
            (|s| s.tls.crls[0].next_update_in_s = -3_700, Health::Degraded, "its clients are turned away"),
            (|s| s.requests.retries_refused_1m = 4, Health::Degraded, "the budget is used up"),
        ];
        for (happen, expected, said) in cases {
            let (health, first) = after(happen);
            assert_eq!(health, expected, "{first}");
            assert!(first.contains(said), "{first:?} does not say {said:?}");
        }
    }

    #[test]
    fn a_token_that_waits_for_its_operator_says_for_what() {
        for (kind, said) in [
            ("pin-incorrect", "put the right PIN into its credential"),
            ("pin-held-back", "segl pin retry hsm-a"),
            ("pin-locked", "unlock it"),
            ("wrong-signature", "treat RSA keys on it as exposed"),
        ] {
            let (health, first) = after(|status| {
                status.tokens[0].state = "needs-operator".into();
                let (time, text) = (String::new(), "CKR_SOMETHING".to_owned());
                status.tokens[0].last_error = Some(TokenError { time, kind: kind.into(), text });
            });
            assert!(health == Health::Degraded && first.contains(said), "{first}");
        }
    }

    #[test]
    fn the_worst_comes_first() {
        let mut status = well();
        status.tokens[0].sessions_cap = 1;
        status.tokens[0].state = "away".into();
        status.tls.crls.iter_mut().for_each(|crl| crl.next_update_in_s = -4_000);
        let reload = Reload { time: String::new(), ok: false, message: "line 3: no\nand more".into() };
        status.daemon.reload = Some(reload);
        let severities: Vec<_> = of(&status, None).iter().map(|finding| finding.severity).collect();
        use Severity::{Critical, Notice, Warning};
        assert_eq!(severities, [Critical, Critical, Warning, Warning, Notice]);
    }

    #[test]
    fn every_anchor_is_a_heading_of_the_manual() {
        let manual = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/OPERATIONS.md")).unwrap();
        let slug = |heading: &str| {
            let kept = heading.trim_start_matches('#').trim().to_lowercase();
            let kept = kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect::<String>()
        };
        let headings: Vec<_> = manual.lines().filter(|line| line.starts_with('#')).map(slug).collect();
        for anchor in anchor::ALL {
            assert!(headings.iter().any(|heading| heading == anchor), "{anchor} is not among {headings:?}");
        }
    }
}

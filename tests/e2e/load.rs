//! Clients that keep many requests in flight, and account for every one of them.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::Sender,
    },
    time::{Duration, Instant},
};

use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use segl_tests::{
    conversation::{Conversation, Frame, sign_request},
    process::Service,
    site::{P256, Site, Token},
};
use segl_wire::{Code, GoAway, Kind, Limits, Message, Signed};

use crate::room::{connect, site, spki};

/// Requests in flight on a connection.
const PIPELINED: usize = 32;

/// What became of a connection's requests.
#[derive(Debug, Default)]
pub(crate) struct Account {
    /// Every id that was written whole
    pub(crate) sent: Vec<u64>,
    /// With the reference of the request, whose digest is made from it
    pub(crate) signed: BTreeMap<u64, (String, Vec<u8>)>,
    pub(crate) refused: BTreeMap<u64, Code>,
    pub(crate) last_id: Option<u64>,
    /// The longest that an answer took
    pub(crate) slowest: Duration,
}

/// A request that is not answered yet: its reference, and when it was sent.
type Asked = (String, Instant);

impl Account {
    /// Ids that were sent, are within what GoAway promised to answer, and got no answer.
    pub(crate) fn lost(&self) -> Vec<u64> {
        let promised = self.last_id.unwrap_or(u64::MAX);
        let answered = |id: &u64| self.signed.contains_key(id) || self.refused.contains_key(id);
        self.sent.iter().copied().filter(|id| *id <= promised && !answered(id)).collect()
    }

    fn note(&mut self, frame: &Frame, limits: &Limits, asked: &mut BTreeMap<u64, Asked>) {
        let mut answered = || {
            let (reference, sent) = asked.remove(&frame.header.id).expect("an answer belongs to a request");
            self.slowest = self.slowest.max(sent.elapsed());
            reference
        };
        match frame.header.known_kind() {
            Some(Kind::Signed) => {
                let signature = Signed::decode(&frame.body, limits).unwrap().signature.into_owned();
                let reference = answered();
                assert!(self.signed.insert(frame.header.id, (reference, signature)).is_none(), "answered twice");
            }
            Some(Kind::Error) => {
                let error = segl_wire::Error::decode(&frame.body, limits).unwrap();
                answered();
                assert!(self.refused.insert(frame.header.id, error.code).is_none(), "answered twice");
            }
            Some(Kind::GoAway) => self.last_id = Some(GoAway::decode(&frame.body, limits).unwrap().last_id),
            other => panic!("a frame of type {other:?}"),
        }
    }
}

/// The digest that a reference stands for.
pub(crate) fn digest_of(reference: &str) -> [u8; 32] {
    ring::digest::digest(&ring::digest::SHA256, reference.as_bytes()).as_ref().try_into().unwrap()
}

/// Whether a signature over a reference's digest is the key's.
pub(crate) fn verifies(public_key: &[u8], reference: &str, signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, public_key).verify(reference.as_bytes(), signature).is_ok()
}

/// It is.
#[track_caller]
pub(crate) fn verify(public_key: &[u8], reference: &str, signature: &[u8]) {
    assert!(verifies(public_key, reference, signature), "{reference} has a wrong signature");
}

/// Signs with P-256 until the connection ends or `count` requests are answered; `progress` hears of every round.
pub(crate) fn run(conversation: Conversation, name: &str, count: usize, progress: &Sender<usize>) -> Account {
    run_while(conversation, name, |sent| count.saturating_sub(sent), progress)
}

/// As [`run`]; after so many requests sent, `more` says how many are still to come.
pub(crate) fn run_while(
    mut conversation: Conversation,
    name: &str,
    more: impl Fn(usize) -> usize,
    progress: &Sender<usize>,
) -> Account {
    let limits = Limits::from(conversation.hello());
    let mut account = Account::default();
    let mut asked = BTreeMap::new();
    while account.last_id.is_none() {
        let round = PIPELINED.min(more(account.sent.len()));
        if round == 0 {
            break;
        }
        for _ in 0..round {
            let reference = format!("{name}-{}", account.sent.len());
            let digest = digest_of(&reference);
            let mut request = sign_request(P256, "ecdsa-p256-sha256", &digest);
            request.meta.context.reference = Some(reference.clone().into());
            let Ok(id) = conversation.send(Kind::Sign, &request) else { return account };
            account.sent.push(id);
            asked.insert(id, (reference, Instant::now()));
        }
        while account.signed.len() + account.refused.len() < account.sent.len() {
            match conversation.receive() {
                Ok(Some(frame)) => account.note(&frame, &limits, &mut asked),
                // The end of the stream, or of the process behind it.
                Ok(None) | Err(_) => return account,
            }
        }
        // Nobody listens any more once the test has seen enough.
        let _ = progress.send(round);
    }
    account
}

pub(crate) fn resident_kib(service: &Service) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", service.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn a_hundred_thousand_signatures_are_all_there_all_sound_and_leave_no_memory_behind() {
    const CONNECTIONS: usize = 8;
    const TOTAL: usize = 100_000;
    const WARM: usize = 10_000;
    let (site, _dir) = site(Token::SoftHsm);
    let mut segld = site.start_segld().unwrap();
    let public_key = public_key(&site);
    let (progress, rounds) = std::sync::mpsc::channel();
    let verified = Arc::new(AtomicU64::new(0));
    std::thread::scope(|scope| {
        for at in 0..CONNECTIONS {
            let conversation = connect(&site, at % 2);
            let (progress, verified, public_key) = (progress.clone(), verified.clone(), &public_key);
            scope.spawn(move || {
                let account = run(conversation, &format!("many-{at}"), TOTAL / CONNECTIONS, &progress);
                assert_eq!(account.lost(), [0; 0]);
                assert_eq!(account.refused, BTreeMap::new());
                for (reference, signature) in account.signed.values() {
                    verify(public_key, reference, signature);
                    verified.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        drop(progress);
        let (mut answered, mut resident) = (0, Vec::new());
        for round in rounds {
            answered += round;
            if answered / WARM > resident.len() {
                resident.push(resident_kib(&segld));
            }
        }
        assert_eq!(answered, TOTAL);
        let (warm_kib, end_kib) = (resident[0], resident_kib(&segld));
        assert!(end_kib * 100 < warm_kib * 105, "KiB resident at every 10,000th: {resident:?}, at the end {end_kib}");
    });
    assert_eq!(verified.load(Ordering::Relaxed), TOTAL as u64);
    assert!(segld.terminate(Duration::from_secs(30)).unwrap().success());
}

/// The P-256 key's point, from ListKeys.
pub(crate) fn public_key(site: &Site) -> Vec<u8> {
    let spki = spki(&mut connect(site, 1), P256);
    // SubjectPublicKeyInfo of P-256: 26 bytes of header, then the uncompressed point.
    spki[26..].to_vec()
}

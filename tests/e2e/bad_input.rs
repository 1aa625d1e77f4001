//! Bad input: each mistake gets its own clear error or TLS alert, is counted, and disturbs nobody else.

use std::io;

use rustls::AlertDescription;
use segl_tests::{
    conversation::{Conversation, sign_request},
    openssl,
    pki::{Authority, Identity},
    process::Service,
    signing,
    site::{P256, RSA, Site, Token},
};
use segl_wire::{Code, Fault, Header, Kind, Payload, Sign, SignedState};

const DIGEST: [u8; 32] = [7; 32];

/// segld alone, with a second key that is for something else than digests.
struct Room {
    site: Site,
    _segld: Service,
    _dir: tempfile::TempDir,
}

impl Room {
    fn open() -> Self {
        Room::open_with(|_| {})
    }

    fn open_with(change: impl FnOnce(&mut Site)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut site = Site::create(&dir.path().join("site"), Token::Embedded, &[]).unwrap();
        let generate = "generate = [\n    { file = \"jws.pem\", type = \"ec-p256\" },\n";
        site.segld_toml = site.segld_toml.replace("generate = [\n", generate);
        let key = "[[key]]\nname = \"jws\"\npurpose = \"jws\"\ntokens = [\"embedded\"]\nfile = \"jws.pem\"\n\
                   algorithms = [\"ecdsa-p256-sha256\"]\n\n[[tenant]]";
        site.segld_toml = site.segld_toml.replacen("[[tenant]]", key, 1);
        let grant = "[[tenant.grant]]\nkey = \"jws\"\n[tenant.grant.jws]\nissuers = [\"https://idp.example\"]\nlifetime_max = \"10m\"\n\
                     capacity = \"not-compared\"\n[[tenant.grant]]";
        site.segld_toml = site.segld_toml.replacen("[[tenant.grant]]", grant, 1);
        change(&mut site);
        site.write().unwrap();
        let segld = site.start_segld().unwrap();
        let room = Room { site, _segld: segld, _dir: dir };
        room.neighbour().sound();
        room
    }

    fn connect(&self, identity: Option<&Identity>) -> segl_tests::Result<Conversation> {
        Conversation::open(self.site.segld, &self.site.servers.pem(), identity)
    }

    fn first(&self) -> Conversation {
        self.connect(Some(&self.site.tenants[0].identity)).unwrap()
    }

    /// Somebody who does nothing wrong.
    fn neighbour(&self) -> Neighbour {
        Neighbour(self.connect(Some(&self.site.tenants[1].identity)).unwrap())
    }

    /// What the alert says to a client with this certificate.
    fn alert(&self, identity: Option<&Identity>) -> AlertDescription {
        let error = self.connect(identity).unwrap_err();
        let error = error.downcast_ref::<io::Error>().unwrap_or_else(|| panic!("{error}"));
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::AlertReceived(alert)) => *alert,
            other => panic!("no alert: {other:?}, {error}"),
        }
    }

    fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        self.site.segld_admin().unwrap().metric(name, labels).unwrap()
    }
}

struct Neighbour(Conversation);

impl Neighbour {
    fn sound(&mut self) {
        self.0.sign(&sign_request(P256, "ecdsa-p256-sha256", &DIGEST)).unwrap().unwrap();
    }
}

fn sound() -> Sign<'static> {
    sign_request(P256, "ecdsa-p256-sha256", &DIGEST)
}

/// A body as the codec makes it, so that a test can spoil it.
fn body_of(request: &Sign<'_>) -> Vec<u8> {
    let mut frame = Vec::new();
    segl_wire::encode_frame(Kind::Sign, 1, request, &mut frame);
    frame.split_off(segl_wire::HEADER_LEN)
}

/// Spoils one request, and sees that it gets its own error, counted, while the connection and its neighbour go on.
fn one_request_fails(code: Code, request: &Sign<'_>) {
    let room = Room::open();
    let (mut conversation, mut neighbour) = (room.first(), room.neighbour());
    let error = conversation.sign(request).unwrap().unwrap_err();
    assert_eq!((error.code, error.fault, error.signed), (code, code.fault(), SignedState::No), "{error}");
    conversation.sign(&sound()).unwrap().unwrap();
    neighbour.sound();
    let outcome = format!("outcome=\"{}\"", code.name());
    assert_eq!(room.metric("segl_requests_total", &["tenant=\"town-hall\"", &outcome]), 1.0);
}

fn one_body_fails(code: Code, kind: u8, body: &[u8]) {
    let room = Room::open();
    let (mut conversation, mut neighbour) = (room.first(), room.neighbour());
    conversation.send_body(kind, body).unwrap();
    let frame = conversation.answer().unwrap();
    let error = conversation.error(&frame).unwrap();
    assert_eq!((error.code, error.fault, error.signed), (code, Fault::Client, SignedState::No), "{error}");
    conversation.sign(&sound()).unwrap().unwrap();
    neighbour.sound();
    assert_eq!(room.metric("segl_requests_total", &[&format!("outcome=\"{}\"", code.name())]), 1.0);
}

#[test]
fn a_digest_of_the_wrong_length_is_refused() {
    one_request_fails(Code::BadInput, &sign_request(P256, "ecdsa-p256-sha256", &DIGEST[..31]));
}

#[test]
fn a_message_longer_than_announced_is_refused() {
    let mut request = sound();
    request.payload = Payload::Message(vec![0; 65 * 1024].into());
    one_request_fails(Code::BadInput, &request);
}

#[test]
fn an_algorithm_that_the_key_can_not_do_is_refused() {
    one_request_fails(Code::AlgorithmNotAllowed, &sign_request(P256, "rsa-pss-sha256", &DIGEST));
}

#[test]
fn an_algorithm_that_nobody_knows_is_refused() {
    one_request_fails(Code::AlgorithmNotAllowed, &sign_request(P256, "rot13", &DIGEST));
}

#[test]
fn a_key_for_something_else_signs_no_digest() {
    one_request_fails(Code::PurposeViolated, &sign_request("jws", "ecdsa-p256-sha256", &DIGEST));
}

#[test]
fn a_key_that_is_not_granted_and_one_that_is_not_there_look_the_same() {
    let room = Room::open();
    let mut second = room.connect(Some(&room.site.tenants[1].identity)).unwrap();
    let mut refuse = |key: &str| second.sign(&sign_request(key, "rsa-pss-sha256", &DIGEST)).unwrap().unwrap_err();
    let (not_granted, not_there) = (refuse(RSA), refuse("no-such-key"));
    assert_eq!(not_granted.code, Code::NotGranted);
    assert_eq!(not_granted, not_there);
    room.neighbour().sound();
}

#[test]
fn a_class_that_is_not_granted_is_refused() {
    let room = Room::open_with(|site| {
        let grant = "[[tenant.grant]]\nkey = \"seal-rsa\"\n";
        site.segld_toml = site.segld_toml.replacen(grant, &format!("{grant}classes = [\"bulk\"]\n"), 1);
    });
    let error = room.first().sign(&sign_request(RSA, "rsa-pss-sha256", &DIGEST)).unwrap().unwrap_err();
    assert_eq!(error.code, Code::ClassNotAllowed);
    room.neighbour().sound();
}

#[test]
fn a_request_whose_time_is_over_is_not_signed() {
    let mut request = sound();
    request.meta.timeout_ms = 0;
    one_request_fails(Code::Expired, &request);
}

#[test]
fn broken_cbor_costs_that_request_alone() {
    let mut body = body_of(&sound());
    body.truncate(body.len() - 1);
    one_body_fails(Code::Malformed, Kind::Sign as u8, &body);
}

#[test]
fn bytes_after_the_body_cost_that_request_alone() {
    let mut body = body_of(&sound());
    body.push(0);
    one_body_fails(Code::Malformed, Kind::Sign as u8, &body);
}

#[test]
fn a_map_of_indefinite_length_costs_that_request_alone() {
    let mut body = body_of(&sound());
    assert_eq!(body[0] & 0xe0, 0xa0, "a body is a map");
    body[0] = 0xbf;
    body.push(0xff);
    one_body_fails(Code::Malformed, Kind::Sign as u8, &body);
}

#[test]
fn an_unknown_type_costs_that_request_alone() {
    one_body_fails(Code::UnknownType, 0x55, &[0xa0]);
}

#[test]
fn a_frame_too_long_ends_its_connection_before_its_body_has_come() {
    let room = Room::open();
    let (mut conversation, mut neighbour) = (room.first(), room.neighbour());
    let len = conversation.hello().frame_max + 1;
    conversation.send_bytes(&Header { len, kind: Kind::Sign as u8, id: 1 }.encode()).unwrap();
    assert_eq!(conversation.last_words().unwrap().code, Code::FrameTooLong);
    neighbour.sound();
    assert_eq!(room.metric("segl_protocol_errors_total", &["frame_too_long"]), 1.0);
}

#[test]
fn an_id_that_does_not_rise_ends_its_connection() {
    let room = Room::open();
    let (mut conversation, mut neighbour) = (room.first(), room.neighbour());
    conversation.sign(&sound()).unwrap().unwrap();
    let body = body_of(&sound());
    let header = Header { len: body.len() as u32, kind: Kind::Sign as u8, id: 1 };
    conversation.send_bytes(&[&header.encode(), &body[..]].concat()).unwrap();
    assert_eq!(conversation.last_words().unwrap().code, Code::BadId);
    neighbour.sound();
    assert_eq!(room.metric("segl_protocol_errors_total", &["bad_id"]), 1.0);
}

#[test]
fn a_client_without_a_certificate_is_alerted() {
    let room = Room::open();
    let mut neighbour = room.neighbour();
    assert_eq!(room.alert(None), AlertDescription::CertificateRequired);
    neighbour.sound();
    assert_eq!(room.metric("segl_tls_failures_total", &[]), 1.0);
}

#[test]
fn a_client_of_another_authority_is_alerted() {
    let room = Room::open();
    let mut neighbour = room.neighbour();
    let stranger = Authority::new("Segl clients").unwrap().client(&room.site.tenants[0].uri).unwrap();
    let alert = room.alert(Some(&stranger));
    assert!(matches!(alert, AlertDescription::UnknownCA | AlertDescription::DecryptError), "{alert:?}");
    neighbour.sound();
    assert_eq!(room.metric("segl_tls_failures_total", &[]), 1.0);
}

#[test]
fn an_expired_client_is_alerted() {
    let room = Room::open();
    let expired = room.site.clients.expired_client(&room.site.tenants[0].uri).unwrap();
    assert_eq!(room.alert(Some(&expired)), AlertDescription::CertificateExpired);
    room.neighbour().sound();
}

#[test]
fn a_revoked_client_is_alerted() {
    let room = Room::open_with(|site| {
        let revoked = [&site.tenants[0].identity];
        let crl = site.clients.crl(2, &revoked, std::time::Duration::from_secs(3600)).unwrap();
        std::fs::write(site.crl(), crl).unwrap();
    });
    assert_eq!(room.alert(Some(&room.site.tenants[0].identity)), AlertDescription::CertificateRevoked);
    room.neighbour().sound();
}

#[test]
fn a_client_of_another_protocol_is_alerted() {
    let room = Room::open();
    let identity = &room.site.tenants[0].identity;
    let error = Conversation::open_with(room.site.segld, &room.site.servers.pem(), Some(identity), b"http/1.1");
    let error = error.unwrap_err().to_string();
    assert!(error.contains("NoApplicationProtocol"), "{error}");
    room.neighbour().sound();
}

#[test]
fn a_client_without_a_tenant_is_told_so_and_gets_nothing() {
    let room = Room::open();
    let mut neighbour = room.neighbour();
    let nobody = room.site.clients.client("spiffe://segl.example/nobody").unwrap();
    let error = room.connect(Some(&nobody)).unwrap_err().to_string();
    assert!(error.contains("in place of Hello"), "{error}");
    neighbour.sound();
}

#[test]
fn what_was_signed_in_the_company_of_bad_requests_is_sound() {
    let room = Room::open();
    let mut conversation = room.first();
    let digest = openssl::input_of("sha256", b"a document").unwrap();
    let mut ids = Vec::new();
    for _ in 0..20 {
        conversation.send_body(Kind::Sign as u8, &[0xff]).unwrap();
        ids.push(conversation.send(Kind::Sign, &sign_request(P256, "ecdsa-p256-sha256", &digest)).unwrap());
        conversation.send(Kind::Sign, &sign_request("no-such-key", "ecdsa-p256-sha256", &digest)).unwrap();
    }
    let mut signatures = Vec::new();
    for _ in 0..60 {
        let frame = conversation.receive().unwrap().unwrap();
        if frame.header.known_kind() == Some(Kind::Signed) {
            assert!(ids.contains(&frame.header.id));
            let limits = segl_wire::Limits::from(conversation.hello());
            let signed = <segl_wire::Signed<'_> as segl_wire::Message<'_>>::decode(&frame.body, &limits).unwrap();
            signatures.push(signed.signature.into_owned());
        }
    }
    assert_eq!(signatures.len(), 20);
    let _broker = room.site.start_broker().unwrap();
    let spki = signing::public_key(&room.site.caller(&room.site.tenants[0]).unwrap(), P256).unwrap();
    for signature in signatures {
        openssl::verify("ecdsa-p256-sha256", &spki, b"a document", &signature).unwrap();
    }
}

//! Parts of a request's way, one after the other as a request meets them: what criterion times and callgrind counts.

use std::{fmt, hint::black_box, io::Read, sync::Arc};

use rustls::{ClientConnection, ServerConnection, pki_types::ServerName};
use segl_daemon::{
    config::{self, Operation},
    policy::{Policy, Registry, Request},
};
use segl_hsm::{Algorithm, Input, KeyId};
use segl_pool::{
    Class as PoolClass, Job, RouteId, Rules, TokenSet, Work,
    core::{Action, Alarm, CallResult, Core, Event, TokenSpec},
};
use segl_tests::{
    Result,
    pki::Authority,
    site::{P256, Site, Token},
};
use segl_wire::{
    BatchItem, Class, Context, EcdsaEncoding, FrameBuffer, Kind, Limits, Message, Meta, Payload, Sign, SignBatch,
    Signed, SignedBatch, Timings, client::tls_config, encode_frame,
};

/// A part.
pub struct Part {
    /// What it is called in figures
    pub name: &'static str,
    make: fn() -> Result<Run>,
}

/// Goes through a part once.
pub type Run = Box<dyn FnMut()>;

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Part").field(&self.name).finish()
    }
}

impl Part {
    /// Everything that the part needs, made once.
    pub fn prepare(&self) -> Result<Run> {
        (self.make)()
    }
}

/// All parts.
pub const PARTS: [Part; 9] = [
    Part { name: "encode Sign", make: encode_sign },
    Part { name: "TLS record of 16 requests, out and in", make: tls_record },
    Part { name: "decode Sign", make: decode_sign },
    Part { name: "decode SignBatch of 64", make: decode_batch },
    Part { name: "policy: permit and authorise a digest", make: authorise },
    Part { name: "Core: a job alone, there and back", make: core_alone },
    Part { name: "Core: 64 jobs at once, there and back", make: core_burst },
    Part { name: "encode Signed", make: encode_signed },
    Part { name: "encode SignedBatch of 64", make: encode_signed_batch },
];

/// Runs a part so often.
pub fn run(name: &str, times: u64) -> Result<()> {
    let part = PARTS.iter().find(|part| part.name == name).ok_or_else(|| format!("there is no part {name:?}"))?;
    let mut once = part.prepare()?;
    (0..times).for_each(|_| once());
    Ok(())
}

const LIMITS: Limits = Limits { batch_max: 256, message_max: 65_536, document_max: 131_072 };

fn sign(digest: &[u8; 32]) -> Sign<'_> {
    Sign {
        meta: Meta {
            timeout_ms: 5000,
            class: Class::Login,
            context: Context { reference: Some("0b9f4c1e-6f9f-4a5a-9e0a-3f6b2d1c7a55".into()), ..Context::default() },
        },
        key: "seal-p256".into(),
        algorithm: "ecdsa-p256-sha256".into(),
        payload: Payload::Digest(digest.as_slice().into()),
        encoding: EcdsaEncoding::Der,
        timings: false,
    }
}

fn signed() -> Signed<'static> {
    Signed { signature: vec![9; 71].into(), timings: Some(Timings { queue_us: 40, token_us: 900 }), version: None }
}

fn encode_sign() -> Result<Run> {
    let (mut out, mut id) = (Vec::with_capacity(1024), 0);
    Ok(Box::new(move || {
        out.clear();
        id += 1;
        encode_frame(Kind::Sign, id, black_box(&sign(&[7; 32])), &mut out);
        black_box(&out);
    }))
}

/// As it comes from a connection: out of a buffer, header first.
fn decode_frames<'a, M: Message<'a>>(kind: Kind, message: &M, look: fn(&[u8]) -> usize) -> Result<Run> {
    let mut frame = Vec::new();
    encode_frame(kind, 1, message, &mut frame);
    let mut buffer = FrameBuffer::new(256 * 1024);
    Ok(Box::new(move || {
        let mut rest = &frame[..];
        while !rest.is_empty() {
            let pushed = buffer.push(rest);
            rest = &rest[pushed..];
        }
        let (_, body) = buffer.next_frame().expect("it is sound").expect("it is whole");
        black_box(look(black_box(body)));
    }))
}

fn decode_sign() -> Result<Run> {
    decode_frames(Kind::Sign, &sign(&[7; 32]), |body| Sign::decode(body, &LIMITS).map_or(0, |it| it.key.len()))
}

fn decode_batch() -> Result<Run> {
    let digest = [7; 32];
    let Sign { meta, key, algorithm, payload, encoding, timings } = sign(&digest);
    let items = vec![BatchItem { payload, reference: None }; 64];
    let batch = SignBatch { meta, key, algorithm, encoding, timings, items };
    decode_frames(Kind::SignBatch, &batch, |body| SignBatch::decode(body, &LIMITS).map_or(0, |batch| batch.items.len()))
}

/// Under the configuration of the tests' site.
fn authorise() -> Result<Run> {
    let dir = tempfile::tempdir()?;
    let site = Site::create(&dir.path().join("site"), Token::Embedded, &[])?;
    let (config, _) = config::load(&site.segld_config()).map_err(|findings| findings.to_string())?;
    let policy = Policy::new(&config, &mut Registry::new());
    let tenant = policy.tenants().first().ok_or("the site has a tenant")?.clone();
    let request = Request {
        operation: Operation::Sign,
        key: P256,
        algorithm: Algorithm::EcdsaP256Sha256.name(),
        class: Class::Signature,
        now_unix_s: 1_800_000_000,
    };
    policy.permit(&tenant, &request)?;
    Ok(Box::new(move || {
        let payload = Payload::Digest(black_box(&[7; 32][..]).into());
        let permit = policy.permit(black_box(&tenant), &request).expect("it was permitted before");
        black_box(permit.sign(&payload).expect("and it is a digest").into_parts());
    }))
}

fn core_alone() -> Result<Run> {
    core(1)
}

fn core_burst() -> Result<Run> {
    core(64)
}

/// Jobs from their submission to their completions, with a token of two sessions that signs at once.
fn core(many: u64) -> Result<Run> {
    let spec = TokenSpec { name: "bench".into(), sessions: 2, ..TokenSpec::default() };
    let mut core = Core::new(Rules::default(), &[spec]);
    let job = |tag| Job {
        work: Work::Sign,
        key: KeyId(0),
        algorithm: Algorithm::EcdsaP256Sha256,
        input: Input::digest(Algorithm::EcdsaP256Sha256, &[7; 32]).expect("a digest of 32 bytes"),
        route: RouteId(0),
        only_token: None,
        class: PoolClass::Login,
        tenant: 0,
        deadline_ns: u64::MAX,
        repeatable: true,
        probe: false,
        reference: tag,
        inbox: 0,
        tag,
    };
    let (mut now_ns, mut tag) = (1, 0);
    let (mut events, mut actions) =
        (vec![Event::Routes(vec![TokenSet::only(0)]), Event::Join { token: 0 }], Vec::new());
    // What is asked of tokens is done at once, until nothing more is asked.
    let mut settle = move |events: &mut Vec<Event<Input>>| {
        let mut completed = 0;
        while !events.is_empty() {
            now_ns += 1000;
            core.step_all(now_ns, events.drain(..), &mut actions);
            events.extend(actions.drain(..).filter_map(|action| match action {
                Action::Open { session, generation } => Some(Event::Opened { session, generation, result: Ok(()) }),
                Action::Login { session, generation } => Some(Event::LoggedIn { session, generation, result: Ok(()) }),
                Action::Alarm(Alarm::Probation { token, round, .. }) => Some(Event::Vouch { token, round, ok: true }),
                Action::Sign { session, generation, call } => {
                    let result = CallResult::Signed(vec![9; 64]);
                    Some(Event::Returned {
                        session,
                        generation,
                        call: call.id,
                        result,
                        started_ns: now_ns,
                        token_ns: 1000,
                    })
                }
                Action::Complete { completion, .. } => {
                    assert!(completion.result.is_ok(), "nothing is wrong with this token");
                    completed += 1;
                    None
                }
                _ => None,
            }));
        }
        completed
    };
    settle(&mut events);
    Ok(Box::new(move || {
        events.extend((0..many).map(|at| Event::Submit(job(tag + at))));
        tag += many;
        assert_eq!(settle(&mut events), many, "each job completes once");
    }))
}

fn encode_signed() -> Result<Run> {
    let answer = signed();
    let (mut out, mut id) = (Vec::with_capacity(1024), 0);
    Ok(Box::new(move || {
        out.clear();
        id += 1;
        encode_frame(Kind::Signed, id, black_box(&answer), &mut out);
        black_box(&out);
    }))
}

fn encode_signed_batch() -> Result<Run> {
    let answer = SignedBatch { items: (0..64).map(|_| Ok(signed())).collect() };
    let (mut out, mut id) = (Vec::with_capacity(16 * 1024), 0);
    Ok(Box::new(move || {
        out.clear();
        id += 1;
        encode_frame(Kind::SignedBatch, id, black_box(&answer), &mut out);
        black_box(&out);
    }))
}

/// Between two ends in memory, after the handshake. (Under valgrind ring takes other code than on the bare processor:
/// the count is for comparing, not for reckoning.)
fn tls_record() -> Result<Run> {
    let (mut client, mut server) = connected()?;
    let mut requests = Vec::new();
    (0..16).for_each(|id| {
        encode_frame(Kind::Sign, id, &sign(&[7; 32]), &mut requests);
    });
    let (mut wire, mut plain) = (Vec::with_capacity(32 * 1024), vec![0; requests.len()]);
    Ok(Box::new(move || {
        let passed = pass(&mut client, &mut server, black_box(&requests), &mut wire, &mut plain);
        passed.expect("both ends are in memory and agree");
        black_box(&plain);
    }))
}

/// Sends `requests` through TLS into `plain`, which is as long.
fn pass(
    client: &mut ClientConnection,
    server: &mut ServerConnection,
    requests: &[u8],
    wire: &mut Vec<u8>,
    plain: &mut [u8],
) -> Result<()> {
    std::io::Write::write_all(&mut client.writer(), requests)?;
    wire.clear();
    while client.wants_write() {
        client.write_tls(wire)?;
    }
    let mut rest = &wire[..];
    let mut got = 0;
    while !rest.is_empty() {
        server.read_tls(&mut rest)?;
        let ready = server.process_new_packets()?.plaintext_bytes_to_read();
        server.reader().read_exact(&mut plain[got..got + ready])?;
        got += ready;
    }
    Ok(())
}

fn connected() -> Result<(ClientConnection, ServerConnection)> {
    let (servers, clients) = (Authority::new("servers")?, Authority::new("clients")?);
    let (server, client) = (servers.server(&["localhost"])?, clients.client("spiffe://segl.example/bench")?);
    let client_config =
        tls_config(servers.pem().as_bytes(), client.certificate_pem.as_bytes(), client.key_pem.as_bytes())?;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut server_config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(server.certificate_pem.as_bytes())?],
            PrivateKeyDer::from_pem_slice(server.key_pem.as_bytes())?,
        )?;
    server_config.alpn_protocols = vec![segl_wire::ALPN.to_vec()];
    server_config.send_tls13_tickets = 0;
    let mut client = ClientConnection::new(client_config, ServerName::try_from("localhost")?)?;
    let mut server = ServerConnection::new(Arc::new(server_config))?;
    let mut wire = Vec::new();
    while client.is_handshaking() || server.is_handshaking() || client.wants_write() || server.wants_write() {
        wire.clear();
        while client.wants_write() {
            client.write_tls(&mut wire)?;
        }
        let mut rest = &wire[..];
        while !rest.is_empty() {
            server.read_tls(&mut rest)?;
            server.process_new_packets()?;
        }
        wire.clear();
        while server.wants_write() {
            server.write_tls(&mut wire)?;
        }
        let mut rest = &wire[..];
        while !rest.is_empty() {
            client.read_tls(&mut rest)?;
            client.process_new_packets()?;
        }
    }
    Ok((client, server))
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_part_runs() {
        for part in super::PARTS {
            super::run(part.name, 3).unwrap();
        }
        assert!(super::run("nothing of the kind", 1).is_err());
    }
}

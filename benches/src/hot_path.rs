//! Parts of a request's way, each to be run so often: what callgrind counts.

use std::{hint::black_box, io::Read, sync::Arc};

use rustls::{ClientConnection, ServerConnection, pki_types::ServerName};
use segl_tests::{Result, pki::Authority};
use segl_wire::{
    BatchItem, Class, Context, EcdsaEncoding, FrameBuffer, Kind, Limits, Message, Meta, Payload, Sign, SignBatch,
    Signed, SignedBatch, Timings, client::tls_config, encode_frame,
};

/// A part.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) name: &'static str,
    run: fn(u64) -> Result<()>,
}

pub(crate) const PARTS: [Part; 6] = [
    Part { name: "encode Sign", run: encode_sign },
    Part { name: "decode Sign", run: decode_sign },
    Part { name: "decode SignBatch of 64", run: decode_batch },
    Part { name: "encode Signed", run: encode_signed },
    Part { name: "encode SignedBatch of 64", run: encode_signed_batch },
    Part { name: "TLS record of 16 requests, out and in", run: tls_record },
];

/// Runs a part so often.
pub(crate) fn run(name: &str, times: u64) -> Result<()> {
    let part = PARTS.iter().find(|part| part.name == name).ok_or_else(|| format!("there is no part {name:?}"))?;
    (part.run)(times)
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

fn encode_sign(times: u64) -> Result<()> {
    let mut out = Vec::with_capacity(1024);
    for id in 0..times {
        out.clear();
        encode_frame(Kind::Sign, id, black_box(&sign(&[7; 32])), &mut out);
        black_box(&out);
    }
    Ok(())
}

/// As it comes from a connection: out of a buffer, header first.
fn decode_frames<'a, M: Message<'a>>(times: u64, kind: Kind, message: &M, look: fn(&[u8]) -> usize) -> Result<()> {
    let mut frame = Vec::new();
    encode_frame(kind, 1, message, &mut frame);
    let mut buffer = FrameBuffer::new(256 * 1024);
    for _ in 0..times {
        let mut rest = &frame[..];
        while !rest.is_empty() {
            let pushed = buffer.push(rest);
            rest = &rest[pushed..];
        }
        let (_, body) = buffer.next_frame()?.ok_or("half a frame")?;
        black_box(look(black_box(body)));
    }
    Ok(())
}

fn decode_sign(times: u64) -> Result<()> {
    decode_frames(times, Kind::Sign, &sign(&[7; 32]), |body| Sign::decode(body, &LIMITS).map_or(0, |it| it.key.len()))
}

fn decode_batch(times: u64) -> Result<()> {
    let digest = [7; 32];
    let Sign { meta, key, algorithm, payload, encoding, timings } = sign(&digest);
    let items = vec![BatchItem { payload, reference: None }; 64];
    let batch = SignBatch { meta, key, algorithm, encoding, timings, items };
    decode_frames(times, Kind::SignBatch, &batch, |body| {
        SignBatch::decode(body, &LIMITS).map_or(0, |batch| batch.items.len())
    })
}

fn encode_signed(times: u64) -> Result<()> {
    let answer = signed();
    let mut out = Vec::with_capacity(1024);
    for id in 0..times {
        out.clear();
        encode_frame(Kind::Signed, id, black_box(&answer), &mut out);
        black_box(&out);
    }
    Ok(())
}

fn encode_signed_batch(times: u64) -> Result<()> {
    let answer = SignedBatch { items: (0..64).map(|_| Ok(signed())).collect() };
    let mut out = Vec::with_capacity(16 * 1024);
    for id in 0..times {
        out.clear();
        encode_frame(Kind::SignedBatch, id, black_box(&answer), &mut out);
        black_box(&out);
    }
    Ok(())
}

/// Between two ends in memory, after the handshake. (Under valgrind ring takes other code than on the bare processor:
/// the count is for comparing, not for reckoning.)
fn tls_record(times: u64) -> Result<()> {
    let (mut client, mut server) = connected()?;
    let mut requests = Vec::new();
    (0..16).for_each(|id| {
        encode_frame(Kind::Sign, id, &sign(&[7; 32]), &mut requests);
    });
    let (mut wire, mut plain) = (Vec::with_capacity(32 * 1024), vec![0; requests.len()]);
    for _ in 0..times {
        std::io::Write::write_all(&mut client.writer(), black_box(&requests))?;
        wire.clear();
        while client.wants_write() {
            client.write_tls(&mut wire)?;
        }
        let mut rest = &wire[..];
        let mut got = 0;
        while !rest.is_empty() {
            server.read_tls(&mut rest)?;
            let ready = server.process_new_packets()?.plaintext_bytes_to_read();
            server.reader().read_exact(&mut plain[got..got + ready])?;
            got += ready;
        }
        black_box(&plain);
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

//! docs/PROTOCOL.md says what the code does: its examples are real frames, its tables the real numbers.

use segl_wire::*;

use crate::{
    cases::{DECODERS, LIMITS},
    tree::Tree,
};

const SPECIFICATION: &str = include_str!("../../../docs/PROTOCOL.md");

#[test]
fn every_example_is_the_frame_that_it_says() {
    let mut wrong = String::new();
    for (name, frame) in examples() {
        let rendered = render(&frame);
        if block(name) != Some(rendered.as_str()) {
            wrong += &format!("```segl {name}\n{rendered}```\n\n");
        }
    }
    assert!(wrong.is_empty(), "these examples should read:\n\n{wrong}");
}

#[test]
fn the_bytes_of_every_example_decode_as_what_they_show() {
    let mut buffer = FrameBuffer::new(HELLO_MAX);
    for (name, frame) in examples() {
        let bytes = bytes_of(block(name).unwrap_or_else(|| panic!("no example {name}")));
        assert_eq!(buffer.push(&bytes), bytes.len());
        let (header, body) = buffer.next_frame().unwrap().unwrap();
        let kind = header.known_kind().unwrap();
        let again = DECODERS.iter().find(|(known, _)| *known == kind).unwrap().1;
        assert_eq!(again(body).as_deref(), Ok(body), "{name}");
        assert_eq!(frame, bytes, "{name}");
    }
}

#[test]
fn every_kind_of_frame_has_an_example_and_a_row() {
    let shown: Vec<Kind> = examples().iter().map(|(_, frame)| Kind::from_u8(frame[4]).unwrap()).collect();
    for kind in Kind::ALL {
        assert!(shown.contains(kind), "{kind:?}");
        let row = format!("| `0x{:02x}` | {kind:?} |", *kind as u8);
        assert!(SPECIFICATION.contains(&row), "{row}");
    }
}

#[test]
fn the_table_of_errors_is_the_one_in_the_code() {
    let rows = Code::ALL.iter().map(|code| {
        let (fault, retry) = (format!("{:?}", code.fault()), format!("{:?}", code.retry()));
        let signed = if may_be_unknown(*code) { "no or unknown" } else { "no" };
        let (fault, retry) = (fault.to_lowercase(), retry.to_lowercase());
        format!("| {} | `{}` | {fault} | {signed} | {retry} |", *code as u8, code.name())
    });
    for row in rows {
        assert!(SPECIFICATION.contains(&row), "{row}");
    }
}

/// A code whose request may have reached a token.
fn may_be_unknown(code: Code) -> bool {
    let reached = [Code::TokenFailed, Code::AuditUnavailable, Code::Cancelled, Code::Expired, Code::Internal];
    code.signed() == SignedState::Unknown || reached.contains(&code)
}

#[test]
fn the_limits_are_the_ones_in_the_code() {
    for (name, value) in [
        ("DIGEST_MAX", DIGEST_MAX),
        ("NAME_MAX", NAME_MAX),
        ("TEXT_MAX", TEXT_MAX),
        ("EXPLANATION_MAX", EXPLANATION_MAX),
        ("PLACE_MAX", PLACE_MAX),
        ("VIOLATIONS_MAX", VIOLATIONS_MAX),
        ("VERSIONS_MAX", VERSIONS_MAX),
        ("PING_MAX", PING_MAX),
        ("KEYS_MAX", KEYS_MAX),
        ("ALGORITHMS_MAX", ALGORITHMS_MAX),
        ("CERTIFICATES_MAX", CERTIFICATES_MAX),
        ("HELLO_MAX", HELLO_MAX as usize),
        ("ANSWER_MAX", ANSWER_MAX as usize),
        ("DEPTH_MAX", DEPTH_MAX.into()),
    ] {
        let row = format!("| `{name}` | {value} |");
        assert!(SPECIFICATION.contains(&row), "{row}");
    }
}

fn frame<'m>(kind: Kind, id: u64, message: &impl Message<'m>) -> Vec<u8> {
    let mut frame = Vec::new();
    encode_frame(kind, id, message, &mut frame);
    frame
}

fn examples() -> Vec<(&'static str, Vec<u8>)> {
    let digest: Vec<u8> = (0..32).collect();
    let meta = Meta {
        timeout_ms: 2000,
        class: Class::Signature,
        context: Context {
            reference: Some("sag-2026-114".into()),
            on_behalf_of: Some("Korsbæk Kommune".into()),
            capacity: Some(Capacity::Company(Cvr::new("12345678").unwrap())),
        },
    };
    let plain = Meta { timeout_ms: 2000, class: Class::Login, context: Context::default() };
    let sign = Sign {
        meta: meta.clone(),
        key: "seal-2026".into(),
        algorithm: "ecdsa-p256-sha256".into(),
        payload: Payload::Digest(digest.as_slice().into()),
        encoding: EcdsaEncoding::Raw,
        timings: true,
    };
    let batch = SignBatch {
        meta: Meta { class: Class::Bulk, ..plain.clone() },
        key: "seal-2026".into(),
        algorithm: "ed25519".into(),
        encoding: EcdsaEncoding::Der,
        timings: false,
        items: vec![
            BatchItem { payload: Payload::Message(b"first".as_slice().into()), reference: None },
            BatchItem { payload: Payload::Message(b"second".as_slice().into()), reference: Some("b-2".into()) },
        ],
    };
    let signature: Vec<u8> = (0x40..0x80).collect();
    let signed = Signed {
        signature: signature.as_slice().into(),
        timings: Some(Timings { queue_us: 41, token_us: 350 }),
        version: None,
    };
    let late = Error::of(Code::Expired, "the deadline passed in the queue");
    let busy = Error::of(Code::Overloaded, "the queue is full").retry_after(250);
    let key = Key {
        name: "seal-2026".into(),
        purpose: "digest".into(),
        key_type: "ec-p256".into(),
        bits: 256,
        algorithms: vec!["ecdsa-p256-sha256".into()],
        spki_der: [0x30, 0x59].as_slice().into(),
        certificates: vec![[0x30, 0x82].as_slice().into()],
        state: KeyState::Usable,
        versions: vec![],
    };
    let hello = Hello {
        server: "segld 0.1.0".into(),
        frame_max: 1 << 20,
        in_flight_max: 1024,
        batch_max: 512,
        message_max: 1 << 16,
        timeout_max_ms: 30_000,
        idle_ms: 300_000,
        document_max: 1 << 17,
    };
    let how = AssertionHow {
        key: "login".into(),
        signature_method: "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha256".into(),
        digest_method: "http://www.w3.org/2001/04/xmlenc#sha256".into(),
        key_info: KeyInfo::Leaf,
        form: Form::Signature,
        timings: false,
    };
    let document = b"<saml:Assertion ...>".as_slice();
    let assertion = SignAssertion { meta: meta.clone(), how: how.clone(), document: document.into() };
    let assertions = SignAssertionBatch {
        meta: Meta { class: Class::Bulk, ..plain.clone() },
        how: AssertionHow { key_info: KeyInfo::None, form: Form::Document, ..how },
        items: vec![AssertionItem {
            document: document.into(),
            reference: Some("a-1".into()),
            capacity: Some(Capacity::Citizen),
        }],
    };
    let element = SignedAssertion {
        xml: b"<ds:Signature ...>".as_slice().into(),
        timings: None,
        version: Some("2026".into()),
        offset: Some(412),
    };
    let refused = Error::of(Code::PolicyViolation, "1 violation of the policy").violations([Violation::new(
        "validity",
        "/saml:Assertion/saml:Conditions/@NotOnOrAfter",
        "at most 3600 s after IssueInstant",
    )]);
    let jws = SignJws {
        meta: plain.clone(),
        key: "tokens".into(),
        algorithm: "ES256".into(),
        timings: false,
        key_info: KeyInfo::None,
        header: Some(br#"{"typ":"JWT"}"#.as_slice().into()),
        payload: br#"{"iss":"https://issuer.example"}"#.as_slice().into(),
    };
    let compact = SignedJws { compact: b"eyJh...".as_slice().into(), timings: None, version: None };
    let ping = Ping { data: [1, 2, 3, 4].as_slice().into() };
    let going = GoAway { last_id: 7, reason: GoAwayReason::Shutdown, message: "draining".into() };
    assert_eq!(hello.batch_max.min(LIMITS.batch_max), LIMITS.batch_max, "the examples fit the tests' limits");
    let items = vec![Ok(Signed { signature: signature.as_slice().into(), timings: None, version: None }), Err(late)];
    vec![
        ("hello", frame(Kind::Hello, 0, &hello)),
        ("ping", frame(Kind::Ping, 0, &ping)),
        ("pong", frame(Kind::Pong, 0, &ping)),
        ("list-keys", frame(Kind::ListKeys, 1, &ListKeys { meta: plain })),
        ("keys", frame(Kind::Keys, 1, &Keys { keys: vec![key] })),
        ("sign", frame(Kind::Sign, 2, &sign)),
        ("signed", frame(Kind::Signed, 2, &signed)),
        ("sign-batch", frame(Kind::SignBatch, 3, &batch)),
        ("signed-batch", frame(Kind::SignedBatch, 3, &SignedBatch { items })),
        ("sign-assertion", frame(Kind::SignAssertion, 5, &assertion)),
        ("signed-assertion", frame(Kind::SignedAssertion, 5, &element)),
        ("sign-assertion-batch", frame(Kind::SignAssertionBatch, 6, &assertions)),
        (
            "signed-assertion-batch",
            frame(Kind::SignedAssertionBatch, 6, &SignedAssertionBatch { items: vec![Err(refused)] }),
        ),
        ("sign-jws", frame(Kind::SignJws, 7, &jws)),
        ("signed-jws", frame(Kind::SignedJws, 7, &compact)),
        ("cancel", frame(Kind::Cancel, 4, &Cancel)),
        ("error", frame(Kind::Error, 4, &busy)),
        ("go-away", frame(Kind::GoAway, 0, &going)),
    ]
}

/// The lines between the fences of an example.
fn block(name: &str) -> Option<&'static str> {
    let fence = format!("```segl {name}\n");
    let start = SPECIFICATION.find(&fence)? + fence.len();
    let len = SPECIFICATION[start..].find("```")?;
    Some(&SPECIFICATION[start..start + len])
}

/// What stands left of the semicolons.
fn bytes_of(block: &str) -> Vec<u8> {
    let digits: String = block.lines().map(|line| line.split(';').next().unwrap()).collect();
    let digits: Vec<u8> = digits.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn render(frame: &[u8]) -> String {
    let (head, body) = frame.split_at(HEADER_LEN);
    let header = Header::parse(head.try_into().unwrap()).unwrap();
    let mut lines = vec![
        (hex(&head[..4]), format!("body of {} bytes", header.len)),
        (hex(&head[4..8]), format!("type {:?}, flags, reserved", header.known_kind().unwrap())),
        (hex(&head[8..]), format!("id {}", header.id)),
    ];
    item(&Tree::parse(body), None, 0, &mut lines);
    let lines = lines.into_iter().map(|(hex, what)| match what.as_str() {
        "" => format!("{hex}\n"),
        what => format!("{hex:<36} ; {what}\n"),
    });
    lines.collect()
}

/// An item with its key in front; one line for each, long strings go on below.
fn item(tree: &Tree, key: Option<u64>, depth: usize, lines: &mut Vec<(String, String)>) {
    let indent = "  ".repeat(depth);
    let (mut bytes, mut what) = (Vec::new(), indent.clone());
    if let Some(key) = key {
        bytes = Tree::Uint(key).encode();
        what += &format!("{key}: ");
    }
    let encoded = tree.encode();
    match tree {
        Tree::Uint(value) => what += &value.to_string(),
        Tree::Bool(value) => what += &value.to_string(),
        Tree::Text(text) => what += &format!("{text:?}"),
        Tree::Bytes(value) => what += &format!("{} bytes", value.len()),
        Tree::Array(items) => what += &format!("array of {}", items.len()),
        Tree::Map(pairs) => what += &format!("map of {}", pairs.len()),
    }
    match tree {
        Tree::Array(items) => {
            bytes.extend(Tree::Array(items.clone()).head());
            lines.push((indent + &hex(&bytes), what));
            items.iter().for_each(|inner| item(inner, None, depth + 1, lines));
        }
        Tree::Map(pairs) => {
            bytes.extend(Tree::Map(pairs.clone()).head());
            lines.push((indent + &hex(&bytes), what));
            pairs.iter().for_each(|(key, inner)| item(inner, Some(*key), depth + 1, lines));
        }
        _ => {
            bytes.extend(encoded);
            let mut rows = bytes.chunks(16);
            lines.push((indent.clone() + &hex(rows.next().unwrap()), what));
            rows.for_each(|row| lines.push((indent.clone() + &hex(row), String::new())));
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

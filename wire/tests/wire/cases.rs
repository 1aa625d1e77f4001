//! Every message there is, with anything in it that the protocol allows.

use std::borrow::Cow;

use proptest::{collection::vec, option, prelude::*};
use segl_wire::*;

pub(crate) const LIMITS: Limits = Limits { batch_max: 40, message_max: 300, document_max: 500 };

/// A message of some type, encoded, with the way to decode it and encode it again.
#[derive(Clone)]
pub(crate) struct Case {
    pub(crate) kind: Kind,
    pub(crate) body: Vec<u8>,
    pub(crate) again: fn(&[u8]) -> Result<Vec<u8>, DecodeError>,
}

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} ", self.kind)?;
        self.body.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

macro_rules! case {
    ($kind:ident, $message:ident, $strategy:expr) => {
        $strategy
            .prop_map(|message| {
                let mut body = Vec::new();
                message.encode(&mut body);
                assert_eq!($message::decode(&body, &LIMITS), Ok(message), "a round trip is exact");
                Case { kind: Kind::$kind, body, again: again::$kind }
            })
            .boxed()
    };
}

macro_rules! again {
    ($($kind:ident $message:ident,)+) => {
        /// Decodes, and encodes what was understood.
        #[allow(non_snake_case, reason = "named like the kinds they are for")]
        pub(crate) mod again {
            use super::*;
            $(pub(crate) fn $kind(body: &[u8]) -> Result<Vec<u8>, DecodeError> {
                let mut out = Vec::new();
                $message::decode(body, &LIMITS)?.encode(&mut out);
                Ok(out)
            })+
        }

        /// Every kind with its decoder.
        pub(crate) const DECODERS: &[(Kind, fn(&[u8]) -> Result<Vec<u8>, DecodeError>)] =
            &[$((Kind::$kind, again::$kind),)+];
    };
}

again! {
    Hello Hello,
    Ping Ping,
    Pong Ping,
    ListKeys ListKeys,
    Keys Keys,
    Sign Sign,
    Signed Signed,
    SignBatch SignBatch,
    SignedBatch SignedBatch,
    SignAssertion SignAssertion,
    SignedAssertion SignedAssertion,
    SignAssertionBatch SignAssertionBatch,
    SignedAssertionBatch SignedAssertionBatch,
    SignJws SignJws,
    SignedJws SignedJws,
    Cancel Cancel,
    GoAway GoAway,
    Error Error,
}

/// One of the kinds, at random.
pub(crate) fn any_case() -> BoxedStrategy<Case> {
    proptest::sample::select(Kind::ALL).prop_flat_map(case_of).boxed()
}

/// A message of this kind.
pub(crate) fn case_of(kind: Kind) -> BoxedStrategy<Case> {
    match kind {
        Kind::Hello => case!(Hello, Hello, hello()),
        Kind::Ping => case!(Ping, Ping, ping()),
        Kind::Pong => case!(Pong, Ping, ping()),
        Kind::ListKeys => case!(ListKeys, ListKeys, meta().prop_map(|meta| ListKeys { meta })),
        Kind::Keys => case!(Keys, Keys, vec(key(), 0..5).prop_map(|keys| Keys { keys })),
        Kind::Sign => case!(Sign, Sign, sign()),
        Kind::Signed => case!(Signed, Signed, signed()),
        Kind::SignBatch => case!(SignBatch, SignBatch, sign_batch()),
        Kind::SignedBatch => {
            let item = prop_oneof![signed().prop_map(Ok), error().prop_map(Err)];
            case!(SignedBatch, SignedBatch, vec(item, 1..10).prop_map(|items| SignedBatch { items }))
        }
        Kind::SignAssertion => case!(SignAssertion, SignAssertion, sign_assertion()),
        Kind::SignedAssertion => case!(SignedAssertion, SignedAssertion, signed_assertion()),
        Kind::SignAssertionBatch => case!(SignAssertionBatch, SignAssertionBatch, sign_assertion_batch()),
        Kind::SignedAssertionBatch => {
            let item = prop_oneof![signed_assertion().prop_map(Ok), error().prop_map(Err)];
            let items = vec(item, 1..10).prop_map(|items| SignedAssertionBatch { items });
            case!(SignedAssertionBatch, SignedAssertionBatch, items)
        }
        Kind::SignJws => case!(SignJws, SignJws, sign_jws()),
        Kind::SignedJws => case!(
            SignedJws,
            SignedJws,
            signed().prop_map(|signed| {
                let Signed { signature: compact, timings, version } = signed;
                SignedJws { compact, timings, version }
            })
        ),
        Kind::Cancel => case!(Cancel, Cancel, Just(Cancel)),
        Kind::GoAway => case!(GoAway, GoAway, go_away()),
        Kind::Error => case!(Error, Error, error()),
    }
}

fn number_of<T: Copy + std::fmt::Debug + 'static>(all: &'static [T]) -> impl Strategy<Value = T> {
    proptest::sample::select(all)
}

/// Characters take up to four bytes.
fn text(max: usize) -> impl Strategy<Value = Cow<'static, str>> {
    let any = vec(any::<char>().prop_map(|c| if c.is_control() { 'å' } else { c }), 1..=max / 4);
    let longest = Just("x".repeat(max));
    prop_oneof![9 => any.prop_map(String::from_iter), 1 => longest].prop_map(Cow::Owned)
}

fn bytes(max: usize) -> impl Strategy<Value = Cow<'static, [u8]>> {
    vec(any::<u8>(), 0..=max).prop_map(Cow::Owned)
}

/// Every length of encoding as often as the others.
fn uint32() -> impl Strategy<Value = u32> {
    (any::<u32>(), 0..32).prop_map(|(value, shift)| value >> shift)
}

fn meta() -> impl Strategy<Value = Meta<'static>> {
    let context = (option::of(text(TEXT_MAX)), option::of(text(TEXT_MAX)), option::of(capacity()));
    let context = context.prop_map(|(reference, on_behalf_of, capacity)| Context { reference, on_behalf_of, capacity });
    (uint32(), number_of(Class::ALL), context).prop_map(|(timeout_ms, class, context)| Meta {
        timeout_ms,
        class,
        context,
    })
}

fn capacity() -> impl Strategy<Value = Capacity> {
    prop_oneof![
        Just(Capacity::Citizen),
        (0..100_000_000u32).prop_map(|cvr| Capacity::Company(Cvr::new(&format!("{cvr:08}")).unwrap()))
    ]
}

fn payload() -> impl Strategy<Value = Payload<'static>> {
    prop_oneof![
        bytes(DIGEST_MAX).prop_map(Payload::Digest),
        bytes(LIMITS.message_max as usize).prop_map(Payload::Message),
    ]
}

fn sign() -> impl Strategy<Value = Sign<'static>> {
    let how = (text(NAME_MAX), text(NAME_MAX), number_of(EcdsaEncoding::ALL), any::<bool>());
    (meta(), how, payload()).prop_map(|(meta, (key, algorithm, encoding, timings), payload)| Sign {
        meta,
        key,
        algorithm,
        payload,
        encoding,
        timings,
    })
}

fn sign_batch() -> impl Strategy<Value = SignBatch<'static>> {
    let item = (payload(), option::of(text(TEXT_MAX)));
    let item = item.prop_map(|(payload, reference)| BatchItem { payload, reference });
    (sign(), vec(item, 1..LIMITS.batch_max as usize)).prop_map(|(sign, items)| {
        let Sign { meta, key, algorithm, encoding, timings, .. } = sign;
        SignBatch { meta, key, algorithm, encoding, timings, items }
    })
}

fn document() -> impl Strategy<Value = Cow<'static, [u8]>> {
    bytes(LIMITS.document_max as usize)
}

fn assertion_how() -> impl Strategy<Value = AssertionHow<'static>> {
    let methods = (text(NAME_MAX), text(NAME_MAX));
    (text(NAME_MAX), methods, number_of(&KeyInfo::OF_ASSERTIONS), number_of(Form::ALL), any::<bool>()).prop_map(
        |(key, (signature_method, digest_method), key_info, form, timings)| AssertionHow {
            key,
            signature_method,
            digest_method,
            key_info,
            form,
            timings,
        },
    )
}

fn sign_assertion() -> impl Strategy<Value = SignAssertion<'static>> {
    (meta(), assertion_how(), document()).prop_map(|(meta, how, document)| SignAssertion { meta, how, document })
}

fn sign_assertion_batch() -> impl Strategy<Value = SignAssertionBatch<'static>> {
    let item = (document(), option::of(text(TEXT_MAX)), option::of(capacity()));
    let item = item.prop_map(|(document, reference, capacity)| AssertionItem { document, reference, capacity });
    (meta(), assertion_how(), vec(item, 1..10)).prop_map(|(meta, how, items)| SignAssertionBatch { meta, how, items })
}

fn sign_jws() -> impl Strategy<Value = SignJws<'static>> {
    let how = (text(NAME_MAX), text(NAME_MAX), any::<bool>(), number_of(KeyInfo::ALL));
    (meta(), how, option::of(document()), document()).prop_map(
        |(meta, (key, algorithm, timings, key_info), header, payload)| SignJws {
            meta,
            key,
            algorithm,
            timings,
            key_info,
            header,
            payload,
        },
    )
}

fn signed() -> impl Strategy<Value = Signed<'static>> {
    let timings = (uint32(), uint32()).prop_map(|(queue_us, token_us)| Timings { queue_us, token_us });
    (bytes(600), option::of(timings), option::of(text(NAME_MAX))).prop_map(|(signature, timings, version)| Signed {
        signature,
        timings,
        version,
    })
}

fn signed_assertion() -> impl Strategy<Value = SignedAssertion<'static>> {
    (signed(), option::of(uint32())).prop_map(|(signed, offset)| {
        let Signed { signature: xml, timings, version } = signed;
        SignedAssertion { xml, timings, version, offset }
    })
}

fn violation() -> impl Strategy<Value = Violation<'static>> {
    (text(NAME_MAX), option::of(text(PLACE_MAX)), text(EXPLANATION_MAX)).prop_map(|(rule, place, text)| Violation {
        rule,
        place,
        text,
    })
}

fn error() -> impl Strategy<Value = Error<'static>> {
    let state = (number_of(SignedState::ALL), number_of(Retry::ALL), option::of(uint32()));
    (number_of(Code::ALL), number_of(Fault::ALL), state, text(EXPLANATION_MAX), vec(violation(), 0..4)).prop_map(
        |(code, fault, (signed, retry, retry_after_ms), message, violations)| Error {
            code,
            fault,
            signed,
            retry,
            retry_after_ms,
            message,
            violations,
        },
    )
}

fn version() -> impl Strategy<Value = KeyVersion<'static>> {
    let life = (number_of(VersionPhase::ALL), any::<u64>(), number_of(KeyState::ALL));
    (text(NAME_MAX), life, bytes(100), vec(bytes(200), 0..3)).prop_map(
        |(name, (phase, active_from_unix_s, state), spki_der, certificates)| KeyVersion {
            name,
            phase,
            active_from_unix_s,
            spki_der,
            certificates,
            state,
        },
    )
}

fn key() -> impl Strategy<Value = Key<'static>> {
    let names = (text(NAME_MAX), text(NAME_MAX), text(NAME_MAX), vec(text(NAME_MAX), 0..4));
    let shown = (any::<u16>(), bytes(100), vec(bytes(200), 0..3), number_of(KeyState::ALL));
    (names, shown, vec(version(), 0..3)).prop_map(|(names, shown, versions)| {
        let (name, purpose, key_type, algorithms) = names;
        let (bits, spki_der, certificates, state) = shown;
        Key { name, purpose, key_type, bits, algorithms, spki_der, certificates, state, versions }
    })
}

fn hello() -> impl Strategy<Value = Hello<'static>> {
    let limits = (uint32(), uint32(), uint32(), uint32(), uint32(), uint32(), uint32());
    (text(TEXT_MAX), limits).prop_map(
        |(server, (frame_max, in_flight_max, batch_max, message_max, timeout_max_ms, idle_ms, document_max))| Hello {
            server,
            frame_max,
            in_flight_max,
            batch_max,
            message_max,
            timeout_max_ms,
            idle_ms,
            document_max,
        },
    )
}

fn ping() -> impl Strategy<Value = Ping<'static>> {
    bytes(PING_MAX).prop_map(|data| Ping { data })
}

fn go_away() -> impl Strategy<Value = GoAway<'static>> {
    (any::<u64>(), number_of(GoAwayReason::ALL), text(EXPLANATION_MAX)).prop_map(|(last_id, reason, message)| GoAway {
        last_id,
        reason,
        message,
    })
}

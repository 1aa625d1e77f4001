//! What is not the one deterministic encoding of a message is refused, in every message.

use proptest::{prelude::*, strategy::ValueTree};
use segl_wire::*;

use crate::{
    cases::{Case, DECODERS, LIMITS, any_case},
    tree::{FOREIGN, Tree, Wrong},
};

fn any_wrong() -> impl Strategy<Value = Wrong> {
    prop_oneof![
        (1..=4u8).prop_map(Wrong::LongHead),
        Just(Wrong::Indefinite),
        Just(Wrong::SwappedKeys),
        Just(Wrong::RepeatedKey),
        proptest::sample::select(&FOREIGN[..]).prop_map(Wrong::Foreign),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn any_encoding_but_the_deterministic_one_is_refused(
        case in any_case(), place in any::<prop::sample::Index>(), wrong in any_wrong(),
    ) {
        let tree = Tree::parse(&case.body);
        prop_assert_eq!(&tree.encode(), &case.body, "the tree is faithful");
        let place = place.index(tree.items());
        let Some(body) = tree.encode_wrong(place, wrong) else { return Ok(()) };
        prop_assert!((case.again)(&body).is_err(), "{:02x?}", body);
        prop_assert!(check(&body).is_err());
    }

    #[test]
    fn anything_after_a_body_is_refused(case in any_case(), more in any::<u8>()) {
        let mut body = case.body;
        body.push(more);
        prop_assert!((case.again)(&body).is_err());
    }

    #[test]
    fn a_body_cut_short_is_refused(case in any_case(), len in any::<prop::sample::Index>()) {
        prop_assert!((case.again)(&case.body[..len.index(case.body.len())]).is_err());
    }

    #[test]
    fn unknown_keys_from_64_on_are_skipped_and_below_refused(case in any_case(), key in 23..300u64) {
        let Tree::Map(mut pairs) = Tree::parse(&case.body) else { panic!("a body is a map") };
        let deep = Tree::Map(vec![(1, Tree::Array(vec![Tree::Bool(true), Tree::Text(String::new())]))]);
        pairs.push((key, deep));
        let body = Tree::Map(pairs).encode();
        if key < EXTENSION_KEY_MIN {
            prop_assert!((case.again)(&body).is_err());
        } else {
            prop_assert_eq!((case.again)(&body).unwrap(), case.body);
        }
    }

    #[test]
    fn the_value_of_a_skipped_key_must_be_deterministic_too(
        case in any_case(), wrong in any_wrong(), place in 0..4usize,
    ) {
        let Tree::Map(mut pairs) = Tree::parse(&case.body) else { panic!("a body is a map") };
        let deep = Tree::Map(vec![(1, Tree::Array(vec![Tree::Uint(7)])), (2, Tree::Text("x".into()))]);
        let from = Tree::Map(pairs.clone()).items();
        pairs.push((64, deep));
        if let Some(body) = Tree::Map(pairs).encode_wrong(from + place, wrong) {
            prop_assert!((case.again)(&body).is_err());
        }
    }
}

#[test]
fn every_kind_of_mutation_was_possible_somewhere() {
    let tree = Tree::Map(vec![(1, Tree::Uint(3)), (2, Tree::Array(vec![]))]);
    let wrongs = [
        Wrong::LongHead(1),
        Wrong::LongHead(4),
        Wrong::Indefinite,
        Wrong::SwappedKeys,
        Wrong::RepeatedKey,
        Wrong::Foreign(FOREIGN[0]),
    ];
    for wrong in wrongs {
        let body = tree.encode_wrong(0, wrong).unwrap();
        assert!(check(&body).is_err(), "{wrong:?} {body:02x?}");
    }
}

#[test]
fn a_required_key_that_is_missing_is_refused_by_every_message() {
    let optional = |kind, key| match kind {
        Kind::ListKeys | Kind::Sign | Kind::SignBatch | Kind::SignAssertion | Kind::SignAssertionBatch => {
            (3..=5).contains(&key)
        }
        Kind::SignJws => (3..=5).contains(&key) || key == 21,
        Kind::Signed | Kind::SignedAssertion | Kind::SignedJws => (2..=4).contains(&key),
        Kind::Keys => key == 9,
        Kind::Error => key == 5 || key == 7,
        _ => false,
    };
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    for (kind, again) in DECODERS {
        let case: Case = crate::cases::case_of(*kind).new_tree(&mut runner).unwrap().current();
        let Tree::Map(pairs) = Tree::parse(&case.body) else { panic!("a body is a map") };
        for left_out in 0..pairs.len() {
            let mut pairs = pairs.clone();
            let (key, _) = pairs.remove(left_out);
            let result = again(&Tree::Map(pairs).encode());
            assert_eq!(result.is_ok(), optional(*kind, key), "{kind:?} without {key}");
        }
    }
}

fn sign_with(change: impl FnOnce(&mut Vec<(u64, Tree)>)) -> Result<(), DecodeError> {
    let mut pairs = vec![
        (1, Tree::Uint(5000)),
        (2, Tree::Uint(0)),
        (10, Tree::Text("key".into())),
        (11, Tree::Text("ed25519".into())),
        (12, Tree::Uint(0)),
        (13, Tree::Bool(false)),
        (14, Tree::Bytes(vec![0; 32])),
    ];
    change(&mut pairs);
    Sign::decode(&Tree::Map(pairs).encode(), &LIMITS).map(drop)
}

#[test]
fn texts_have_their_length_and_no_control_characters() {
    let key = |text: &str| sign_with(|pairs| pairs[2].1 = Tree::Text(text.into()));
    assert_eq!(key("Borgerens nøgle"), Ok(()));
    assert_eq!(key(&"x".repeat(64)), Ok(()));
    assert_eq!(key(&"x".repeat(65)).unwrap_err().what, "text too long");
    assert_eq!(key("").unwrap_err().what, "empty text");
    for control in ["a\nb", "\0", "\u{7f}", "\u{85}"] {
        assert_eq!(key(control).unwrap_err().what, "control character in a text");
    }
    let reference = |text: &str| sign_with(|pairs| pairs.insert(2, (3, Tree::Text(text.into()))));
    assert_eq!(reference(&"å".repeat(64)), Ok(()));
    assert_eq!(reference(&"å".repeat(65)).unwrap_err().what, "text too long");
}

#[test]
fn limits_of_the_hello_have_their_own_codes() {
    let message = |len| sign_with(|pairs| pairs[6] = (15, Tree::Bytes(vec![0; len])));
    assert_eq!(message(300), Ok(()));
    assert_eq!(message(301).unwrap_err().code, Code::BadInput);
    assert_eq!(sign_with(|pairs| pairs[6].1 = Tree::Bytes(vec![0; 65])).unwrap_err().code, Code::BadInput);
    let batch = |len| {
        let item = Tree::Map(vec![(14, Tree::Bytes(vec![0; 32]))]);
        let mut body = Tree::Map(vec![]).encode();
        sign_with(|pairs| {
            pairs[6] = (16, Tree::Array(vec![item; len]));
            body = Tree::Map(pairs.clone()).encode();
        })
        .unwrap_err();
        SignBatch::decode(&body, &LIMITS).map(drop)
    };
    assert_eq!(batch(40), Ok(()));
    assert_eq!(batch(41).unwrap_err().code, Code::BadBatch);
    assert_eq!(batch(0).unwrap_err().code, Code::BadBatch);
}

#[test]
fn documents_and_batches_of_them_end_where_hello_says() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut code_of = |kind: Kind, key: u64, tree: Tree| {
        let case: Case = crate::cases::case_of(kind).new_tree(&mut runner).unwrap().current();
        let Tree::Map(mut pairs) = Tree::parse(&case.body) else { panic!("a body is a map") };
        pairs.retain(|(other, _)| *other != key);
        let at = pairs.partition_point(|(other, _)| *other < key);
        pairs.insert(at, (key, tree));
        (case.again)(&Tree::Map(pairs).encode()).err().map(|error| error.code)
    };
    let bytes = |more: usize| Tree::Bytes(vec![b'x'; LIMITS.document_max as usize + more]);
    let item = |more| Tree::Map(vec![(20, bytes(more))]);
    for (kind, key) in [(Kind::SignAssertion, 20), (Kind::SignJws, 21), (Kind::SignJws, 22)] {
        assert_eq!(code_of(kind, key, bytes(0)), None, "{kind:?}");
        assert_eq!(code_of(kind, key, bytes(1)), Some(Code::BadInput), "{kind:?}");
    }
    let mut batch = |items| code_of(Kind::SignAssertionBatch, 16, Tree::Array(items));
    assert_eq!(batch(vec![item(0)]), None);
    assert_eq!(batch(vec![item(0), item(1)]), Some(Code::BadInput));
    let one = Tree::Map(vec![(20, Tree::Bytes(vec![b'x']))]);
    assert_eq!(batch(vec![one.clone(); LIMITS.batch_max as usize]), None);
    assert_eq!(batch(vec![one; LIMITS.batch_max as usize + 1]), Some(Code::BadBatch));
    assert_eq!(batch(vec![]), Some(Code::BadBatch));
}

#[test]
fn a_digest_and_a_message_together_are_refused() {
    let both = sign_with(|pairs| pairs.push((15, Tree::Bytes(vec![1]))));
    assert_eq!(both.unwrap_err().what, "a digest and a message");
}

#[test]
fn a_capacity_is_citizen_or_eight_digits() {
    let capacity = |tree| sign_with(|pairs| pairs.insert(2, (5, tree)));
    assert_eq!(capacity(Tree::Uint(0)), Ok(()));
    assert_eq!(capacity(Tree::Text("12345678".into())), Ok(()));
    for wrong in ["1234567", "123456789", "1234567a", "１２３４５６７８"] {
        assert!(capacity(Tree::Text(wrong.into())).is_err(), "{wrong}");
    }
    assert!(capacity(Tree::Uint(1)).is_err());
}

#[test]
fn an_error_says_where_and_what() {
    let error = sign_with(|pairs| pairs[1].1 = Tree::Uint(9)).unwrap_err();
    // a7, 01 19 1388, 02: the class stands at byte 6.
    assert_eq!(error, DecodeError { code: Code::Malformed, offset: 6, what: "no such class" });
    assert_eq!(error.to_string(), "no such class at byte 6");
}

#[test]
fn an_error_code_of_a_later_version_is_taken_as_internal() {
    let mut body = Vec::new();
    Error::of(Code::Overloaded, "busy").encode(&mut body);
    let Tree::Map(mut pairs) = Tree::parse(&body) else { panic!("a body is a map") };
    pairs[0].1 = Tree::Uint(200);
    let body = Tree::Map(pairs).encode();
    let error = Error::decode(&body, &LIMITS).unwrap();
    assert_eq!((error.code, error.retry), (Code::Internal, Retry::Elsewhere));
}

#[test]
fn nesting_has_a_limit() {
    let nested = |depth| [vec![0x81; depth], vec![0x80]].concat();
    assert_eq!(check(&nested(5)), Ok(()));
    assert_eq!(check(&nested(6)).unwrap_err().what, "nested too deep");
    assert_eq!(check(&nested(1_000_000)).unwrap_err().what, "nested too deep");
}

//! docs/protocol.cddl describes what is really sent: checked with an implementation of RFC 8610.

use cddl_cat::validate_cbor_bytes;
use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
use segl_wire::*;

use crate::{
    cases::{Case, DECODERS, any_case, case_of},
    tree::Tree,
};

const GRAMMAR: &str = include_str!("../../../docs/protocol.cddl");

fn follows(kind: Kind, body: &[u8]) -> Result<(), String> {
    let rule = match kind {
        Kind::Hello => "hello",
        Kind::Ping | Kind::Pong => "ping",
        Kind::ListKeys => "list-keys",
        Kind::Keys => "keys",
        Kind::Sign => "sign",
        Kind::Signed => "signed",
        Kind::SignBatch => "sign-batch",
        Kind::SignedBatch => "signed-batch",
        Kind::SignAssertion => "sign-assertion",
        Kind::SignedAssertion => "signed-assertion",
        Kind::SignAssertionBatch => "sign-assertion-batch",
        Kind::SignedAssertionBatch => "signed-assertion-batch",
        Kind::SignJws => "sign-jws",
        Kind::SignedJws => "signed-jws",
        Kind::Cancel => "cancel",
        Kind::GoAway => "go-away",
        Kind::Error => "error",
    };
    validate_cbor_bytes(rule, GRAMMAR, body).map_err(|error| error.to_string())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_real_frame_follows_the_grammar(case in any_case()) {
        prop_assert_eq!(follows(case.kind, &case.body), Ok(()));
    }

    #[test]
    fn an_extension_follows_the_grammar(case in any_case(), key in 64..u64::MAX, value in any::<u64>()) {
        let Tree::Map(mut pairs) = Tree::parse(&case.body) else { panic!("a body is a map") };
        let deep = Tree::Map(vec![(0, Tree::Array(vec![Tree::Bool(true), Tree::Text("x".into())]))]);
        pairs.extend([(key, Tree::Uint(value)), (u64::MAX, deep)]);
        prop_assert_eq!(follows(case.kind, &Tree::Map(pairs).encode()), Ok(()));
    }

    /// Code and grammar draw the same line: what one item of another type or size makes wrong for the decoder, is
    /// wrong by the grammar, and the other way round.
    #[test]
    fn grammar_and_decoder_refuse_the_same(
        case in any_case(),
        place in any::<prop::sample::Index>(),
        other in prop_oneof![
            any::<u64>().prop_map(Tree::Uint),
            (0..5u64).prop_map(Tree::Uint),
            any::<bool>().prop_map(Tree::Bool),
            (0..70usize).prop_map(|len| Tree::Bytes(vec![7; len])),
            (0..600usize).prop_map(|len| Tree::Text("x".repeat(len))),
            Just(Tree::Array(vec![])),
            Just(Tree::Map(vec![])),
        ],
    ) {
        let mut tree = Tree::parse(&case.body);
        let place = place.index(tree.items());
        tree.replace(place, other);
        let body = tree.encode();
        let decoded = (case.again)(&body).map(drop).map_err(|error| error.to_string());
        let follows = follows(case.kind, &body);
        prop_assert_eq!(decoded.is_ok(), follows.is_ok(), "{:?} {:?}", decoded, follows);
    }
}

#[test]
fn an_assertion_says_nothing_of_its_key_that_xml_has_no_words_for() {
    let mut runner = TestRunner::deterministic();
    for (kind, again) in DECODERS {
        let case: Case = case_of(*kind).new_tree(&mut runner).unwrap().current();
        let Tree::Map(mut pairs) = Tree::parse(&case.body) else { panic!("a body is a map") };
        let Some((_, key_info)) = pairs.iter_mut().find(|(key, _)| *key == 18) else { continue };
        *key_info = Tree::Uint(KeyInfo::Thumbprint as u64);
        let body = Tree::Map(pairs).encode();
        assert_eq!(again(&body).is_ok(), *kind == Kind::SignJws, "{kind:?}");
        assert_eq!(follows(*kind, &body).is_ok(), *kind == Kind::SignJws, "the grammar of {kind:?}");
    }
}

#[test]
fn what_is_wrong_does_not_follow_the_grammar() {
    let mut runner = TestRunner::deterministic();
    for (kind, _) in DECODERS {
        let case: Case = case_of(*kind).new_tree(&mut runner).unwrap().current();
        let Tree::Map(pairs) = Tree::parse(&case.body) else { panic!("a body is a map") };
        let wrong = |change: fn(&mut Vec<(u64, Tree)>)| {
            let mut pairs = pairs.clone();
            change(&mut pairs);
            follows(*kind, &Tree::Map(pairs).encode())
        };
        assert!(wrong(|pairs| pairs.push((63, Tree::Uint(0)))).is_err(), "{kind:?} with an unknown key");
        assert!(follows(*kind, &Tree::Array(vec![]).encode()).is_err(), "{kind:?} as an array");
        if *kind != Kind::Cancel {
            assert!(wrong(|pairs| drop(pairs.remove(0))).is_err(), "{kind:?} without its first key");
            assert!(wrong(|pairs| pairs[0].1 = Tree::Bool(true)).is_err(), "{kind:?} with another type");
        }
    }
}

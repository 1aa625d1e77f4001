//! Makes a failing run shorter: what can be left out without the same promise holding again, is left out.

use super::{
    play,
    script::{Script, What},
};

/// Most runs that are spent on it.
const RUNS_MAX: usize = 400;

/// A script with fewer acts and smaller bursts that breaks the same promise.
pub(super) fn shorten(script: &Script, promise: &'static str) -> Script {
    let mut best = script.clone();
    let mut runs = 0;
    let mut fails = |script: &Script| {
        runs += 1;
        runs <= RUNS_MAX && play(script, false).0.is_err_and(|violation| violation.promise == promise)
    };
    // Ever smaller pieces are left out, from the end.
    let mut piece = best.acts.len().div_ceil(2);
    while piece > 0 {
        let mut end = best.acts.len();
        while end > 0 {
            let start = end.saturating_sub(piece);
            let mut shorter = best.clone();
            shorter.acts.drain(start..end);
            if fails(&shorter) {
                best = shorter;
            }
            end = start;
        }
        piece = if piece == 1 { 0 } else { piece.div_ceil(2) };
    }
    for index in 0..best.acts.len() {
        let mut smaller = best.clone();
        if let What::Submit(burst) = &mut smaller.acts[index].what
            && burst.count > 1
        {
            burst.count = 1;
            if fails(&smaller) {
                best = smaller;
            }
        }
    }
    best
}

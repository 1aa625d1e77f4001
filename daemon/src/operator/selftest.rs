//! `segl selftest`: whether keys sign, now.

use std::process::ExitCode;

use clap::Args;

use super::{
    ask,
    paint::{Paint, cell, colour_of, one_line, table},
};
use crate::control::{Answer, Request, TestResult};

/// Tests keys now, wherever they are held; 0 if every test passed
///
/// A key signs something that segld makes up itself, verifies and destroys: nobody chooses what is signed, and nobody
/// gets it. Keys with `self_test = "presence"`, CA keys and versions whose time is not now are only looked at. Each use
/// of a key is recorded.
#[derive(Args)]
pub(super) struct Selftest {
    /// A key, all its versions, or NAME/VERSION; all keys if left out
    #[arg(value_name = "KEY")]
    key: Option<String>,
}

pub(super) fn run(reach: &ask::Reach, arguments: Selftest) -> ExitCode {
    let tests = match reach.ask(&Request::Selftest { key: arguments.key }) {
        Ok(Answer::Selftests(tests)) => tests,
        Ok(_) => return ask::unexpected(),
        Err(error) => return ask::complain(&error),
    };
    if tests.is_empty() {
        eprintln!("segl: no token has shown such a key yet; segl status says why");
        return ExitCode::FAILURE;
    }
    let all_passed = tests.iter().all(|test| test.result == TestResult::Passed);
    let rows = tests.iter().map(|test| {
        let name = test.result.name();
        let how = match (test.result, test.signed) {
            (TestResult::NotMade, _) => "-",
            (_, true) => "signed",
            (_, false) => "present",
        };
        vec![
            cell(&test.key),
            cell(&test.token),
            cell(name).coloured(colour_of(name)),
            cell(how),
            cell(one_line(&test.detail)),
        ]
    });
    let mut out = String::new();
    table(&mut out, Paint::for_stdout(), &["KEY", "TOKEN", "RESULT", "HOW", "WHY"], rows.collect());
    print!("{out}");
    if all_passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

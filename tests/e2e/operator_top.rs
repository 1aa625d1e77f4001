//! `segl top` on a pseudo-terminal, its screen read by a terminal emulator.

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::OwnedFd,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, Signal, kill_process},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize},
};
use segl_tests::site::Site;

use crate::{
    operator::light,
    room::{SOON, journal},
};

const ROWS: u16 = 40;
const COLUMNS: u16 = 140;

/// A terminal with `segl top` in it.
struct Terminal {
    top: Child,
    master: File,
    slave: File,
    emulator: vt100::Parser,
}

impl Terminal {
    fn open(mut command: Command) -> Terminal {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let path = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        tcsetwinsize(&master, Winsize { ws_row: ROWS, ws_col: COLUMNS, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let slave = File::options().read(true).write(true).open(path).unwrap();
        let end = || Stdio::from(OwnedFd::from(slave.try_clone().unwrap()));
        let top = command.env("TERM", "xterm-256color").stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        Terminal { top, master: File::from(master), slave, emulator: vt100::Parser::new(ROWS, COLUMNS, 0) }
    }

    fn press(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    fn text(&self) -> String {
        self.emulator.screen().contents()
    }

    /// Takes in what was drawn, for so long at most.
    fn read(&mut self, limit: Duration) {
        let mut fds = [PollFd::new(&self.master, PollFlags::IN)];
        if poll(&mut fds, Some(&Timespec::try_from(limit).unwrap())).unwrap() > 0 {
            let mut bytes = [0; 16 << 10];
            let length = self.master.read(&mut bytes).unwrap_or(0);
            self.emulator.process(&bytes[..length]);
        }
    }

    /// Waits until the screen is so.
    #[track_caller]
    fn shows(&mut self, what: &str) {
        let deadline = Instant::now() + SOON;
        while !self.text().contains(what) {
            assert!(Instant::now() < deadline, "{what:?} is not on the screen:\n{}", self.text());
            self.read(Duration::from_millis(200));
        }
    }

    /// Waits until the line of the token is so.
    #[track_caller]
    fn token_is(&mut self, token: &str, state: &str) {
        let deadline = Instant::now() + SOON;
        let is_so = |text: &str| text.lines().any(|line| line.contains(&format!(" {token} ")) && line.contains(state));
        while !is_so(&self.text()) {
            assert!(Instant::now() < deadline, "{token} is not {state}:\n{}", self.text());
            self.read(Duration::from_millis(200));
        }
    }

    fn is_raw(&self) -> bool {
        !tcgetattr(&self.slave).unwrap().local_modes.contains(LocalModes::ICANON | LocalModes::ECHO)
    }

    /// Waits for its end, by which the terminal is as it was.
    fn ended(mut self) -> ExitStatus {
        let deadline = Instant::now() + SOON;
        let status = loop {
            if let Some(status) = self.top.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "it does not end:\n{}", self.text());
            self.read(Duration::from_millis(50));
        };
        self.read(Duration::from_millis(200));
        assert!(!self.emulator.screen().alternate_screen(), "the screen before is back");
        assert!(!self.emulator.screen().hide_cursor(), "and the cursor");
        assert!(!self.is_raw(), "and the terminal's own line editing");
        status
    }
}

fn top(site: &Site) -> Terminal {
    let mut command = site.segl_command();
    command.arg("top");
    Terminal::open(command)
}

#[test]
fn everything_is_on_the_screen_and_a_token_is_drained_and_resumed_by_keys() {
    let fire = light(&[&["one"], &["two"]], "");
    let accounts = fire.load(|_| {
        let mut terminal = top(&fire.room.site);
        terminal.shows(" OK ");
        assert!(terminal.is_raw() && terminal.emulator.screen().alternate_screen());
        terminal.token_is("one", "ready");
        terminal.token_is("two", "ready");
        for expected in ["signatures/s", "p99", "seal-p256", "on one, two", "town-hall", "events", "q quit"] {
            terminal.shows(expected);
        }
        // Sessions are cells: some work now and then.
        terminal.token_is("one", "▒");

        terminal.press("d");
        terminal.shows("Drain token one?  y/n");
        terminal.press("n");
        terminal.shows("not done");
        terminal.token_is("one", "ready");
        terminal.press("dy");
        terminal.token_is("one", "drained");
        terminal.shows(" DEGRADED ");
        terminal.shows("token one is drained, at an operator's word -> when its time has come: segl token resume one");

        // The other one is the last of its keys'.
        terminal.press("jd");
        terminal.shows("Drain token two?");
        terminal.press("y");
        terminal.shows("without two nobody can sign with");
        terminal.shows("Drain it all the same?");
        terminal.press("n");
        terminal.press("kr");
        terminal.shows("Resume token one?");
        terminal.press("y");
        terminal.token_is("one", "ready");
        terminal.press("R");
        terminal.shows("Read the configuration again?");
        terminal.press("y");
        terminal.shows("reloaded: 2 keys");
        terminal.press("q");
        assert!(terminal.ended().success());
    });
    let records = journal(&fire.room.site);
    let asked = records.iter().filter(|record| record["kind"] == "operator" && record["result"] == "asked");
    let commands: Vec<_> = asked.map(|record| record["command"].as_str().unwrap().to_owned()).collect();
    assert_eq!(commands, ["token drain one", "token resume one", "reload --wait"]);
    fire.put_out(&accounts, &[]);
}

#[test]
fn a_signal_gives_the_terminal_back_and_a_segld_that_ends_is_said_to_have_ended() {
    let mut fire = light(&[&["one"]], "");
    let mut terminal = top(&fire.room.site);
    terminal.shows(" OK ");
    assert!(fire.room.segld.terminate(SOON).unwrap().success());
    terminal.shows("NOT ANSWERING");
    terminal.token_is("one", "ready");
    fire.room.segld = fire.room.site.start_segld().unwrap();
    terminal.shows(" OK ");
    kill_process(Pid::from_child(&terminal.top), Signal::TERM).unwrap();
    assert!(terminal.ended().success());
}

#[test]
fn without_a_terminal_or_a_segld_it_says_so_in_plain_words() {
    let (site, _dir) = crate::room::site(segl_tests::site::Token::Embedded);
    let output = site.segl_command().arg("top").output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("top needs a terminal"));
    let mut terminal = top(&site);
    terminal.shows("systemctl status segld");
    assert_eq!(terminal.ended().code(), Some(3));
}

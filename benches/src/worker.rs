//! The token alone: a process of its own that signs in a loop, on so many threads, for as long as it is told.
//!
//! In a process of its own since a token's configuration is the environment's, since its CPU is then easily told from
//! that of others, and since segld's token is in another process too. It stays alive through a whole measurement.

use std::{
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RSA_PKCS1_SHA256, RsaKeyPair},
};
use rustls::pki_types::{PrivateKeyDer, pem::PemObject};
use segl_hsm::{
    KeyId, KeySpec, ModuleId, Token as _,
    embedded::EmbeddedToken,
    pkcs11::{Module, PinSource, Pkcs11Token},
};
use segl_tests::Result;
use serde::{Deserialize, Serialize};

use crate::{
    bare::BareModule,
    cpu::CpuTimes,
    key::{Key, Payload, payload},
    token::{Seat, Token},
};

/// By which road the loop reaches the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Road {
    /// C_SignInit and C_Sign, or ring, and nothing else
    Bare,
    /// segl-hsm's sessions, as segld uses them
    Hsm,
}

/// What the process is started with.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Assignment {
    road: Road,
    key: Key,
    payload: Payload,
    seat: Seat,
    threads_max: usize,
    /// segl-hsm's directory for PIN marks
    state: PathBuf,
}

/// One slice.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Slice {
    /// Signatures a second, all threads together
    pub(crate) rate: f64,
    pub(crate) signatures: u64,
    /// CPU of the whole process
    pub(crate) cpu_ns: u64,
}

/// The process, as its owner sees it.
#[derive(Debug)]
pub(crate) struct Worker {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    pub(crate) threads: usize,
}

impl Worker {
    /// Starts one for as many threads as the token's ceiling may need.
    pub(crate) fn start(token: &Token, road: Road, state: PathBuf) -> Result<Worker> {
        Worker::start_with(token, road, state, token.ceiling_threads().into_iter().max().unwrap_or(1))
    }

    /// The same for so many threads.
    pub(crate) fn start_with(token: &Token, road: Road, state: PathBuf, threads_max: usize) -> Result<Worker> {
        let assignment =
            Assignment { road, key: token.key, payload: token.payload(), seat: token.seat.clone(), threads_max, state };
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["worker", &serde_json::to_string(&assignment)?]).stdin(Stdio::piped()).stdout(Stdio::piped());
        if let Some((variable, value)) = &token.environment {
            command.env(variable, value);
        }
        let mut child = command.spawn()?;
        let orders = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().ok_or("the loop's process has no output")?);
        let mut worker = Worker { child, orders, answers, threads: threads_max };
        worker.run(1, Duration::from_millis(20))?;
        Ok(worker)
    }

    /// Finds how many threads give most: each count has short slices in turn with the others, and the best median wins.
    pub(crate) fn calibrate(&mut self, counts: &[usize], slice: Duration) -> Result<Vec<(usize, f64)>> {
        const ROUNDS: usize = 5;
        let mut rates = vec![Vec::new(); counts.len()];
        for _ in 0..ROUNDS {
            for (threads, rates) in counts.iter().zip(&mut rates) {
                rates.push(self.run(*threads, slice)?.rate);
            }
        }
        let medians: Vec<_> =
            counts.iter().copied().zip(rates.iter().map(|rates| crate::statistics::median(rates))).collect();
        let best = medians.iter().max_by(|a, b| a.1.total_cmp(&b.1)).ok_or("no number of threads to try")?;
        self.threads = best.0;
        Ok(medians)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// One slice on the best number of threads.
    pub(crate) fn slice(&mut self, duration: Duration) -> Result<Slice> {
        self.run(self.threads, duration)
    }

    fn run(&mut self, threads: usize, duration: Duration) -> Result<Slice> {
        let orders = self.orders.as_mut().ok_or("the loop was ended")?;
        writeln!(orders, "{threads} {}", duration.as_micros())?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        let answer: Result<Slice, String> =
            serde_json::from_str(&line).map_err(|_| "the ceiling's process ended; what it said stands above")?;
        Ok(answer?)
    }
}

impl Drop for Worker {
    /// Its orders end, and so does it; a token that hangs is not waited for.
    fn drop(&mut self) {
        drop(self.orders.take());
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(2) {
            if let Ok(Some(_)) = self.child.try_wait() {
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The process itself, until its input ends.
pub(crate) fn main(assignment: &str) -> Result<()> {
    let assignment: Arc<Assignment> = Arc::new(serde_json::from_str(assignment)?);
    let opener = Arc::new(Opener::new(&assignment)?);
    let stop = Arc::new(AtomicBool::new(false));
    let (done, results) = mpsc::channel();
    let mut crew = Vec::new();
    for at in 0..assignment.threads_max {
        let (order, orders) = mpsc::channel::<Arc<Barrier>>();
        let (assignment, opener, stop, done) = (assignment.clone(), opener.clone(), stop.clone(), done.clone());
        thread::Builder::new().name(format!("ceiling-{at}")).spawn(move || {
            // Opened at the first order: threads that are not needed hold no sessions.
            let mut signer = None;
            let mut number = (at as u64) << 40;
            for start in orders {
                let result = (|| -> Result<(u64, Duration)> {
                    if signer.is_none() {
                        signer = Some(opener.open(&assignment)?);
                    }
                    let sign = signer.as_mut().ok_or("no session")?;
                    // The first is not timed: it may have to wait for much that later ones do not.
                    number += 1;
                    sign(number)?;
                    start.wait();
                    let began = Instant::now();
                    let mut made = 0;
                    while !stop.load(Ordering::Relaxed) {
                        number += 1;
                        sign(number)?;
                        made += 1;
                    }
                    Ok((made, began.elapsed()))
                })();
                if let Err(error) = &result {
                    // The others wait at the barrier for this thread: there is no going on.
                    eprintln!("ceiling: {error}");
                    std::process::exit(1);
                }
                let _ = done.send(result.map_err(|error| error.to_string()));
            }
        })?;
        crew.push(order);
    }
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let (threads, micros) = line.split_once(' ').ok_or("orders are two numbers")?;
        let (threads, duration) = (threads.parse::<usize>()?, Duration::from_micros(micros.parse()?));
        stop.store(false, Ordering::Relaxed);
        let start = Arc::new(Barrier::new(threads + 1));
        for order in &crew[..threads] {
            order.send(start.clone())?;
        }
        start.wait();
        let before = CpuTimes::of(std::process::id())?;
        thread::sleep(duration);
        stop.store(true, Ordering::Relaxed);
        let results: Result<Vec<_>, String> = results.iter().take(threads).collect();
        let cpu_ns = CpuTimes::of(std::process::id())?.total_since(&before);
        let slice = results.map(|threads| Slice {
            // Each by its own time, so that what a thread finishes after the end is counted with the time it took.
            rate: threads.iter().map(|(made, took)| *made as f64 / took.as_secs_f64()).sum(),
            signatures: threads.iter().map(|(made, _)| made).sum(),
            cpu_ns,
        });
        println!("{}", serde_json::to_string(&slice)?);
    }
    Ok(())
}

/// What opens the threads' sessions.
enum Opener {
    Ring,
    Bare(Box<BareModule>),
    Hsm(Box<dyn segl_hsm::Token>),
}

/// Signs the payload of this number.
type Signer<'a> = Box<dyn FnMut(u64) -> Result<()> + 'a>;

impl Opener {
    fn new(assignment: &Assignment) -> Result<Opener> {
        let module_id = ModuleId(0);
        let opener = match (assignment.road, &assignment.seat) {
            (Road::Bare, Seat::Ring { .. }) => Opener::Ring,
            (Road::Bare, Seat::Pkcs11 { module, uri, key_uri, pin_file }) => {
                Opener::Bare(Box::new(BareModule::load(module, uri, key_uri, pin_file)?))
            }
            (Road::Hsm, Seat::Ring { directory, file }) => {
                let token = EmbeddedToken::open_directory("bench", directory, module_id, &[])?;
                token.add_keys(&[KeySpec { id: KeyId(0), locator: file.as_str().into() }]);
                Opener::Hsm(Box::new(token))
            }
            (Road::Hsm, Seat::Pkcs11 { module, uri, key_uri, pin_file }) => {
                let (module, pin) = (Module::load(module, module_id)?, PinSource::File(pin_file.clone()));
                let token = Pkcs11Token::new("bench", module, uri.parse()?, pin, &assignment.state)?;
                token.add_keys(&[KeySpec { id: KeyId(0), locator: key_uri.as_str().into() }]);
                Opener::Hsm(Box::new(token))
            }
        };
        Ok(opener)
    }

    fn open(&self, assignment: &Assignment) -> Result<Signer<'_>> {
        let (key, how) = (assignment.key, assignment.payload);
        let expected_len = key.key_type().signature_len();
        let check = move |len: usize| {
            if len == expected_len { Ok(()) } else { Err(format!("a signature of {len} bytes").into()) }
        };
        match (self, &assignment.seat) {
            (Opener::Bare(module), _) => {
                let session = module.open(key)?;
                let mut out = [0; 1024];
                Ok(Box::new(move |number| check(session.sign(&payload(number), &mut out)?)))
            }
            (Opener::Hsm(token), _) => {
                let mut session = token.open()?;
                session.login()?.pop().ok_or("no key")?.result?;
                let mut out = Vec::new();
                Ok(Box::new(move |number| {
                    session.sign(KeyId(0), key.algorithm(), &how.input(&payload(number)), &mut out)?;
                    check(out.len())
                }))
            }
            (Opener::Ring, Seat::Ring { directory, file }) => ring_signer(key, &directory.join(file), check),
            (Opener::Ring, Seat::Pkcs11 { .. }) => Err("ring holds no keys of PKCS#11 tokens".into()),
        }
    }
}

fn ring_signer<'a>(key: Key, file: &std::path::Path, check: impl Fn(usize) -> Result<()> + 'a) -> Result<Signer<'a>> {
    let der = PrivateKeyDer::from_pem_file(file)?;
    let (der, random) = (der.secret_der(), SystemRandom::new());
    Ok(match key {
        Key::P256 => {
            let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der, &random)?;
            Box::new(move |number| {
                let made = pair.sign(&random, &payload(number)).map_err(|_| "ring does not sign")?;
                check(made.as_ref().len())
            })
        }
        Key::Ed25519 => {
            let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der)?;
            Box::new(move |number| check(pair.sign(&payload(number)).as_ref().len()))
        }
        Key::Rsa2048 | Key::Rsa3072 => {
            let pair = RsaKeyPair::from_pkcs8(der)?;
            let mut out = vec![0; pair.public().modulus_len()];
            Box::new(move |number| {
                pair.sign(&RSA_PKCS1_SHA256, &random, &payload(number), &mut out).map_err(|_| "ring does not sign")?;
                check(out.len())
            })
        }
    })
}

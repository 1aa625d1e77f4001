//! The clients: some at full load with one key each, others who come and go, read slowly, take back, are in a hurry.

use std::{
    io::ErrorKind,
    net::TcpStream,
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use segl_wire::{ALPN, Class, Kind, ListKeys, Message, Meta};

use super::{
    dice::Dice,
    ground::{Ground, KEYS},
    line::{Account, Common, Line},
};
use crate::{Result, conversation::Conversation};

/// How long a request may take; far longer than anything takes while a token is well.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// In flight for each key, at full load.
const WINDOW: usize = 32;
/// How long who got an error waits before it asks again.
const AFTER_AN_ERROR: Duration = Duration::from_millis(2);

/// What a client does.
#[derive(Clone, Copy, Debug)]
pub(super) enum Role {
    /// Full load with one key
    Steady(usize),
    /// Connects, asks, and leaves in one way or another
    ComesAndGoes,
    /// Asks for much and reads late
    ReadsSlowly,
    /// Takes much of it back
    TakesBack,
    /// Gives little time
    InAHurry,
    /// Reads nothing at all until the server closes
    ReadsNothing,
}

impl Role {
    pub(super) fn all() -> Vec<Role> {
        let steady = (0..KEYS.len()).map(Role::Steady);
        steady
            .chain([Role::ComesAndGoes, Role::ReadsSlowly, Role::TakesBack, Role::InAHurry, Role::ReadsNothing])
            .collect()
    }

    fn name(self) -> String {
        match self {
            Role::Steady(key) => format!("steady.{}", KEYS[key].name),
            other => format!("{other:?}").to_lowercase(),
        }
    }
}

/// A client until `over`; its account.
pub(super) fn run(
    role: Role,
    mut dice: Dice,
    ground: &Ground,
    common: &Common<'_>,
    over: &AtomicBool,
    end: &Receiver<()>,
) -> Account {
    let mut account = Account::new(role.name());
    let mut client = Client { ground, common, over, end, dice: &mut dice };
    let outcome = match role {
        Role::Steady(key) => client.steady(key, &mut account),
        Role::ComesAndGoes => client.until_over(&mut account, Client::comes_and_goes),
        Role::ReadsSlowly => client.until_over(&mut account, Client::reads_slowly),
        Role::TakesBack => client.until_over(&mut account, Client::takes_back),
        Role::InAHurry => client.until_over(&mut account, Client::in_a_hurry),
        Role::ReadsNothing => client.until_over(&mut account, Client::reads_nothing),
    };
    if let Err(error) = outcome {
        account.breaks(format!("{}: {error}", account.name));
    }
    account
}

/// The keys' public keys, as ListKeys shows them.
pub(super) fn public_keys(ground: &Ground) -> Result<Vec<Vec<u8>>> {
    let mut conversation = connect(ground, 0)?;
    conversation.send(Kind::ListKeys, &list_keys())?;
    let frame = conversation.answer()?;
    let listed = segl_wire::Keys::decode(&frame.body, &segl_wire::Limits::from(conversation.hello()))?;
    let bare = |key: &super::ground::Key| {
        let entry = listed.keys.iter().find(|entry| entry.name == key.name);
        let spki = &entry.ok_or_else(|| format!("{} is not listed", key.name))?.spki_der;
        // SubjectPublicKeyInfo: a header that is always as long, then the key.
        let bare = spki.get(if key.ed25519 { 12 } else { 26 }..);
        Ok(bare.ok_or_else(|| format!("{} shows no public key", key.name))?.to_vec())
    };
    KEYS.iter().map(bare).collect()
}

fn connect(ground: &Ground, tenant: usize) -> Result<Conversation> {
    Conversation::open(ground.site.segld, &ground.site.servers.pem(), Some(&ground.identities[tenant]))
}

fn list_keys() -> ListKeys<'static> {
    let meta = Meta { timeout_ms: 10_000, class: Class::Signature, context: segl_wire::Context::default() };
    ListKeys { meta }
}

struct Client<'a> {
    ground: &'a Ground,
    common: &'a Common<'a>,
    over: &'a AtomicBool,
    /// Is closed at the end
    end: &'a Receiver<()>,
    dice: &'a mut Dice,
}

impl<'a> Client<'a> {
    fn steady(&mut self, key: usize, account: &mut Account) -> Result<()> {
        let mut line = self.line(key % self.ground.identities.len(), account)?;
        line.attentive = true;
        while !self.is_over() {
            while line.in_flight() < WINDOW {
                let (items, class) = match self.dice.below(12) {
                    0 => (8, Class::Bulk),
                    1..=6 => (1, Class::Login),
                    _ => (1, Class::Signature),
                };
                line.ask(key, items, class, PATIENCE)?;
            }
            if line.take()? {
                // Errors come at once, and would be asked for as fast as the machine can.
                self.pause(AFTER_AN_ERROR);
            }
        }
        line.drain()
    }

    fn comes_and_goes(&mut self, account: &mut Account) -> Result<()> {
        let tenant = self.tenant();
        let mut line = self.line(tenant, account)?;
        for _ in 0..self.dice.below(40) {
            self.ask_something(&mut line, PATIENCE)?;
        }
        match self.dice.below(3) {
            0 => line.drain()?,
            1 => {
                line.send_bytes(&[0, 0, 1])?;
                line.forgo();
            }
            _ => {
                while line.in_flight() > 8 {
                    line.take()?;
                }
                line.forgo();
            }
        }
        let pause = Duration::from_millis(self.dice.below(100));
        self.pause(pause);
        Ok(())
    }

    fn reads_slowly(&mut self, account: &mut Account) -> Result<()> {
        let tenant = self.tenant();
        let mut line = self.line(tenant, account)?;
        for _ in 0..self.dice.between(50, 200) {
            self.ask_something(&mut line, PATIENCE)?;
        }
        let pause = Duration::from_millis(self.dice.between(100, 1_500));
        self.pause(pause);
        while line.in_flight() > 0 {
            line.take()?;
            self.pause(Duration::from_millis(2));
        }
        Ok(())
    }

    fn takes_back(&mut self, account: &mut Account) -> Result<()> {
        let tenant = self.tenant();
        let mut line = self.line(tenant, account)?;
        for _ in 0..self.dice.between(20, 200) {
            let id = self.ask_something(&mut line, PATIENCE)?;
            if self.dice.one_in(2) {
                line.cancel(id)?;
            }
            while line.in_flight() > 16 {
                line.take()?;
            }
        }
        line.drain()
    }

    fn in_a_hurry(&mut self, account: &mut Account) -> Result<()> {
        let tenant = self.tenant();
        let mut line = self.line(tenant, account)?;
        for _ in 0..self.dice.between(20, 200) {
            let timeout = Duration::from_millis(self.dice.between(1, 200));
            self.ask_something(&mut line, timeout)?;
            while line.in_flight() > 8 {
                line.take()?;
            }
        }
        line.drain()
    }

    /// Asks for lists of keys, whose answers are long, until the server has enough of it.
    fn reads_nothing(&mut self, account: &mut Account) -> Result<()> {
        let tcp = TcpStream::connect(self.ground.site.segld)?;
        let handle = tcp.try_clone()?;
        let tenant = self.tenant();
        let identity = &self.ground.identities[tenant];
        let authority = self.ground.site.servers.pem();
        let mut conversation = Conversation::over(tcp, &authority, Some(identity), ALPN)?;
        // One that it can not write for so long is not read from either.
        handle.set_write_timeout(Some(PATIENCE))?;
        account.connections += 1;
        let began = Instant::now();
        let stopped = loop {
            if self.is_over() {
                return Ok(());
            }
            if let Err(error) = conversation.send(Kind::ListKeys, &list_keys()) {
                break error;
            }
            if began.elapsed() > 6 * PATIENCE {
                return Err("the server still reads from a client that reads nothing".into());
            }
        };
        if matches!(stopped.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) {
            return Err("the server keeps a client that reads nothing".into());
        }
        self.pause(Duration::from_secs(5));
        Ok(())
    }

    /// A request as any other, or a batch.
    fn ask_something(&mut self, line: &mut Line<'_>, timeout: Duration) -> Result<u64> {
        let key = self.dice.below(KEYS.len() as u64) as usize;
        let items = if self.dice.one_in(10) { self.dice.between(2, 6) } else { 1 };
        let class = *self.dice.pick(&[Class::Login, Class::Signature, Class::Bulk]);
        line.ask(key, u32::try_from(items)?, class, timeout)
    }

    fn until_over(
        &mut self,
        account: &mut Account,
        round: impl Fn(&mut Self, &mut Account) -> Result<()>,
    ) -> Result<()> {
        while !self.is_over() {
            round(self, account)?;
        }
        Ok(())
    }

    fn line<'l>(&self, tenant: usize, account: &'l mut Account) -> Result<Line<'l>>
    where
        'a: 'l,
    {
        Ok(Line::new(connect(self.ground, tenant)?, self.common, account))
    }

    fn tenant(&mut self) -> usize {
        self.dice.below(self.ground.identities.len() as u64) as usize
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// For so long, or until the end.
    fn pause(&self, time: Duration) {
        match self.end.recv_timeout(time) {
            Ok(()) | Err(RecvTimeoutError::Timeout) => {}
            // The end has come, and is looked at next; what is still to be read is read at this pace.
            Err(RecvTimeoutError::Disconnected) => {}
        }
    }
}

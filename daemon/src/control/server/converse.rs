//! Connections of the control socket: who may speak, how much at once, and for how long.

use std::{io, sync::Arc, time::Duration};

use segl_audit::Record;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::{
    Context, act,
    peers::{Caller, Peers},
};
use crate::{
    control::{Access, Answer, REQUEST_MAX, Reason, Refused, Request},
    gate::Gate,
};

/// Connections at once of those who may speak: a few people and their monitoring.
const CONNECTIONS_MAX: usize = 32;

/// Connections at once whose other end is being looked up; more wait in the kernel.
const AT_THE_DOOR_MAX: usize = 8;

/// How long a connection may stand between two requests.
const IDLE: Duration = Duration::from_secs(60);

/// How long a request may take from its first byte to its last.
const REQUEST_LIMIT: Duration = Duration::from_secs(5);

/// How long an answer may take to be read.
const WRITE_LIMIT: Duration = Duration::from_secs(5);

/// So much is read, unheard, of somebody who is sent away: more than anybody has to say.
const UNHEARD_MAX: u64 = 4 * REQUEST_MAX as u64;

/// After an accept that failed, for want of descriptors for instance.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Strangers that are logged and recorded each second.
const STRANGERS: u32 = 2;

/// Takes connections for as long as the runtime lives.
pub(super) async fn accept(listener: UnixListener, peers: Peers, context: Arc<Context>) {
    let door = Arc::new(Semaphore::new(AT_THE_DOOR_MAX));
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let strangers = Arc::new(Gate::new(STRANGERS));
    loop {
        let Ok(at_the_door) = door.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (room, strangers, context) = (room.clone(), strangers.clone(), context.clone());
                tokio::spawn(async move {
                    // A peer that goes away needs nothing more.
                    let _ = welcome(stream, peers, at_the_door, &room, &strangers, &context).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection to the control socket could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Lets in who may speak, as long as there is room.
async fn welcome(
    mut stream: UnixStream,
    peers: Peers,
    at_the_door: OwnedSemaphorePermit,
    room: &Arc<Semaphore>,
    strangers: &Gate,
    context: &Context,
) -> io::Result<()> {
    let caller = peers.identify(stream.peer_cred()?).await;
    let Some(access) = caller.access else {
        return turn_away(&mut stream, &caller, strangers, context).await;
    };
    drop(at_the_door);
    let Ok(_room) = room.clone().try_acquire_owned() else {
        let text = format!("{CONNECTIONS_MAX} connections to the control socket are open already");
        let refused = Refused::new(Reason::Busy, text, "close some (segl top?) or try again");
        return send_away(&mut stream, refused).await;
    };
    converse(stream, &caller, access, context).await
}

async fn turn_away(stream: &mut UnixStream, caller: &Caller, strangers: &Gate, context: &Context) -> io::Result<()> {
    let desk = &context.shared.desk;
    if let Some(held_back) = strangers.passes(desk.now_ns()) {
        let (who, uid, pid) = (&*caller.name, caller.uid, caller.pid);
        tracing::warn!(who, uid, pid, held_back, "somebody who may not was turned away from the control socket");
        desk.note(&Record::Operator(segl_audit::Operator {
            who: who.into(),
            command: "connect".into(),
            result: "denied".into(),
            uid: Some(uid),
            pid,
            asked: None,
        }));
    }
    let group = &context.facts.control.operators.name;
    let text = format!("{} (uid {}) may not speak to segld", caller.name, caller.uid);
    let hint = format!("only root and members of the group {group} may: usermod -aG {group} {}", caller.name);
    send_away(stream, Refused::new(Reason::Denied, text, hint)).await
}

/// Says why, and hears the other end out: a socket that is closed with something unread takes our words along.
async fn send_away(stream: &mut UnixStream, refused: Refused) -> io::Result<()> {
    answer(stream, &Answer::Refused(refused)).await?;
    stream.shutdown().await?;
    let mut unheard = stream.take(UNHEARD_MAX);
    timeout(REQUEST_LIMIT, tokio::io::copy(&mut unheard, &mut tokio::io::sink())).await??;
    Ok(())
}

/// One request after the other, until he has no more or breaks the rules.
async fn converse(stream: UnixStream, caller: &Caller, access: Access, context: &Context) -> io::Result<()> {
    let mut stream = BufReader::with_capacity(REQUEST_MAX, stream);
    let mut line = Vec::new();
    loop {
        line.clear();
        if timeout(IDLE, stream.fill_buf()).await??.is_empty() {
            return Ok(());
        }
        // One byte more than there may be, so that too long is not taken for the end.
        let mut bounded = (&mut stream).take(REQUEST_MAX as u64 + 1);
        timeout(REQUEST_LIMIT, bounded.read_until(b'\n', &mut line)).await??;
        let parsed = Request::parse(&line);
        // What follows a line that is too long, or that breaks off, is no request.
        let last = line.last() != Some(&b'\n');
        let said = match parsed {
            Ok(request) if request.access() > access => Answer::Refused(not_for_watchers(caller, context)),
            Ok(request) => act::carry_out(context, caller, &request).await,
            Err(refused) => Answer::Refused(refused),
        };
        answer(stream.get_mut(), &said).await?;
        if last {
            return Ok(());
        }
    }
}

fn not_for_watchers(caller: &Caller, context: &Context) -> Refused {
    let group = &context.facts.control.operators.name;
    let text = format!("{} may look, and change nothing", caller.name);
    Refused::new(Reason::Denied, text, format!("members of the group {group} may"))
}

async fn answer(stream: &mut UnixStream, answer: &Answer) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    timeout(WRITE_LIMIT, stream.write_all(&line)).await??;
    Ok(())
}

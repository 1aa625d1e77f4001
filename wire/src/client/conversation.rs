//! A connection from its making to its end: the Hello, then a reader and a writer side by side around a [`Link`].

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf},
    sync::watch,
    time::{MissedTickBehavior, interval, sleep, timeout},
};

use super::{
    link::{Link, said},
    transport::{Connect, Stream},
};
use crate::{ANSWER_MAX, Error, FrameBuffer, GoAway, HELLO_MAX, Hello, Kind, Limits, Message};

/// How long saying goodbye may take.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

/// A connection after its Hello.
pub(super) struct Opened {
    stream: Box<dyn Stream>,
    received: FrameBuffer,
    pub(super) hello: Arc<Hello<'static>>,
}

/// Connects and waits for the Hello; the caller bounds the time.
pub(super) async fn open(connect: &Connect) -> Result<Opened, Arc<str>> {
    let mut stream = connect().await.map_err(|error| Arc::from(error.to_string()))?;
    let mut received = FrameBuffer::new(HELLO_MAX);
    let no_limits = Limits { batch_max: 0, message_max: 0, document_max: 0 };
    loop {
        if let Some((header, body)) = received.next_frame().map_err(|error| Arc::from(error.to_string()))? {
            let hello = match header.known_kind() {
                Some(Kind::Hello) => Hello::decode(body, &no_limits).map(Hello::into_owned),
                Some(Kind::Error) => return Err(said(&Error::decode(body, &no_limits))),
                Some(Kind::GoAway) => {
                    let going = GoAway::decode(body, &no_limits);
                    return Err(match going {
                        Ok(going) => format!("the server turns away: {}", going.message).into(),
                        Err(error) => format!("the server's GoAway: {error}").into(),
                    });
                }
                _ => return Err("the server does not begin with Hello".into()),
            };
            let hello = hello.map_err(|error| Arc::from(format!("Hello: {error}")))?;
            received.set_frame_max(ANSWER_MAX);
            return Ok(Opened { stream, received, hello: Arc::new(hello) });
        }
        let len = stream.read(received.room()).await.map_err(|error| Arc::from(error.to_string()))?;
        if len == 0 {
            return Err("the server closed the connection before its Hello".into());
        }
        received.filled(len);
    }
}

/// Runs the connection to its end: a reader and a writer, side by side.
pub(super) async fn run(
    link: Arc<Link>,
    opened: Opened,
    keep_alive: Duration,
    grace: Duration,
    mut stop: watch::Receiver<()>,
) {
    let Opened { stream, received, .. } = opened;
    let (mut reader, mut writer) = tokio::io::split(stream);
    let cause = tokio::select! {
        cause = read(&link, &mut reader, received) => cause,
        cause = write(&link, &mut writer) => cause,
        cause = silent(&link, keep_alive) => cause,
        cause = drained(&link, grace) => cause,
        _ = stop.changed() => "the client was dropped".into(),
    };
    link.close(cause);
    // The peer may be gone: its close_notify is a courtesy.
    let _ = timeout(CLOSE_LIMIT, writer.shutdown()).await;
}

async fn read(link: &Link, stream: &mut ReadHalf<Box<dyn Stream>>, mut received: FrameBuffer) -> Arc<str> {
    loop {
        loop {
            match received.next_frame() {
                Ok(Some((header, body))) => {
                    if let Err(cause) = link.receive(header, body) {
                        return cause;
                    }
                }
                Ok(None) => break,
                Err(error) => return error.to_string().into(),
            }
        }
        match stream.read(received.room()).await {
            Ok(0) => return "the server closed the connection".into(),
            Ok(len) => received.filled(len),
            Err(error) => return error.to_string().into(),
        }
        link.reads.fetch_add(1, Ordering::Relaxed);
    }
}

async fn write(link: &Link, stream: &mut WriteHalf<Box<dyn Stream>>) -> Arc<str> {
    let mut taken = Vec::new();
    loop {
        link.output.notified().await;
        taken.clear();
        link.take_output(&mut taken);
        let written = async {
            stream.write_all(&taken).await?;
            stream.flush().await
        };
        if let Err(error) = written.await {
            return error.to_string().into();
        }
    }
}

/// Sends Pings, and waits for the interval after which nothing at all has come back.
async fn silent(link: &Link, keep_alive: Duration) -> Arc<str> {
    let idle = Duration::from_millis(link.hello.idle_ms.into());
    let mut ticks = interval(keep_alive.min(idle / 3).max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await; // the first is at once
    let mut reads_when_asked = None;
    loop {
        ticks.tick().await;
        let reads = link.reads.load(Ordering::Relaxed);
        if reads_when_asked == Some(reads) {
            return "nothing came back for a whole keep-alive interval, not even a Pong".into();
        }
        // Nobody waits for this Pong: what counts is that something is read.
        reads_when_asked = link.ping().map(|_| reads);
    }
}

/// Waits for the end of a drain: everything answered, or no answer can be due any more.
async fn drained(link: &Link, grace: Duration) -> Arc<str> {
    link.left().await;
    let limit = sleep(Duration::from_millis(link.hello.timeout_max_ms.into()) + grace);
    tokio::pin!(limit);
    loop {
        if link.is_empty() {
            return link.why_left();
        }
        tokio::select! {
            () = link.emptied.notified() => {}
            () = &mut limit => return link.why_left(),
        }
    }
}

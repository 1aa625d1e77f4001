//! A client for the suite: rustls by hand over any transport's halves.

use std::{
    io::{Read, Write},
    sync::Arc,
};

use rustls::{ClientConfig, ClientConnection, pki_types::ServerName};
use segl_wire::{FrameBuffer, Kind, Limits, ListKeys, Message, Meta, Sign, encode_frame};

use crate::transport::{Closing, Reading, Stream, Writing};

/// What the server said.
pub(super) struct Said {
    pub(super) kind: Kind,
    pub(super) id: u64,
    body: Vec<u8>,
}

impl Said {
    pub(super) fn read<'a, M: Message<'a>>(&'a self) -> M {
        M::decode(&self.body, &Limits { batch_max: 1000, message_max: 1 << 20, document_max: 1 << 20 }).unwrap()
    }
}

/// An open connection.
pub(super) struct Client<S: Stream> {
    tls: ClientConnection,
    reader: Option<S::Reader>,
    writer: Option<S::Writer>,
    closer: S::Closer,
    frames: FrameBuffer,
    to_say: Vec<u8>,
}

impl<S: Stream> Client<S> {
    /// Shakes hands; the error is the network's or TLS's.
    pub(super) async fn shake_hands(stream: S, config: Arc<ClientConfig>) -> Result<Client<S>, String> {
        let name = ServerName::try_from("localhost").unwrap();
        let tls = ClientConnection::new(config, name).unwrap();
        let (reader, writer, closer) = stream.split();
        let frames = FrameBuffer::new(1 << 20);
        let mut client = Client { tls, reader: Some(reader), writer: Some(writer), closer, frames, to_say: Vec::new() };
        client.flush().await?;
        while client.tls.is_handshaking() {
            client.take_in().await?;
            client.flush().await?;
        }
        Ok(client)
    }

    pub(super) fn say<'m>(&mut self, kind: Kind, id: u64, message: &impl Message<'m>) {
        encode_frame(kind, id, message, &mut self.to_say);
    }

    pub(super) fn say_sign(&mut self, id: u64, request: &Sign<'_>) {
        self.say(Kind::Sign, id, request);
    }

    pub(super) fn say_list_keys(&mut self, id: u64) {
        let meta = Meta { timeout_ms: 1000, class: Default::default(), context: Default::default() };
        self.say(Kind::ListKeys, id, &ListKeys { meta });
    }

    /// Sends what was said; an error when the other side ended it.
    pub(super) async fn flush(&mut self) -> Result<(), String> {
        let mut sealed = Vec::new();
        let said = std::mem::take(&mut self.to_say);
        for chunk in said.chunks(16_000) {
            self.tls.writer().write_all(chunk).unwrap();
            self.tls.write_tls(&mut sealed).unwrap();
        }
        while self.tls.wants_write() {
            self.tls.write_tls(&mut sealed).unwrap();
        }
        let writer = self.writer.take().ok_or("the writer broke before")?;
        let (writer, _, result) = writer.write_all(sealed).await;
        self.writer = Some(writer);
        result.map_err(|error| error.to_string())
    }

    /// The next frame; none at the end.
    pub(super) async fn hear(&mut self) -> Option<Said> {
        loop {
            if let Some((header, body)) = self.frames.next_frame().unwrap() {
                return Some(Said { kind: header.known_kind().unwrap(), id: header.id, body: body.to_vec() });
            }
            self.take_in().await.ok()?;
        }
    }

    async fn take_in(&mut self) -> Result<(), String> {
        let reader = self.reader.take().ok_or("the reader broke before")?;
        let (reader, bytes, result) = reader.read(Vec::with_capacity(20_000)).await;
        self.reader = Some(reader);
        if result.map_err(|error| error.to_string())? == 0 {
            return Err("the end".into());
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            if self.tls.read_tls(&mut rest).map_err(|error| error.to_string())? == 0 {
                break;
            }
            let state = self.tls.process_new_packets().map_err(|error| error.to_string())?;
            let mut plaintext = vec![0; state.plaintext_bytes_to_read()];
            self.tls.reader().read_exact(&mut plaintext).unwrap();
            let mut left = &plaintext[..];
            while !left.is_empty() {
                let pushed = self.frames.push(left);
                assert!(pushed > 0, "the suite's answers are short");
                left = &left[pushed..];
            }
        }
        Ok(())
    }

    /// Ends it from this side.
    pub(super) async fn leave(self) {
        self.closer.close();
    }
}

/// For those who do not speak TLS: sends bytes, then reads until the other side ends it.
pub(super) async fn send_raw_and_read_to_the_end<S: Stream>(stream: S, bytes: &[u8]) {
    let (mut reader, writer, closer) = stream.split();
    if !bytes.is_empty() {
        let (_, _, result) = writer.write_all(bytes.to_vec()).await;
        result.unwrap();
    }
    loop {
        let (back, _, result) = reader.read(Vec::with_capacity(1000)).await;
        if !matches!(result, Ok(count) if count > 0) {
            break;
        }
        reader = back;
    }
    closer.close();
}

//! What the client must know of each kind of request.

use crate::{
    Code, Error, Hello, Kind, ListKeys, Message, Meta, Payload, Sign, SignAssertion, SignAssertionBatch, SignBatch,
    SignJws, SignedState,
};

/// What the client must know of a request.
pub(super) trait Request<'m>: Message<'m> + Clone {
    const KIND: Kind;
    /// Of its answer
    const ANSWER: Kind;

    fn meta(&self) -> &Meta<'m>;

    fn meta_mut(&mut self) -> &mut Meta<'m>;

    /// Slots it takes.
    fn cost(&self) -> usize {
        1
    }

    /// Refuses here, in the server's words, what the Hello says it would refuse.
    fn fits(&self, _: &Hello<'_>) -> Result<(), Error<'static>> {
        Ok(())
    }

    /// Whether a signature may exist when nothing is heard any more.
    fn signed_when_lost() -> SignedState {
        SignedState::Unknown
    }
}

impl<'m> Request<'m> for ListKeys<'m> {
    const KIND: Kind = Kind::ListKeys;
    const ANSWER: Kind = Kind::Keys;

    fn meta(&self) -> &Meta<'m> {
        &self.meta
    }

    fn meta_mut(&mut self) -> &mut Meta<'m> {
        &mut self.meta
    }

    /// The server counts it nowhere.
    fn cost(&self) -> usize {
        0
    }

    fn signed_when_lost() -> SignedState {
        SignedState::No
    }
}

impl<'m> Request<'m> for Sign<'m> {
    const KIND: Kind = Kind::Sign;
    const ANSWER: Kind = Kind::Signed;

    fn meta(&self) -> &Meta<'m> {
        &self.meta
    }

    fn meta_mut(&mut self) -> &mut Meta<'m> {
        &mut self.meta
    }

    fn fits(&self, hello: &Hello<'_>) -> Result<(), Error<'static>> {
        payload_fits(&self.payload, hello)
    }
}

impl<'m> Request<'m> for SignBatch<'m> {
    const KIND: Kind = Kind::SignBatch;
    const ANSWER: Kind = Kind::SignedBatch;

    fn meta(&self) -> &Meta<'m> {
        &self.meta
    }

    fn meta_mut(&mut self) -> &mut Meta<'m> {
        &mut self.meta
    }

    fn cost(&self) -> usize {
        self.items.len()
    }

    fn fits(&self, hello: &Hello<'_>) -> Result<(), Error<'static>> {
        batch_fits(self.items.len(), hello)?;
        self.items.iter().try_for_each(|item| payload_fits(&item.payload, hello))
    }
}

impl<'m> Request<'m> for SignAssertion<'m> {
    const KIND: Kind = Kind::SignAssertion;
    const ANSWER: Kind = Kind::SignedAssertion;

    fn meta(&self) -> &Meta<'m> {
        &self.meta
    }

    fn meta_mut(&mut self) -> &mut Meta<'m> {
        &mut self.meta
    }

    fn fits(&self, hello: &Hello<'_>) -> Result<(), Error<'static>> {
        document_fits(&self.document, hello)
    }
}

impl<'m> Request<'m> for SignAssertionBatch<'m> {
    const KIND: Kind = Kind::SignAssertionBatch;
    const ANSWER: Kind = Kind::SignedAssertionBatch;

    fn meta(&self) -> &Meta<'m> {
        &self.meta
    }

    fn meta_mut(&mut self) -> &mut Meta<'m> {
        &mut self.meta
    }

    fn cost(&self) -> usize {
        self.items.len()
    }

    fn fits(&self, hello: &Hello<'_>) -> Result<(), Error<'static>> {
        batch_fits(self.items.len(), hello)?;
        self.items.iter().try_for_each(|item| document_fits(&item.document, hello))
    }
}

impl<'m> Request<'m> for SignJws<'m> {
    const KIND: Kind = Kind::SignJws;
    const ANSWER: Kind = Kind::SignedJws;

    fn meta(&self) -> &Meta<'m> {
        &self.meta
    }

    fn meta_mut(&mut self) -> &mut Meta<'m> {
        &mut self.meta
    }

    fn fits(&self, hello: &Hello<'_>) -> Result<(), Error<'static>> {
        self.header.iter().chain([&self.payload]).try_for_each(|part| document_fits(part, hello))
    }
}

/// A batch above in_flight_max would wait for its slots for ever.
fn batch_fits(items: usize, hello: &Hello<'_>) -> Result<(), Error<'static>> {
    let max = hello.batch_max.min(hello.in_flight_max) as usize;
    if (1..=max).contains(&items) {
        return Ok(());
    }
    Err(Error::of(Code::BadBatch, format!("a batch has 1 to {max} items here, not {items}")))
}

fn document_fits(document: &[u8], hello: &Hello<'_>) -> Result<(), Error<'static>> {
    if document.len() <= hello.document_max as usize {
        return Ok(());
    }
    let what = format!("a document has at most {} bytes here, not {}", hello.document_max, document.len());
    Err(Error::of(Code::BadInput, what))
}

fn payload_fits(payload: &Payload<'_>, hello: &Hello<'_>) -> Result<(), Error<'static>> {
    match payload {
        Payload::Message(message) if message.len() > hello.message_max as usize => {
            let what = format!("a message has at most {} bytes here, not {}", hello.message_max, message.len());
            Err(Error::of(Code::BadInput, what))
        }
        _ => Ok(()),
    }
}

//! One suite for every transport: io_uring, epoll, and the simulated one under faults.

use std::{future::Future, io, net};

use tokio::task::LocalSet;

use super::{
    Closing, Epoll, FromSocket, Reading, Stream, Uring, Writing,
    memory::{Faults, simulated_pair},
};

fn on_epoll<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, future)
}

fn on_uring<F: Future>(future: F) -> F::Output {
    tokio_uring::Runtime::new(tokio_uring::builder().entries(16)).unwrap().block_on(future)
}

fn sockets<S: FromSocket>() -> (S, S) {
    let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
    let near = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (far, _) = listener.accept().unwrap();
    (S::from_socket(near).unwrap(), S::from_socket(far).unwrap())
}

async fn read_to_end<R: Reading>(mut reader: R) -> Vec<u8> {
    let (mut all, mut buffer) = (Vec::new(), Vec::with_capacity(1000));
    loop {
        let (back, bytes, result) = reader.read(buffer).await;
        if result.unwrap() == 0 {
            return all;
        }
        all.extend_from_slice(&bytes);
        (reader, buffer) = (back, bytes);
    }
}

async fn bytes_arrive_whole_and_in_order<A: Stream, B: Stream>((near, far): (A, B)) {
    let sent: Vec<u8> = (0..300_000u32).map(|i| (i % 251) as u8).collect();
    let (_reader, mut writer, closer) = near.split();
    let (far_reader, _far_writer, _far_closer) = far.split();
    let received = tokio::task::spawn_local(read_to_end(far_reader));
    for piece in sent.chunks(70_000) {
        let (back, _, result) = writer.write_all(piece.to_vec()).await;
        result.unwrap();
        writer = back;
    }
    closer.finish();
    assert_eq!(received.await.unwrap(), sent);
}

async fn close_completes_a_pending_read<A: Stream, B: Stream>((near, _far): (A, B)) {
    let (reader, _writer, closer) = near.split();
    let reading = tokio::task::spawn_local(async move {
        let (_, _, result) = reader.read(Vec::with_capacity(100)).await;
        result
    });
    tokio::task::yield_now().await;
    closer.close();
    assert_eq!(reading.await.unwrap().unwrap(), 0);
}

async fn close_completes_a_pending_write<A: Stream, B: Stream>((near, _far): (A, B)) {
    let (_reader, mut writer, closer) = near.split();
    let writing = tokio::task::spawn_local(async move {
        // Nobody reads at the other end: sooner or later a write waits for room.
        loop {
            let (back, _, result) = writer.write_all(vec![7; 1 << 20]).await;
            if let Err(error) = result {
                return error;
            }
            writer = back;
        }
    });
    tokio::task::yield_now().await;
    closer.close();
    let error = writing.await.unwrap();
    assert!(matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset), "{error}");
}

macro_rules! on_every_transport {
    ($($promise:ident),*) => {
        mod uring {
            $(#[test] fn $promise() { super::on_uring(async { super::$promise(super::sockets::<super::Uring>()).await }) })*
        }
        mod epoll {
            $(#[test] fn $promise() { super::on_epoll(async { super::$promise(super::sockets::<super::Epoll>()).await }) })*
        }
        mod simulated {
            $(#[test] fn $promise() {
                for seed in 0..20 {
                    let faults = super::Faults { piece_max: 999, stall_one_in: 3, error_one_in: 0, seed };
                    super::on_epoll(async move { super::$promise(super::simulated_pair(5_000, faults)).await })
                }
            })*
        }
    };
}

on_every_transport!(bytes_arrive_whole_and_in_order, close_completes_a_pending_read, close_completes_a_pending_write);

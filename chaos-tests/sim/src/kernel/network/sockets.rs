//! What a process has of the network: it listens, connects, reads and writes.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Dialling, Happening, Listener, Pipe, PipeId, Segment, WINDOW, peer};
use crate::kernel::{attempt, with};

/// Begins to listen at `address`, of the running process.
pub fn listen(address: &str) -> Incoming {
    with(|kernel| {
        let host = kernel.current.expect("a process listens");
        let listener = Listener {
            life: kernel.hosts[host].life,
            ..Listener::default()
        };
        kernel
            .network
            .listeners
            .insert(address.to_owned(), listener);
    });
    Incoming {
        address: address.to_owned(),
    }
}

/// The connections that somebody makes to an address.
#[derive(Debug)]
pub struct Incoming {
    address: String,
}

impl futures::Stream for Incoming {
    type Item = SimulatedStream;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = attempt(|kernel| {
            let listener = kernel.network.listeners.get_mut(&self.address)?;
            let next = listener.waiting.pop_front();
            if next.is_none() {
                listener.waker = Some(context.waker().clone());
            }
            next
        });
        match next.flatten() {
            Some(pipe) => Poll::Ready(Some(SimulatedStream {
                reads: pipe,
                writes: peer(pipe),
            })),
            None => Poll::Pending,
        }
    }
}

/// Connects the running process to `address`. Never ends if nobody answers.
pub async fn connect(address: String) -> io::Result<SimulatedStream> {
    if attempt(|kernel| kernel.is_dead()) == Some(true) {
        std::future::pending::<()>().await;
    }
    let begun = attempt(|kernel| {
        let from = kernel.living()?;
        let to = *kernel.network.hosts.get(&address)?;
        let from = (from, kernel.hosts[from].life);
        let network = &mut kernel.network;
        network.serial += 2;
        let id = network.serial & !1;
        for (id, from, to) in [(id, from, (to, u32::MAX)), (id + 1, (to, u32::MAX), from)] {
            let pipe = Pipe {
                from,
                to,
                segments: VecDeque::new(),
                readable: VecDeque::new(),
                in_flight: 0,
                arrives_last: 0,
                ended: false,
                reset: false,
                reader: None,
                writer: None,
            };
            network.pipes.insert(id, pipe);
        }
        network.dialling.insert(id, Dialling::default());
        let request = Happening::Request {
            pipe: id,
            port: address.clone(),
        };
        network.request(kernel.now, from.0, to, request);
        Some(id)
    });
    let Some(id) = begun.flatten() else {
        return Err(io::ErrorKind::AddrNotAvailable.into());
    };
    // Dropped before there is an answer, it closes what has been opened.
    let stream = SimulatedStream {
        reads: id + 1,
        writes: id,
    };
    std::future::poll_fn(|context| {
        let outcome = attempt(|kernel| {
            let dialling = kernel.network.dialling.get_mut(&id)?;
            let outcome = dialling.outcome.take();
            if outcome.is_none() {
                dialling.waker = Some(context.waker().clone());
            }
            outcome
        });
        match outcome.flatten() {
            Some(outcome) => Poll::Ready(outcome),
            None => Poll::Pending,
        }
    })
    .await?;
    Ok(stream)
}

/// One end of a connection.
#[derive(Debug)]
pub struct SimulatedStream {
    reads: PipeId,
    writes: PipeId,
}

impl Drop for SimulatedStream {
    fn drop(&mut self) {
        attempt(|kernel| {
            if kernel.living().is_none() {
                return;
            }
            kernel.network.dialling.remove(&self.writes);
            let now = kernel.now;
            // What the other side still sends meets a reset.
            if let Some(reads) = kernel.network.pipes.get_mut(&self.reads) {
                reads.to.1 = u32::MAX;
            }
            kernel.network.send(now, self.writes, Segment::End);
        });
    }
}

impl AsyncRead for SimulatedStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut woken = None;
        let mut writer_host = None;
        let polled = attempt(|kernel| {
            let Some(pipe) = kernel.network.pipes.get_mut(&self.reads) else {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            };
            if pipe.reset {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            if pipe.readable.is_empty() {
                if pipe.ended {
                    return Poll::Ready(Ok(()));
                }
                pipe.reader = Some(context.waker().clone());
                return Poll::Pending;
            }
            let length = buffer.remaining().min(pipe.readable.len());
            let (front, back) = pipe.readable.as_slices();
            let first = length.min(front.len());
            buffer.put_slice(&front[..first]);
            buffer.put_slice(&back[..length - first]);
            pipe.readable.drain(..length);
            woken = pipe.writer.take();
            writer_host = Some(pipe.from.0);
            Poll::Ready(Ok(()))
        });
        if let Some(woken) = woken {
            woken.wake();
            attempt(|kernel| {
                if let Some(host) = writer_host {
                    kernel.hosts[host].is_runnable = true;
                }
            });
        }
        polled.unwrap_or(Poll::Pending)
    }
}

impl AsyncWrite for SimulatedStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = attempt(|kernel| {
            if kernel.living().is_none() {
                return Poll::Pending;
            }
            let now = kernel.now;
            let Some(pipe) = kernel.network.pipes.get_mut(&self.writes) else {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            };
            if pipe.reset {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            let room = WINDOW.saturating_sub(pipe.in_flight + pipe.readable.len());
            if room == 0 {
                pipe.writer = Some(context.waker().clone());
                return Poll::Pending;
            }
            let bytes = buffer[..buffer.len().min(room)].to_vec();
            let length = bytes.len();
            kernel.network.send(now, self.writes, Segment::Bytes(bytes));
            Poll::Ready(Ok(length))
        });
        polled.unwrap_or(Poll::Pending)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        attempt(|kernel| {
            if kernel.living().is_some() {
                let now = kernel.now;
                kernel.network.send(now, self.writes, Segment::End);
            }
        });
        Poll::Ready(Ok(()))
    }
}

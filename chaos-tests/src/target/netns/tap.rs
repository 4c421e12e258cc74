//! A TAP device: a network interface of which this process is the cable. What is read here, the interface sends; what is
//! written here, it receives.
//!
//! The interface is made in the network namespace of this process. It may be moved to another afterwards; the descriptor
//! stays its other end. It vanishes with the descriptor, so with this process, however that ends: no child inherits it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;

use anyhow::{Context, ensure};
use rustix::fs::OFlags;
use rustix::ioctl::{Opcode, Updater, ioctl, opcode};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Where such devices come from.
pub const DEVICE: &str = "/dev/net/tun";
/// Of an interface's name, with the zero at its end.
const NAME_BYTES: usize = 16;
/// Longer than any frame of an interface whose MTU nobody has changed.
pub const FRAME_BYTES_MAX: usize = 2_048;

/// `TUNSETIFF` of linux/if_tun.h, which says `int` and takes an `ifreq`.
const SET_INTERFACE: Opcode = opcode::write::<i32>(b'T', 202);
/// `IFF_TAP | IFF_NO_PI`: whole Ethernet frames, with nothing before them.
const FLAGS: i16 = 0x0002 | 0x1000;

/// `struct ifreq` of linux/if.h.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; NAME_BYTES],
    flags: i16,
    rest: [u8; 22],
}

/// The other end of an interface.
#[derive(Debug)]
pub struct Tap(AsyncFd<File>);

impl Tap {
    /// A new interface of that name.
    pub fn open(name: &str) -> anyhow::Result<Self> {
        ensure!(
            name.len() < NAME_BYTES,
            "{name} is too long for an interface"
        );
        let nonblocking = i32::try_from(OFlags::NONBLOCK.bits())?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(nonblocking)
            .open(DEVICE)
            .with_context(|| format!("cannot open {DEVICE}"))?;
        let mut request = InterfaceRequest {
            name: [0; NAME_BYTES],
            flags: FLAGS,
            rest: [0; 22],
        };
        request.name[..name.len()].copy_from_slice(name.as_bytes());
        attach(&file, &mut request).with_context(|| format!("cannot make the interface {name}"))?;
        Ok(Self(watched(file)?))
    }

    /// The next frame that the interface sends; how long it is. An error if the interface is gone.
    pub async fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = |mut file: &File| file.read(buffer);
        self.0.async_io(Interest::READABLE, read).await
    }

    /// Has the interface receive a frame. One that it does not take, because it is down or gone, is lost, as on any network.
    pub fn send(&self, frame: &[u8]) {
        let mut file = self.0.get_ref();
        // A device takes a frame at once or not at all.
        let _ = file.write_all(frame);
    }
}

#[expect(unsafe_code, reason = "what is watched must stay open")]
fn watched(file: File) -> io::Result<AsyncFd<File>> {
    // SAFETY: a `File` has one open descriptor, the same until it is dropped, and it is dropped with what watches it.
    unsafe { Ok(AsyncFd::register_with_interest(file, Interest::READABLE)?) }
}

#[expect(unsafe_code, reason = "a call to the system")]
fn attach(file: &File, request: &mut InterfaceRequest) -> io::Result<()> {
    // SAFETY: the kernel reads and writes one `struct ifreq`, which this is in size and form, and keeps no pointer to it.
    unsafe {
        let call = Updater::<SET_INTERFACE, InterfaceRequest>::new(request);
        Ok(ioctl(file, call)?)
    }
}

//! Loopback ports for the JobManagers of a run.
//!
//! A JobManager that is killed comes back to its port, so that must not be another's meanwhile, neither of this run nor of
//! one beside it: a client of ours would be answered by a cluster that it has never heard of.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::Context;

/// Below the ports that the kernel takes for outgoing connections, and above those that `flott local` searches first.
const PORTS: std::ops::Range<u32> = 24_000..32_000;

/// A loopback port that nobody listens on, and that nobody else gets from here before this process ends.
pub(crate) fn free_port() -> anyhow::Result<u16> {
    static SEARCHED: AtomicU32 = AtomicU32::new(0);
    let span = PORTS.end - PORTS.start;
    let begin = std::process::id().wrapping_mul(16);
    for _ in 0..span {
        let offset = begin.wrapping_add(SEARCHED.fetch_add(1, Ordering::Relaxed)) % span;
        let port = (PORTS.start + offset) as u16;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
            && claim(port).context("cannot claim a port")?
        {
            return Ok(port);
        }
    }
    anyhow::bail!("no free loopback port in {PORTS:?}")
}

/// Takes the name that stands for a port on this machine, for as long as this process lives. False: somebody has it.
fn claim(port: u16) -> io::Result<bool> {
    static CLAIMS: Mutex<Vec<UnixListener>> = Mutex::new(Vec::new());
    let name = SocketAddr::from_abstract_name(format!("flott-chaos-port-{port}"))?;
    match UnixListener::bind_addr(&name) {
        Ok(claim) => {
            let mut claims = CLAIMS.lock().unwrap_or_else(PoisonError::into_inner);
            claims.push(claim);
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_was_given_is_not_given_again_while_nobody_listens() {
        let port = free_port().unwrap();
        assert!(TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok());
        assert!(!claim(port).unwrap(), "{port} is taken");
        assert_ne!(free_port().unwrap(), port);
    }
}

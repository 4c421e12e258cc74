//! Which of our processes opened a connection: by the kernel's tables, which any user may read for processes of his own.

use std::fs;
use std::net::SocketAddr;

/// The process, of `pids`, that holds the other end of a loopback connection from `peer` to `local`.
pub fn of_connection(peer: SocketAddr, local: SocketAddr, pids: &[i32]) -> Option<i32> {
    let inode = inode(&fs::read_to_string("/proc/net/tcp").ok()?, peer, local)?;
    let wanted = format!("socket:[{inode}]");
    let holds = |pid: &i32| {
        let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else {
            return false;
        };
        let mut links = descriptors
            .flatten()
            .filter_map(|fd| fs::read_link(fd.path()).ok());
        links.any(|link| link.as_os_str() == wanted.as_str())
    };
    pids.iter().copied().find(holds)
}

/// The inode of the socket that is bound to `from` and connected to `to`.
fn inode(table: &str, from: SocketAddr, to: SocketAddr) -> Option<u64> {
    let (from, to) = (in_table(from)?, in_table(to)?);
    let line = table.lines().find(|line| {
        let mut fields = line.split_whitespace().skip(1);
        fields.next() == Some(&from) && fields.next() == Some(&to)
    })?;
    line.split_whitespace().nth(9)?.parse().ok()
}

/// As the table writes an address: the bytes of the IP backwards, then the port, in hexadecimal.
fn in_table(address: SocketAddr) -> Option<String> {
    let SocketAddr::V4(address) = address else {
        return None;
    };
    let [a, b, c, d] = address.ip().octets();
    Some(format!(
        "{d:02X}{c:02X}{b:02X}{a:02X}:{:04X}",
        address.port()
    ))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_line_of_the_table_is_understood() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             0: 0100007F:5DC1 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 7 1 0 100 0 0 10 0\n\
             1: 0100007F:C350 0100007F:5DC1 01 00000000:00000000 00:00000000 00000000     0        0 424242 1 0 100 0 0 10 0\n";
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        assert_eq!(
            inode(table, address(50_000), address(24_001)),
            Some(424_242)
        );
        assert_eq!(inode(table, address(50_001), address(24_001)), None);
    }

    #[test]
    fn this_process_owns_its_own_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let local = listener.local_addr().unwrap();
        let stream = TcpStream::connect(local).unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        let found = of_connection(stream.local_addr().unwrap(), local, &[1, own]);
        assert_eq!(found, Some(own));
    }
}
